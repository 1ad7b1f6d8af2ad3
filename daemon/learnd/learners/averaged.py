"""The averaged model beside the live one: its weights, and what it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from learnd.types import Float32Array


class AveragedModel:
    """Reads averaged weights without disturbing the learner, and predicts with any such copy."""

    def __init__(self, network: Any, averager: Any) -> None:
        self._network = network
        self._averager = averager
        self._variables = network.averaged_weights()
        x_spec = tf.TensorSpec((None, *network.row_shape), tf.float32)
        weight_specs = [tf.TensorSpec(v.shape, tf.float32) for v in self._variables]
        self._answer = tf.function(self._with_weights, autograph=False, input_signature=[x_spec, weight_specs])

    def weights(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The averaged weights now, in the network's order; the live ones before the first snapshot.

        TensorFlow gives a changed variable a new buffer while the old one is referenced, so nothing is copied here
        and what is returned never changes (a test holds TensorFlow to that).
        """
        averages = self._averager.averages()
        if averages is None or not bool(self._averager.ready()):
            averages = [tf.convert_to_tensor(v.value) for v in self._variables]
        return tuple(tensor.numpy() for tensor in averages)

    def predict(self, x: Float32Array, weights: Sequence[Any]) -> Mapping[str, Float32Array]:
        """What the network with *weights* serves for raw inputs x, shape (n, *row_shape). Any thread may call it."""
        answers = self._answer(x, [tf.constant(w) for w in weights])
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def _with_weights(self, x: Any, weights: Sequence[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
            return dict(self._network.call(x))
