"""The next readings of a key from its last ones."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from learnd.tasks.network import Network, NetworkSpec, in_spreads, scaler, target_scaler


class ForecastNetwork(Network):
    """Predicts the change from the last reading, given the readings before it relative to it.

    A network that predicts the level itself loses to "the same as the last reading" on any wandering series. This
    is the simplest case of reversible instance normalisation (Kim et al., ICLR 2022). Inputs have shape
    (n, window, features); ``prediction`` has shape (n, horizon * features), the nearest reading first.

    Where inputs, or the target, are not scaled, the core sees, or gives, levels as they are.
    """

    def __init__(self, core: keras.Model, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self._relative_inputs = spec.scale_inputs
        self._relative_target = spec.scale_target
        self._horizon = spec.outputs // spec.row_shape[-1]
        self.inputs_scaler = scaler(spec.row_shape, online=spec.scale_inputs, name="inputs")
        self.change_scaler = target_scaler((spec.outputs,), online=spec.scale_target, name="change")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        return {"prediction": self.unscale(x, self.answer(x, training=False))}

    def core_inputs(self, x: Any) -> Any:
        return self.inputs_scaler(self._seen(x))

    def unscale(self, x: Any, z: Any) -> Any:
        return self._from_level(x) + self.change_scaler.restore(z)

    def scale(self, x: Any, predictions: Any) -> Any:
        return self.change_scaler(predictions - self._from_level(x))

    def least_spreads(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"prediction": self.change_scaler.spread.numpy()}

    def symbolic(self, x: Any, core: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        newest = keras.layers.Cropping1D((self.row_shape[0] - 1, 0))(x)
        z = core(self.inputs_scaler.symbolic(x - newest if self._relative_inputs else x))
        prediction = self.change_scaler.symbolic_restore(z)
        if self._relative_target:
            level = keras.layers.Flatten()(newest)
            levels = keras.layers.Concatenate()([level] * self._horizon) if self._horizon > 1 else level
            prediction = prediction + levels
        return {"prediction": prediction}, {"prediction": "mse"}, {"prediction": in_spreads(self.change_scaler)}

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(self._seen(x))
        self.change_scaler.observe(y - self._from_level(x))

    def _from_level(self, x: Any) -> Any:
        """What a prediction is relative to: the last reading, once for each step ahead."""
        last = x[:, -1, :]
        if not self._relative_target:
            last = tf.zeros_like(last)
        return tf.tile(last, (1, self._horizon)) if self._horizon > 1 else last

    def _seen(self, x: Any) -> Any:
        return x - x[:, -1:, :] if self._relative_inputs else x
