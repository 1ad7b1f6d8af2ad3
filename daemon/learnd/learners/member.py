"""One network of an ensemble: a core with its optimizer, replay buffer, guard and running average."""

from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from learnd.core.tensors import KerasModel, Optimizer, Tensor, TfVariable, Variable
from learnd.learners.guard import Guard
from learnd.learners.replay import ReplayBuffer

Objective = Callable[[Tensor, Tensor], Tensor]
"""Losses to minimise, shape (n,), from core targets and core outputs."""
LONGEST_AVERAGE = 100.0
"""Number of updates that an average remembers, once the model is old enough."""
_AGE_SHARE = 0.1
"""Share of all updates so far that a young average remembers."""


def average_share(updates: Tensor) -> Tensor:
    """Return the share of the newest weights in a running average, after *updates* updates. Traced."""
    count = tf.cast(updates, tf.float32) + 1.0
    share: Tensor = 1.0 / tf.clip_by_value(_AGE_SHARE * count, 1.0, LONGEST_AVERAGE)
    return share


class Member:
    """A core that takes one step per sample, on the sample and on replayed ones, and averages its weights.

    Inputs and targets are those of the core, so the buffer keeps rows in the scale of their time. After a change of a
    sensor's unit, old rows remain valid.

    Parameters
    ----------
    replay : None: learn from the new sample alone
    has_training_mode : the core behaves differently while it learns, so predicting takes a pass of its own
    """

    def __init__(
        self,
        core: KerasModel,
        optimizer: Optimizer,
        objective: Objective,
        replay: ReplayBuffer | None,
        *,
        has_training_mode: bool,
        max_step: float | None,
        max_refused: int | None,
    ) -> None:
        self.core = core
        self.optimizer = optimizer
        self.replay = replay
        self._objective = objective
        self._has_training_mode = has_training_mode
        self._averages: list[TfVariable] = [
            tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in self.trainable_variables
        ]
        self._updates = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.guard = Guard(self, self, max_step=max_step, max_refused=max_refused)

    @property
    def trainable_variables(self) -> Sequence[Variable]:
        return self.core.trainable_variables

    def statistics(self) -> Sequence[Variable]:
        """Return nothing: a core that learns one sample at a time has no batch statistics."""
        return []

    def pairs(self) -> list[tuple[Variable, Tensor]]:
        """Return pairs of a weight and its average. Traced."""
        return list(zip(self.trainable_variables, map(tf.convert_to_tensor, self._averages), strict=True))

    def ready(self) -> Tensor:
        """Return a boolean tensor: True after the first update. Traced."""
        started: Tensor = self._updates > 0
        return started

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the outputs, float32, for core *inputs*, as in serving."""
        outputs: Tensor = tf.cast(self.core(inputs, training=False), tf.float32)
        return outputs

    def averaged_answer(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the averaged weights, float32, for core *inputs*."""
        with keras.StatelessScope(state_mapping=self.pairs()):
            return self.answer(inputs)

    def learn(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Take one step on a row of core *inputs* and *targets*; return its outputs from before the step. Traced."""
        answer = self.answer(inputs) if self._has_training_mode else None
        rows, row_targets, row_weights, count = inputs, targets, weights, tf.constant(1.0)
        drawn: tuple[Tensor, ...] = ()
        if self.replay is not None:
            drawn = self.replay.draw()
            old_inputs, old_targets, old_weights = drawn
            rows, row_targets = tf.concat([inputs, old_inputs], 0), tf.concat([targets, old_targets], 0)
            row_weights = tf.concat([weights, old_weights], 0)
            count += tf.cast(self.replay.drawn - self.replay.missing(), tf.float32)
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            outputs = tf.cast(self.core(rows, training=True), tf.float32)
            total = tf.reduce_sum(self._objective(row_targets, outputs) * row_weights) / count
            total += tf.add_n(self.core.losses) if self.core.losses else 0.0
        gradients = tape.gradient(total, variables)
        self.guard.step(gradients, lambda sound: self.optimizer.apply(sound, variables), ())
        self._average()
        if self.replay is not None:
            self.replay.store(inputs, targets, weights, drawn)
        first: Tensor = tf.gather(outputs, [0])
        return first if answer is None else answer

    def loss_with(self, weights: Sequence[tuple[Variable, Tensor]], inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss over rows of core *inputs* and *targets* with other *weights*. Traced."""
        with keras.StatelessScope(state_mapping=list(weights)):
            outputs = self.answer(inputs)
        loss: Tensor = tf.reduce_mean(self._objective(targets, outputs))
        return loss

    def _average(self) -> None:
        share = average_share(self._updates)
        for average, variable in zip(self._averages, self.trainable_variables, strict=True):
            average.assign(average + share * (variable.value - average))
        self._updates.assign_add(1)

    def restart(self) -> None:
        """Let the average begin again from the next weights. Between two compiled calls."""
        self._updates.assign(0)

    def become(self, other: "Member") -> None:
        """Take over everything that *other* has learned, and its stored rows. Traced."""
        for mine, theirs in zip(self.trainable_variables, other.trainable_variables, strict=True):
            mine.assign(theirs.value)
        for mine, theirs in zip(self.optimizer.variables, other.optimizer.variables, strict=True):
            mine.assign(theirs.value)
        for average, value in zip(self._averages, other._averages, strict=True):
            average.assign(value)
        if self.replay is not None and other.replay is not None:
            self.replay.become(other.replay)

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name, without weights and optimizer."""
        named = {f"average/{i}": average for i, average in enumerate(self._averages)}
        named |= {f"guard/{name}": variable for name, variable in self.guard.variables().items()}
        if self.replay is not None:
            named |= {f"replay/{name}": variable for name, variable in self.replay.variables().items()}
        return {**named, "updates": self._updates}
