"""A layer that Keras does not have."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="wear_model")
class Interactions(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The inputs and a learned choice of their products, shape (n, features + pairs)."""

    def __init__(self, pairs: int, **options: Any) -> None:
        super().__init__(**options)
        self.pairs = pairs

    def build(self, input_shape: Any) -> None:
        shape = (input_shape[-1], self.pairs)
        self.left = self.add_weight(name="left", shape=shape, initializer="glorot_uniform")
        self.right = self.add_weight(name="right", shape=shape, initializer="glorot_uniform")

    def call(self, x: Any) -> Any:
        products = keras.ops.matmul(x, self.left) * keras.ops.matmul(x, self.right)
        return keras.ops.concatenate([x, products], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "pairs": self.pairs}
