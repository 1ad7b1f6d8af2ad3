"""The task of predicting the next readings of a key from its last ones."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from learnd.core.tensors import KerasModel, NamedTensors, Tensor
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.network import NetworkSpec, Symbolic, TaskNetwork, in_spreads, scaler, target_scaler, within_reach


class ForecastNetwork(TaskNetwork):
    """The network that predicts the change from the last reading. Its inputs are relative to that reading.

    On a wandering series, a network that predicts the level itself is worse than repeating the last reading. This is
    the simplest case of reversible instance normalisation (Kim et al., ICLR 2022). Inputs have shape
    (n, window, features); ``prediction`` has shape (n, horizon * features), the nearest reading first.

    If the inputs are not scaled, the core's inputs are levels. If the target is not scaled, its outputs are levels.
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self._relative_inputs = spec.scale_inputs
        self._relative_target = spec.scale_target
        self._horizon = spec.outputs // spec.reading_shape[-1]
        self.inputs_scaler = scaler(spec.reading_shape, online=spec.scale_inputs, name="inputs")
        self.change_scaler = target_scaler((spec.outputs,), online=spec.scale_target, name="change")
        self.complete()

    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"prediction": (self.outputs_per_row,)}

    def call(self, x: Tensor) -> NamedTensors:
        return {"prediction": self.unscale(x, self.answer(x, training=False))}

    def core_inputs(self, x: Tensor) -> Tensor:
        return self.with_seasons(self.inputs_scaler(self._relative(x)), x)

    def unscale(self, x: Tensor, z: Tensor) -> Tensor:
        return self._level(x) + self.change_scaler.restore(z)

    def scale(self, x: Tensor, predictions: Tensor) -> Tensor:
        scaled: Tensor = self.change_scaler(predictions - self._level(x))
        return scaled

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        return self._loss_of(within_reach(self.change_scaler, targets), z)

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        return {"prediction": self.change_scaler.spread.numpy()}

    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        readings = self.readings(x)
        newest = keras.layers.Cropping1D((self.row_shape[0] - 1, 0))(readings)
        scaled = self.inputs_scaler.symbolic(readings - newest if self._relative_inputs else readings)
        z = core(self.with_symbolic_seasons(scaled, x))
        prediction = self.change_scaler.symbolic_restore(z)
        if self._relative_target:
            level = keras.layers.Flatten()(newest)
            levels = keras.layers.Concatenate()([level] * self._horizon) if self._horizon > 1 else level
            prediction = prediction + levels
        return {"prediction": prediction}, {"prediction": "mse"}, {"prediction": in_spreads(self.change_scaler)}

    def observe(self, x: Tensor, y: Tensor) -> None:
        self.inputs_scaler.observe(self._relative(x))
        self.change_scaler.observe(y - self._level(x))

    def _level(self, x: Tensor) -> Tensor:
        """Return the reference of a prediction: the last reading, repeated for each step ahead."""
        last = self.readings(x)[:, -1, :]
        if not self._relative_target:
            last = tf.zeros_like(last)
        level: Tensor = tf.tile(last, (1, self._horizon)) if self._horizon > 1 else last
        return level

    def _relative(self, x: Tensor) -> Tensor:
        readings = self.readings(x)
        return readings - readings[:, -1:, :] if self._relative_inputs else readings
