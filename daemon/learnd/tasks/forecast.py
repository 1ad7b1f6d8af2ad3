"""The next reading of a key from its last ones."""

from collections.abc import Mapping
from typing import Any

import keras

from learnd.tasks.network import Network, mean_square
from learnd.tasks.standardizer import OnlineStandardizer


class ForecastNetwork(Network):
    """Predicts the change from the last reading, given the readings before it relative to it.

    A network that predicts the level itself loses to "the same as the last reading" on any wandering series. This
    is the simplest case of reversible instance normalisation (Kim et al., ICLR 2022). Inputs have shape
    (n, window, features), and ``prediction`` has shape (n, features).
    """

    def __init__(self, core: keras.Model, row_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__(core, row_shape, outputs)
        self.inputs_scaler = OnlineStandardizer(row_shape, name="inputs")
        self.change_scaler = OnlineStandardizer((outputs,), name="change")
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        return {"prediction": self._last(x) + self.change_scaler.restore(self._core(x, training=False))}

    def judge(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        z = self._core(x, training=training)
        losses = mean_square(z - self.change_scaler(y - self._last(x)))
        return self._last(x) + self.change_scaler.restore(z), losses

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        return mean_square(self.change_scaler.errors(predictions, y))

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(self._relative(x))
        self.change_scaler.observe(y - self._last(x))

    def _core(self, x: Any, *, training: bool) -> Any:
        return self.core(self.inputs_scaler(self._relative(x)), training=training)

    def _last(self, x: Any) -> Any:
        return x[:, -1, :]

    def _relative(self, x: Any) -> Any:
        return x - x[:, -1:, :]
