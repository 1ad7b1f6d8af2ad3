"""One update: test, then train, on the rows of one micro-batch. All of it is traced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import tensorflow as tf

from learnd.core.protocols import Evaluated, Network
from learnd.core.snapshot import ChosenWeights, MixtureState
from learnd.core.tensors import KerasModel, Optimizer, Tensor, Variable
from learnd.learners.averaged import AveragedModel
from learnd.learners.guard import Guard
from learnd.learners.replay import ReplayBuffer

CustomUpdate = Callable[[KerasModel, Optimizer, Tensor, Tensor], Tensor]
"""The user's ``update(model, optimizer, x, y) -> loss``: the core, its optimizer, the core's inputs and targets."""
Rows = tuple[Tensor, Tensor, Tensor]
"""Raw inputs, targets and weights of the same rows."""


class UpdateResult(NamedTuple):
    """Tensors for the rows of an update, from before the update.

    Attributes
    ----------
    predictions : (rows, outputs)
    losses, averaged_losses : (rows,), of the live and of the averaged network
    residuals : (rows, outputs)
    averaged_predictions : (rows, outputs)
    """

    predictions: Tensor
    losses: Tensor
    averaged_losses: Tensor
    residuals: Tensor
    averaged_predictions: Tensor


class ChunkUpdate(Protocol):
    """An update inside the compiled chunk. Both methods are traced.

    Shapes: x (rows, *row_shape), y (rows, targets), weights (rows,), slots (rows,) with the places of the keys,
    upstream (rows, columns) with forecasts made upstream, nan where they are missing.
    """

    def test(self, x: Tensor, y: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate rows, without changing a variable."""
        ...

    def __call__(self, x: Tensor, y: Tensor, weights: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate rows, then learn from them."""
        ...

    def settle_due(self) -> Tensor:
        """Return a boolean tensor: true if `settle` has to run before the next group."""
        ...

    def settle(self) -> None:
        """Do what is rare and costs more than learning a sample. Runs outside the loop over samples."""
        ...


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """The options of one update.

    Attributes
    ----------
    weighted : use the weights of rows; otherwise all rows weigh the same
    passes : optimizer steps on the same rows
    elastic : the share of the way to their average that the weights move after each step
    rates : Keras variables, each with a factor on its steps
    custom : the user's own update, instead of this one
    """

    weighted: bool = False
    passes: int = 1
    elastic: float = 0.0
    rates: Sequence[tuple[Variable, float]] = ()
    custom: CustomUpdate | None = None


class Update:
    """The update: predicts rows, then takes one or more optimizer steps on them."""

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        averaged: AveragedModel,
        guard: Guard,
        options: UpdateOptions,
        replay: ReplayBuffer | None = None,
        newest: ReplayBuffer | None = None,
    ) -> None:
        self._newest = newest
        self._standing = averaged.make_standing(newest) if newest is not None else None
        self._network = network
        self.optimizer = optimizer
        self._averaged = averaged
        self._options = options
        self._replay = replay
        self.guard = guard

    def refusals(self) -> tuple[int, int]:
        """Return the numbers of refused updates and of rollbacks since the model began."""
        # Called once per batch. A variable's own `numpy` takes 50 us, this 15 us, and learning one sample about 500 us.
        return int(self.guard.refused.value().numpy()), int(self.guard.rollbacks.value().numpy())

    def weigh_replay(self, factor: float) -> bool:
        """Multiply the weights of the stored samples by *factor*; return False if there is no replay.

        Between two compiled calls.
        """
        if self._replay is None:
            return False
        self._replay.weigh(factor)
        return True

    def optimizers(self) -> list[Optimizer]:
        """Return the only optimizer."""
        return [self.optimizer]

    def mixture(self) -> MixtureState | None:
        """Return None: one learner answers alone."""
        return None

    def chosen(self) -> ChosenWeights | None:
        """Return which weights are published; None if there is no choice."""
        return self._standing.state() if self._standing is not None else None

    def test(self, x: Tensor, y: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate rows as in serving, without learning from them."""
        result = self._network.predict_and_loss(x, y, training=False)
        losses, predictions = self._averaged.evaluate(x, y, result)
        return UpdateResult(result.predictions, result.losses, losses, result.residuals, predictions)

    def __call__(self, x: Tensor, y: Tensor, weights: Tensor, slots: Tensor, upstream: Tensor) -> UpdateResult:
        """Predict and evaluate rows, then learn from them. Neither *slots* nor *upstream* matter to one model."""
        return self.learn(x, y, weights)

    def learn(self, x: Tensor, y: Tensor, weights: Tensor, *, observe: bool = True) -> UpdateResult:
        """Predict and evaluate rows, then learn from them. Without *observe* the online statistics do not change."""
        network, rows = self._network, x.shape[0]
        result: Evaluated | None = None
        if network.has_training_mode or self._options.custom is not None:
            # Dropout and batch statistics belong to training; a prediction must equal the served one.
            result = network.predict_and_loss(x, y, training=False)
        rows_and_replayed = self._with_replayed(x, y, weights)
        trained = self._train(*rows_and_replayed)
        if result is None:
            assert trained is not None
            result = Evaluated(*(part[:rows] for part in trained))
        losses, predictions = self._averaged.evaluate(x, y, result)
        self._train_again(*rows_and_replayed)
        self._averaged.observe(x)
        if observe:
            network.observe(x, y)
        if self._replay is not None:
            self._replay.store(x, y, weights)
        if self._newest is not None:
            self._newest.store(x, y, weights)
        return UpdateResult(result.predictions, result.losses, losses, result.residuals, predictions)

    def settle_due(self) -> Tensor:
        """Return a boolean tensor: true if the scales or the choice have to be renewed before the next rows."""
        due = self._network.scales_due()
        return due if self._standing is None else due | self._standing.due()

    def settle(self) -> None:
        """Renew the scales, and the choice of what is published, if that is due."""
        once(self._network.scales_due(), self._network.renew_scales)
        if self._standing is not None:
            once(self._standing.due(), self._standing.evaluate)

    def _with_replayed(self, x: Tensor, y: Tensor, weights: Tensor) -> Rows:
        """Return the new rows, followed by the replayed ones."""
        if self._replay is None:
            return x, y, weights
        old_x, old_y, old_weights = self._replay.draw()
        return tf.concat([x, old_x], 0), tf.concat([y, old_y], 0), tf.concat([weights, old_weights], 0)

    def _train(self, x: Tensor, y: Tensor, weights: Tensor) -> Evaluated | None:
        """Take one optimizer step; return its forward pass, or None with the user's own update."""
        network, custom = self._network, self._options.custom
        statistics = self.guard.statistics()
        if custom is not None:
            inputs, targets = network.core_inputs(x), network.core_targets(x, y)
            self.guard.step((), lambda _: custom(network.core, self.optimizer, inputs, targets), statistics)
            return None
        variables = network.trainable_variables
        with tf.GradientTape() as tape:
            evaluated = network.predict_and_loss(x, y, training=True)
            total = self._total(evaluated.objective, weights) + network.penalty()
        self.guard.step(tape.gradient(total, variables), lambda sound: self._step(sound, variables), statistics)
        return evaluated

    def _step(self, gradients: Sequence[Tensor | None], variables: Sequence[Variable]) -> None:
        before = [(v, tf.convert_to_tensor(v.value), factor) for v, factor in self._options.rates]
        self.optimizer.apply(gradients, variables)
        for variable, value, factor in before:
            variable.assign(value + factor * (variable.value - value))
        self._pull()

    def _total(self, losses: Tensor, weights: Tensor) -> Tensor:
        total: Tensor
        if self._replay is None and not self._options.weighted:
            total = tf.reduce_mean(losses)
            return total
        # As in Keras, divided by the number of rows, not by the sum of weights. Empty rows of the replay buffer do not
        # count.
        rows = tf.cast(tf.size(losses), tf.float32)
        if self._replay is not None:
            rows -= tf.cast(self._replay.missing(), tf.float32)
        total = tf.reduce_sum(losses * weights) / rows
        return total

    def _pull(self) -> None:
        """Move the weights towards their average (elastic averaging; Zhang, Choromanska, LeCun, 2015)."""
        if not self._options.elastic:
            return
        learning = {id(v) for v in self._network.trainable_variables}
        share = tf.where(self._averaged.ready(), self._options.elastic, 0.0)
        for variable, average in self._averaged.pairs():
            if id(variable) in learning:
                variable.assign(variable.value + share * (average - variable.value))

    def _train_again(self, x: Tensor, y: Tensor, weights: Tensor) -> None:
        further = self._options.passes - 1
        if further:

            def once(i: Tensor) -> Tensor:
                self._train(x, y, weights)
                return i + 1

            tf.while_loop(lambda i: i < further, once, (tf.constant(0),))


def once(due: Tensor, action: Callable[[], object]) -> None:
    """Run *action* if the boolean tensor *due* is true. Traced.

    A loop that runs at most once: in a compiled update a conditional would copy all variables, true or not.
    """

    def run(_: Tensor) -> Tensor:
        action()
        done: Tensor = tf.constant(False)
        return done

    tf.while_loop(lambda again: again, run, (due,))
