"""The choice of the weights that are published: those that predict best while they stand still.

A published model no longer learns. Weights that keep learning have just seen the neighbour of the sample that they
predict, so their losses say little about it. Here, copies of each candidate's weights are taken every 1000 rows. Every
200 rows, they are evaluated on those rows, all of which came later. The candidate with the smallest loss is chosen.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

import tensorflow as tf

from learnd.core.snapshot import ChosenWeights
from learnd.core.tensors import Tensor, TfVariable, Variable
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import ReplaySettings

ROUND = 200
"""Number of learned rows from one evaluation to the next. As many of the newest rows are stored."""
ROUNDS_PER_COPY = 5
"""Number of evaluations of the same copies."""
FADING_ROUNDS = 10.0
"""Number of evaluations over which losses are averaged."""
_CLEARLY = 0.98
"""Ratio of the best loss to that of the chosen candidate, below which the choice changes: noise must not change it."""

Losses = Callable[[Sequence[tuple[Variable, Tensor]], ReplayBuffer], Tensor]
"""The mean loss over the rows of a buffer with other weights, which are given as pairs of a variable and its value."""


def newest_rows(row_shape: tuple[int, ...], targets: int, *, rows: int, dtype: str) -> ReplayBuffer:
    """Return a buffer of the newest `ROUND` rows, for updates of *rows* rows."""
    settings = ReplaySettings(kind="recency", size=ROUND)
    return ReplayBuffer(settings, rows=rows, row_shape=row_shape, targets=targets, seed=0, dtype=dtype)


class Standing:
    """The choice among candidates of the same architecture. Traced.

    `due` and `evaluate` belong into the loop around that over samples, because an evaluation is rare and large.

    Parameters
    ----------
    names : of the candidates
    candidates : returns the present weights of each candidate, in the order of *variables*
    variables : the variables that the candidates' weights replace
    losses : see `Losses`
    newest : the newest rows
    first : the number of the candidate that is chosen until the first evaluation
    """

    def __init__(
        self,
        names: Sequence[str],
        candidates: Callable[[], Sequence[Sequence[Tensor]]],
        variables: Sequence[Variable],
        losses: Losses,
        newest: ReplayBuffer,
        *,
        first: int,
    ) -> None:
        self.names = names
        self._candidates = candidates
        self._variables = variables
        self._losses_of = losses
        self._newest = newest
        self._sizes = [prod(tuple(v.shape)) for v in variables]
        self._copies: TfVariable = tf.Variable(tf.zeros((len(names), sum(self._sizes))), trainable=False)
        self.losses: TfVariable = tf.Variable(tf.zeros(len(names)), trainable=False)
        """Fading losses of each candidate on rows that came after its weights; 0 before the first evaluation."""
        self.evaluated: TfVariable = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Number of evaluations."""
        self._next: TfVariable = tf.Variable(ROUND, dtype=tf.int64, trainable=False)
        """Number of rows at which the next evaluation is due; the first one only copies."""
        self.choice: TfVariable = tf.Variable(first, dtype=tf.int32, trainable=False)

    def due(self) -> Tensor:
        """Return a boolean tensor: true if `evaluate` has to run before the next row."""
        is_due: Tensor = self._newest.stored >= self._next
        return is_due

    def evaluate(self) -> None:
        """Evaluate the copies on the newest rows, choose, and renew the copies if that is due."""
        first = self._next < 2 * ROUND
        evaluated = tf.convert_to_tensor(self.evaluated)
        share = 1.0 / tf.minimum(tf.cast(evaluated, tf.float32) + 1.0, FADING_ROUNDS)
        # One traced forward pass for all candidates: each of its own would be compiled too.
        now = tf.map_fn(self._loss_of, tf.convert_to_tensor(self._copies))
        before = tf.convert_to_tensor(self.losses)
        losses = tf.where(first, before, before + share * (now - before))
        best, chosen = tf.argmin(losses, output_type=tf.int32), tf.convert_to_tensor(self.choice)
        better = tf.reduce_min(losses) < _CLEARLY * tf.gather(losses, chosen)
        self.choice.assign(tf.where(~first & better, best, chosen))
        self.losses.assign(losses)
        evaluated += tf.where(first, tf.constant(0, tf.int64), tf.constant(1, tf.int64))
        renew = first | (evaluated % ROUNDS_PER_COPY == 0)
        present = tf.stack([tf.concat([tf.reshape(w, (-1,)) for w in each], axis=0) for each in self._candidates()])
        self._copies.assign(tf.where(renew, present, self._copies))
        self.evaluated.assign(evaluated)
        self._next.assign_add(ROUND)

    def _loss_of(self, copy: Tensor) -> Tensor:
        parts = zip(tf.split(copy, self._sizes), self._variables, strict=True)
        weights = [(v, tf.reshape(part, v.shape)) for part, v in parts]
        loss = self._losses_of(weights, self._newest)
        # Not a number is as bad as it gets.
        bounded: Tensor = tf.where(tf.math.is_finite(loss), loss, tf.constant(1e12))
        return bounded

    def state(self) -> ChosenWeights:
        """Return the name of the choice, and the losses of all candidates; none before the first evaluation."""
        losses = self.losses.numpy().tolist() if int(self.evaluated.value().numpy()) else []
        return ChosenWeights(self.names[int(self.choice.value().numpy())], dict(zip(self.names, losses, strict=False)))

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name, without the newest rows."""
        return {
            "copies": self._copies,
            "losses": self.losses,
            "evaluated": self.evaluated,
            "next": self._next,
            "choice": self.choice,
        }
