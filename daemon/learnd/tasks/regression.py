"""Targets from features."""

from collections.abc import Mapping
from typing import Any

import keras

from learnd.tasks.network import Network, mean_square
from learnd.tasks.standardizer import OnlineStandardizer


class RegressionNetwork(Network):
    """Predicts the targets, standardised online as the inputs are, in their own units.

    Serves ``prediction``, shape (n, targets).
    """

    def __init__(self, core: keras.Model, row_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(core, row_shape, outputs)
        self.inputs_scaler = OnlineStandardizer(row_shape, name="inputs")
        self.target_scaler = OnlineStandardizer((outputs,), name="target")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        return {"prediction": self.target_scaler.restore(self.core(self.inputs_scaler(x)))}

    def judge(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        z = self.core(self.inputs_scaler(x), training=training)
        return self.target_scaler.restore(z), mean_square(z - self.target_scaler(y))

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        return mean_square(self.target_scaler.errors(predictions, y))

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(x)
        self.target_scaler.observe(y)
