"""Features from themselves."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from learnd.tasks.network import Network, mean_square
from learnd.tasks.standardizer import OnlineStandardizer


class ReconstructionNetwork(Network):
    """Predicts its own input through a bottleneck; what it cannot reproduce is unusual.

    Serves ``reconstruction``, shape (n, *row_shape), and ``score``, shape (n,): the mean squared error in
    standard deviations, which is the anomaly score.
    """

    def __init__(self, core: keras.Model, row_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(core, row_shape, outputs)
        self.inputs_scaler = OnlineStandardizer(row_shape, name="inputs")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        z = self.inputs_scaler(x)
        again = self._again(z, training=False)
        return {"reconstruction": self.inputs_scaler.restore(again), "score": mean_square(again - z)}

    def judge(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        z = self.inputs_scaler(x)
        again = self._again(z, training=training)
        raw = tf.reshape(self.inputs_scaler.restore(again), (-1, self.outputs_per_row))
        return raw, mean_square(again - z)

    def _again(self, z: Any, *, training: bool) -> Any:
        return tf.reshape(self.core(z, training=training), (-1, *self.row_shape))

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        return mean_square(self.inputs_scaler.errors(tf.reshape(predictions, (-1, *self.row_shape)), x))

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(x)
