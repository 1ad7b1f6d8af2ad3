"""Refusal of updates that would break the model, and rollback after too many refusals in a row. All of it is traced."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Protocol

import tensorflow as tf

from learnd.core.tensors import Tensor, TfVariable, Variable

_LARGEST_SQUARE = 1e30
"""A gradient beyond 1e15 would make an optimizer's second moments infinite, and the layer would never learn again."""


class Learning(Protocol):
    """The weights that a guard protects."""

    @property
    def trainable_variables(self) -> Sequence[Variable]: ...

    def statistics(self) -> Sequence[Variable]:
        """Return the batch statistics that a forward pass changes."""
        ...


class Averages(Protocol):
    """The averages to which a guard rolls back; `learnd.learners.averaged.AveragedModel` is one."""

    def pairs(self) -> list[tuple[Variable, Tensor]]: ...

    def ready(self) -> Tensor: ...


class Guard:
    """The check of each update. A bad update leaves weights and batch statistics unchanged.

    An update is good if every gradient and every new weight is finite, and the root mean square of the weights' steps
    is at most *max_step*. The optimizer sees a refused update as one with zero gradients, so its momenta fade. After
    *max_refused* refusals in a row the weights are set to their average, which no refused update has ever touched.

    Parameters
    ----------
    max_step : None: any finite step is good
    max_refused : None: never roll back
    """

    def __init__(
        self,
        network: Learning,
        averaged: Averages,
        *,
        max_step: float | None,
        max_refused: int | None,
    ) -> None:
        self._network = network
        self._averaged = averaged
        self._max_step = max_step
        self._max_refused = max_refused
        self.refused = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Number of refused updates since the model began."""
        self.rollbacks = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Number of rollbacks since the model began."""
        self._in_a_row = tf.Variable(0, dtype=tf.int64, trainable=False)

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables by name, for the checkpoint."""
        return {"refused": self.refused, "rollbacks": self.rollbacks, "in_a_row": self._in_a_row}

    def statistics(self) -> list[Tensor]:
        """Return the current batch statistics, which a forward pass changes."""
        return [tf.convert_to_tensor(v.value) for v in self._network.statistics()]

    def step(
        self,
        gradients: Sequence[Tensor | None],
        take: Callable[[Sequence[Tensor | None]], object],
        statistics: Sequence[Tensor],
    ) -> None:
        """Take one step along the *gradients* by calling *take*; undo a bad step, or roll back.

        *statistics* are the batch statistics from before the forward pass. Only the old weights are copied: a copy of
        the optimizer's state, or a conditional before the step, made an update of 70 000 weights twice as slow.
        """
        weights = self._network.trainable_variables
        before = [tf.convert_to_tensor(v.value) for v in weights]
        sound = self._are_sound(gradients)
        take([None if g is None else tf.where(sound, g, tf.zeros_like(g)) for g in gradients])
        good = sound & self._is_small(weights, before)
        in_a_row = tf.where(good, tf.zeros_like(self._in_a_row), self._in_a_row + 1)
        back = in_a_row >= (self._max_refused or tf.int64.max)
        averages = {id(variable): average for variable, average in self._averaged.pairs()}
        to_average = back & self._averaged.ready()
        for variable, old in zip(weights, before, strict=True):
            instead = tf.where(to_average, averages[id(variable)], old) if id(variable) in averages else old
            variable.assign(tf.where(good, variable.value, instead))
        for variable, old in zip(self._network.statistics(), statistics, strict=True):
            variable.assign(tf.where(good, variable.value, old))
        self.refused.assign_add(tf.cast(~good, tf.int64))
        self.rollbacks.assign_add(tf.cast(back, tf.int64))
        self._in_a_row.assign(tf.where(back, tf.zeros_like(in_a_row), in_a_row))

    def _are_sound(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """Return a boolean tensor: True if all gradients are finite and small enough for an optimizer."""
        existing = [gradient for gradient in gradients if gradient is not None]
        if not existing:
            return tf.constant(True)  # type: ignore[no-any-return]  # TensorFlow has no types
        # A comparison with nan is false, so the comparison also detects numbers that are not finite.
        square: Tensor = tf.add_n([tf.reduce_sum(tf.square(gradient)) for gradient in existing])
        return square <= _LARGEST_SQUARE

    def _is_small(self, weights: Sequence[Variable], before: Sequence[Tensor]) -> Tensor:
        """Return a boolean tensor: True if the root mean square of the steps is at most *max_step*."""
        steps: Tensor = tf.add_n(
            [tf.reduce_sum(tf.square(v.value - old)) for v, old in zip(weights, before, strict=True)]
        )
        count = sum(prod(v.shape) for v in weights)
        return steps <= (_LARGEST_SQUARE if self._max_step is None else self._max_step**2 * count)
