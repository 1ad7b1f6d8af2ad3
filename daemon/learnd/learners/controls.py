"""The changes that a reaction to drift can make to a learner; see `learnd.core.review.Controls`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.tensors import Array, Optimizer, TfVariable, Variable
from learnd.core.types import Float32Array, Float64Array
from learnd.learners.averaged import AveragedModel
from learnd.learners.chunk import CompiledChunk
from learnd.learners.trial import LearnerTrial


class _Update(Protocol):
    """The update of one learner, or of an ensemble."""

    def optimizers(self) -> list[Optimizer]: ...

    def weigh_replay(self, factor: float) -> bool: ...


class LearnerControls:
    """The controls of one learner, or of all members of an ensemble.

    Parameters
    ----------
    variables : all that belong in a checkpoint, by name
    averages : False: the weights are not averaged
    """

    def __init__(
        self,
        network: Network,
        update: _Update,
        averaged: AveragedModel,
        chunk: CompiledChunk,
        variables: Mapping[str, Variable | TfVariable],
        *,
        averages: bool,
    ) -> None:
        self._network = network
        self._update = update
        self._averaged = averaged
        self._chunk = chunk
        self._variables = variables
        self._averages = averages
        self._rates: list[float] | None = None

    def scale_rates(self, factor: float) -> None:
        optimizers = self._update.optimizers()
        if self._rates is None:
            self._rates = [float(optimizer.learning_rate.numpy()) for optimizer in optimizers]
        for optimizer, rate in zip(optimizers, self._rates, strict=True):
            optimizer.learning_rate.assign(rate * factor)

    def slot_reset(self) -> Callable[[], bool]:
        firsts = [first for optimizer in self._update.optimizers() for first in _first_slots(optimizer)]

        def reset() -> bool:
            for variable, value in firsts:
                variable.assign(np.full(tuple(variable.shape), value, variable.dtype))
            return bool(firsts)

        return reset

    def weigh_replay(self, factor: float) -> bool:
        return self._update.weigh_replay(factor)

    def restart_averages(self) -> bool:
        self._averaged.restart()
        return self._averages

    def hasten_scales(self, memory: float) -> bool:
        return self._network.hasten_scales(memory)

    def weights(self) -> tuple[Array, ...]:
        return tuple(tf.convert_to_tensor(v.value).numpy() for v in self._learned())

    def published(self) -> tuple[Array, ...]:
        return self._averaged.weights()[: len(self._learned())]

    def put(self, weights: Sequence[Array]) -> None:
        for variable, value in zip(self._learned(), weights, strict=True):
            variable.assign(value)

    def _learned(self) -> list[Variable]:
        """Return the weights and the batch statistics, which come first in the served state."""
        return [*self._network.averaged_weights(), *self._network.statistics()]

    def losses(self, weights: Sequence[Array], x: Float64Array, y: Float64Array) -> Float32Array:
        others = self._network.served_state()[len(weights) :]
        return self._averaged.losses_with([*weights, *(tf.convert_to_tensor(v.value) for v in others)], x, y)

    def losses_of(self, predictions: Float64Array, x: Float64Array, y: Float64Array) -> Float32Array:
        losses = self._network.losses_of(tf.constant(predictions), tf.constant(x), tf.constant(y))
        array: Float32Array = losses.numpy()
        return array

    def trial(self) -> LearnerTrial:
        scales = {id(v) for v in self._network.variables} - {id(v) for v in self._learned()}
        return LearnerTrial(self._chunk, self._variables, kept=scales)


def _first_slots(optimizer: Optimizer) -> list[tuple[Variable, Array]]:
    """Return the variables of *optimizer* with the number that all their elements have before anything is learned.

    The count of steps is one of them, because it corrects the bias of young slots, unless a schedule follows it.
    """
    rate = optimizer.learning_rate
    without = {id(rate)} if hasattr(rate, "assign") else {id(optimizer.iterations)}
    pairs = [(v, v.numpy().ravel()) for v in optimizer.variables if id(v) not in without]
    return [(v, values[0]) for v, values in pairs if values.size and bool((values == values[0]).all())]
