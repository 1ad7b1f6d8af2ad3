"""The task of reconstructing the features."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from learnd.core.protocols import Evaluated
from learnd.core.tensors import KerasModel, NamedTensors, Tensor
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.network import NetworkSpec, Symbolic, TaskNetwork, flat, in_spreads, mean_square
from learnd.tasks.standardizer import InvertibleStandardizer, Observer, OnlineStandardizer


class ReconstructionNetwork(TaskNetwork):
    """The network that reproduces its input through a bottleneck. Unusual inputs have a large error.

    Serves ``reconstruction``, shape (n, *row_shape), and ``score``, shape (n,): the mean squared error in standard
    deviations, which is the anomaly score. The core may give rows, or flattened rows.
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        scaler = InvertibleStandardizer if spec.scale_inputs else Observer
        self.inputs_scaler: OnlineStandardizer = scaler(spec.row_shape, name="inputs")
        self.complete()

    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"reconstruction": tuple(self.row_shape), "score": ()}

    def call(self, x: Tensor) -> NamedTensors:
        z = self.core_inputs(x)
        reconstruction = self._rows(self.answer(x, training=False))
        return {"reconstruction": self.inputs_scaler.restore(reconstruction), "score": mean_square(reconstruction, z)}

    def core_inputs(self, x: Tensor) -> Tensor:
        scaled: Tensor = self.inputs_scaler(x)
        return scaled

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        return self.core_inputs(x)

    def predict_and_loss(self, x: Tensor, y: Tensor, *, training: bool) -> Evaluated:
        return self.evaluate(x, y, self.answer(x, training=training))

    def evaluate(self, x: Tensor, y: Tensor, z: Tensor) -> Evaluated:
        targets, reconstruction = self.core_inputs(x), self._rows(z)
        losses = self._loss_of(targets, reconstruction)
        raw = self.unscale(x, tf.cast(reconstruction, x.dtype))
        return Evaluated(raw, losses, flat(targets - reconstruction), losses)

    def unscale(self, x: Tensor, z: Tensor) -> Tensor:
        raw: Tensor = tf.reshape(self.inputs_scaler.restore(self._rows(z)), (-1, self.outputs_per_row))
        return raw

    def scale(self, x: Tensor, predictions: Tensor) -> Tensor:
        scaled: Tensor = self.inputs_scaler(self._rows(predictions))
        return scaled

    def _rows(self, z: Tensor) -> Tensor:
        rows: Tensor = tf.reshape(z, (-1, *self.row_shape))
        return rows

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        """Return, for the score, its own mean: anomalies must stand out, and small differences do not matter."""
        return {"reconstruction": self.inputs_scaler.spread.numpy(), "score": float(answers["score"].mean())}

    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        z = self.inputs_scaler.symbolic(x)
        reconstruction = keras.layers.Reshape(self.row_shape)(core(z))
        errors = keras.layers.Flatten()(keras.ops.square(reconstruction - z))
        outputs = {
            "reconstruction": self.inputs_scaler.symbolic_restore(reconstruction),
            "score": keras.ops.mean(errors, axis=1),
        }
        # The score has neither loss nor weight: for a loss of None Keras still requires a weight, and `fit` would fail.
        return outputs, {"reconstruction": "mse"}, {"reconstruction": in_spreads(self.inputs_scaler)}

    def observe(self, x: Tensor, y: Tensor) -> None:
        self.inputs_scaler.observe(x)
