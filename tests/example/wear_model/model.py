"""A subclassed model with layers and a loss of its own."""

from typing import Any

import keras

from wear_model.layers import Interactions


def robust(targets: Any, outputs: Any) -> Any:
    """Quadratic near zero, linear far from it; one number per row."""
    errors = keras.ops.abs(targets - outputs)
    return keras.ops.mean(keras.ops.where(errors < 1.0, 0.5 * errors**2, errors - 0.5), axis=-1)


@keras.saving.register_keras_serializable(package="wear_model")
class WearModel(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Learned products of sensor values, then dense layers."""

    def __init__(self, outputs: int, pairs: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.outputs_wanted, self.pairs = outputs, pairs
        self.interactions = Interactions(pairs)
        self.hidden = keras.layers.Dense(8, activation="tanh")
        self.answer = keras.layers.Dense(outputs)

    def call(self, x: Any) -> Any:
        return self.answer(self.hidden(self.interactions(x)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "outputs": self.outputs_wanted, "pairs": self.pairs}


def make(input_shape: tuple[int, ...], outputs: int, pairs: int = 4) -> WearModel:
    """What learnd calls."""
    model = WearModel(outputs, pairs)
    model.build((None, *input_shape))
    model.compile(loss=robust)
    return model
