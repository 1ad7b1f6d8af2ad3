"""The task of predicting several labels, of which any number may be true at once."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from learnd.core.protocols import Evaluated
from learnd.core.tensors import KerasModel, NamedTensors, Tensor
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.network import NetworkSpec, Symbolic, TaskNetwork, scaler

_SMALLEST = 1e-7
"""Smallest distance of a probability from 0 and 1 in a loss, as in Keras."""
_RARE = 0.1
"""The standard deviation of an event of probability 1 %."""


class MultilabelNetwork(TaskNetwork):
    """The network for independent labels. Targets are 0 or 1, or probabilities between them, shape (n, labels).

    Serves ``probabilities``, shape (n, labels), one of each label, which do not sum to one. The core gives one number
    per label, as logits or as probabilities. The loss is the mean of the labels' binary cross-entropies.
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self._probabilities = spec.probabilities
        self._custom_loss = spec.loss
        self.inputs_scaler = scaler(
            spec.reading_shape, online=spec.scale_inputs, name="inputs", indicators=spec.indicators
        )
        self.complete()

    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"probabilities": (self.outputs_per_row,)}

    def call(self, x: Tensor) -> NamedTensors:
        return {"probabilities": self._of_labels(self.answer(x, training=False))}

    def core_inputs(self, x: Tensor) -> Tensor:
        return self.with_seasons(self.inputs_scaler(self.readings(x)), x)

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        return tf.cast(y, tf.float32)  # type: ignore[no-any-return]  # TensorFlow has no types

    def evaluate(self, x: Tensor, y: Tensor, z: Tensor) -> Evaluated:
        targets = self.core_targets(x, y)
        predictions, losses = self._of_labels(z), self.objective(targets, z)
        return Evaluated(predictions, losses, targets - predictions, losses)

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        if self._custom_loss is not None:
            return self._custom_loss(targets, self._of_labels(z))
        if self._probabilities:
            return _entropies(targets, z)
        # From logits, because the logarithm of a rounded probability of one is zero.
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=z)
        mean: Tensor = tf.reduce_mean(losses, axis=1)
        return mean

    def losses_of(self, predictions: Tensor, x: Tensor, y: Tensor) -> Tensor:
        targets = self.core_targets(x, y)
        return (
            self._custom_loss(targets, predictions)
            if self._custom_loss is not None
            else _entropies(targets, predictions)
        )

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        return {"probabilities": _RARE}

    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        z = core(self.with_symbolic_seasons(self.inputs_scaler.symbolic(self.readings(x)), x))
        labels = z if self._probabilities else keras.ops.sigmoid(z)
        return {"probabilities": labels}, {"probabilities": "binary_crossentropy"}, {"probabilities": 1.0}

    def observe(self, x: Tensor, y: Tensor) -> None:
        self.inputs_scaler.observe(self.readings(x))

    def _of_labels(self, z: Tensor) -> Tensor:
        return z if self._probabilities else tf.sigmoid(z)


def _entropies(targets: Tensor, probabilities: Tensor) -> Tensor:
    """Return the mean of the labels' binary cross-entropies, shape (n,)."""
    p = tf.clip_by_value(probabilities, _SMALLEST, 1.0 - _SMALLEST)
    losses: Tensor = -tf.reduce_mean(targets * tf.math.log(p) + (1.0 - targets) * tf.math.log(1.0 - p), axis=1)
    return losses
