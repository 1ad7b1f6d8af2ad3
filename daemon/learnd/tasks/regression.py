"""Targets from features."""

from collections.abc import Mapping
from typing import Any

import keras

from learnd.tasks.network import Network, NetworkSpec, in_spreads, scaler, target_scaler


class RegressionNetwork(Network):
    """Predicts the targets, standardised online as the inputs are, in their own units.

    Serves ``prediction``, shape (n, targets).
    """

    def __init__(self, core: keras.Model, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self.inputs_scaler = scaler(spec.row_shape, online=spec.scale_inputs, name="inputs")
        self.target_scaler = target_scaler((spec.outputs,), online=spec.scale_target, name="target")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        return {"prediction": self.unscale(x, self.answer(x, training=False))}

    def core_inputs(self, x: Any) -> Any:
        return self.inputs_scaler(x)

    def unscale(self, x: Any, z: Any) -> Any:
        return self.target_scaler.restore(z)

    def scale(self, x: Any, predictions: Any) -> Any:
        return self.target_scaler(predictions)

    def least_spreads(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"prediction": self.target_scaler.spread.numpy()}

    def symbolic(self, x: Any, core: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        prediction = self.target_scaler.symbolic_restore(core(self.inputs_scaler.symbolic(x)))
        return {"prediction": prediction}, {"prediction": "mse"}, {"prediction": in_spreads(self.target_scaler)}

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(x)
        self.target_scaler.observe(y)
