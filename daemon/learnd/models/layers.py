"""Layers of the built-in models: what Keras answers, in a form that XLA runs faster."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="learnd")
class CausalConv(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Answers as `keras.layers.Conv1D` with ``padding="causal"`` does, from weights of the same names and shapes.

    With ``strides`` above one it keeps every so-manieth step counted back from the newest, which is always among them
    (Keras counts from the oldest). Shapes: (n, steps, channels) to (n, ceil(steps / strides), filters).
    """

    # The taps side by side and one matrix product, because XLA's convolution is slow to differentiate. Microseconds a
    # sample with Adam, one by one and in micro-batches of 32: a TCN of four blocks over 32 steps 83 and 82 as Conv1D,
    # 74 and 19 so (162 and 321 with dilation, which the strides replace); conv1d 12.1 and 14.0, and 11.3 and 4.3 so.

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        *,
        strides: int = 1,
        activation: Any = None,
        kernel_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Any) -> None:
        self.kernel = self.add_weight(
            shape=(self.kernel_size, input_shape[-1], self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            name="kernel",
        )
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        steps = self._steps(inputs.shape[1])
        oldest = (inputs.shape[1] - 1) % self.strides
        padded = tf.pad(inputs, [[0, 0], [self.kernel_size - 1, 0], [0, 0]])
        span = (steps - 1) * self.strides + 1
        taps = [padded[:, start : start + span : self.strides] for start in range(oldest, oldest + self.kernel_size)]
        rows = tf.reshape(tf.concat(taps, axis=-1), (-1, self.kernel_size * inputs.shape[2]))
        kernel = tf.reshape(self.kernel.value, (-1, self.filters))
        outputs = tf.reshape(tf.matmul(rows, kernel) + self.bias.value, (-1, steps, self.filters))
        return self.activation(outputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int, int]:
        return (input_shape[0], self._steps(input_shape[1]), self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "activation": keras.activations.serialize(self.activation),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }

    def _steps(self, steps: int) -> int:
        return -(-steps // self.strides)
