"""The task of predicting numbers."""

from collections.abc import Mapping

from learnd.core.tensors import KerasModel, NamedTensors, Tensor
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.network import NetworkSpec, Symbolic, TaskNetwork, in_spreads, scaler, target_scaler, within_reach


class RegressionNetwork(TaskNetwork):
    """The network for numeric targets, which are standardised online, as the inputs are.

    Serves ``prediction``, shape (n, targets), in the units of the targets.
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self.inputs_scaler = scaler(
            spec.reading_shape, online=spec.scale_inputs, name="inputs", indicators=spec.indicators
        )
        self.target_scaler = target_scaler((spec.outputs,), online=spec.scale_target, name="target")
        self.complete()

    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"prediction": (self.outputs_per_row,)}

    def call(self, x: Tensor) -> NamedTensors:
        return {"prediction": self.unscale(x, self.answer(x, training=False))}

    def core_inputs(self, x: Tensor) -> Tensor:
        return self.with_seasons(self.inputs_scaler(self.readings(x)), x)

    def unscale(self, x: Tensor, z: Tensor) -> Tensor:
        return self.target_scaler.restore(z)

    def scale(self, x: Tensor, predictions: Tensor) -> Tensor:
        scaled: Tensor = self.target_scaler(predictions)
        return scaled

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        return self._loss_of(within_reach(self.target_scaler, targets), z)

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        return {"prediction": self.target_scaler.spread.numpy()}

    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        inputs = self.with_symbolic_seasons(self.inputs_scaler.symbolic(self.readings(x)), x)
        prediction = self.target_scaler.symbolic_restore(core(inputs))
        return {"prediction": prediction}, {"prediction": "mse"}, {"prediction": in_spreads(self.target_scaler)}

    def observe(self, x: Tensor, y: Tensor) -> None:
        self.inputs_scaler.observe(self.readings(x))
        self.target_scaler.observe(y)
