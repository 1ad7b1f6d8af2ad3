"""Features from themselves."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from learnd.tasks.network import Network, NetworkSpec, in_spreads, mean_square, target_scaler


class ReconstructionNetwork(Network):
    """Predicts its own input through a bottleneck; what it cannot reproduce is unusual.

    Serves ``reconstruction``, shape (n, *row_shape), and ``score``, shape (n,): the mean squared error in
    standard deviations, which is the anomaly score. The core may give rows, or rows laid flat.
    """

    def __init__(self, core: keras.Model, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self.inputs_scaler = target_scaler(spec.row_shape, online=spec.scale_inputs, name="inputs")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        z = self.inputs_scaler(x)
        again = self._rows(self.answer(x, training=False))
        return {"reconstruction": self.inputs_scaler.restore(again), "score": mean_square(again, z)}

    def core_inputs(self, x: Any) -> Any:
        return self.inputs_scaler(x)

    def core_targets(self, x: Any, y: Any) -> Any:
        return self.core_inputs(x)

    def predict_and_loss(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        z = self.core_inputs(x)
        again = self._rows(self.answer(x, training=training))
        return self.unscale(x, again), self._loss_of(z, again)

    def unscale(self, x: Any, z: Any) -> Any:
        return tf.reshape(self.inputs_scaler.restore(self._rows(z)), (-1, self.outputs_per_row))

    def scale(self, x: Any, predictions: Any) -> Any:
        return self.inputs_scaler(self._rows(predictions))

    def _rows(self, z: Any) -> Any:
        return tf.reshape(z, (-1, *self.row_shape))

    def least_spreads(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        """A score's is its own size: that an anomaly stands out matters, not how equal all others are."""
        return {"reconstruction": self.inputs_scaler.spread.numpy(), "score": answers["score"].mean()}

    def symbolic(self, x: Any, core: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        z = self.inputs_scaler.symbolic(x)
        again = keras.layers.Reshape(self.row_shape)(core(z))
        errors = keras.layers.Flatten()(keras.ops.square(again - z))
        outputs = {
            "reconstruction": self.inputs_scaler.symbolic_restore(again),
            "score": keras.ops.mean(errors, axis=1),
        }
        # The score is named in neither: Keras wants a weight where there is None for a loss, and `fit` would fail.
        return outputs, {"reconstruction": "mse"}, {"reconstruction": in_spreads(self.inputs_scaler)}

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(x)
