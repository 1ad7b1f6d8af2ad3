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
        self._built_steps = input_shape[1]
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
        taps = [spaced(padded, start, steps, self.strides) for start in range(oldest, oldest + self.kernel_size)]
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

    def plain(self) -> Any:
        """The same of Keras' own layers, from the same weights."""
        conv = keras.layers.Conv1D(
            self.filters, self.kernel_size, strides=self.strides, activation=self.activation, name=self.name
        )
        # Its steps are counted from the oldest one, so as many are left out as make the newest the last.
        oldest = (self._built_steps - 1) % self.strides
        before = [keras.layers.ZeroPadding1D((self.kernel_size - 1, 0)), keras.layers.Cropping1D((oldest, 0))]
        return keras.Sequential([*before, conv], name=self.name)

    def _steps(self, steps: int) -> int:
        return -(-steps // self.strides)


@keras.saving.register_keras_serializable(package="learnd")
class Newest(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """The newest of every so many steps, counted back from the newest of all; (n, steps, channels) to fewer steps.

    With ``unroll`` the steps are taken one by one: otherwise TensorFlow Lite's converter to int8 leaves what comes
    after in float32, and says nothing.
    """

    def __init__(self, every: int = 1, *, steps: int | None = None, unroll: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.every = every
        self.steps = steps
        self.unroll = unroll

    def call(self, inputs: Any) -> Any:
        count = self._count(inputs.shape[1])
        first = inputs.shape[1] - 1 - (count - 1) * self.every
        if self.unroll and self.every > 1:
            return tf.concat([spaced(inputs, first + i * self.every, 1, 1) for i in range(count)], axis=1)
        return spaced(inputs, first, count, self.every)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int, int]:
        return (input_shape[0], self._count(input_shape[1]), input_shape[2])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "every": self.every, "steps": self.steps, "unroll": self.unroll}

    def build(self, input_shape: Any) -> None:
        self._built_steps = input_shape[1]

    def plain(self) -> Any:
        """The same of Keras' own layers."""
        first = self._built_steps - 1 - (self._count(self._built_steps) - 1) * self.every
        parts = [keras.layers.Cropping1D((first, 0)), keras.layers.MaxPooling1D(1, self.every)]
        return keras.Sequential(parts, name=self.name)

    def _count(self, steps: int) -> int:
        every = -(-steps // self.every)
        return every if self.steps is None else min(self.steps, every)


def spaced(x: Any, start: int, count: int, every: int) -> Any:
    """``x[:, start : start + (count - 1) * every + 1 : every]``, with a gradient that TensorFlow Lite can compute.

    >>> spaced(tf.reshape(tf.range(7.0), (1, 7, 1)), 2, 3, 2).numpy().ravel().tolist()
    [2.0, 4.0, 6.0]
    """
    if every == 1:
        return tf.slice(x, (0, start, 0), (-1, count, -1))
    span = count * every
    first = start - (every - 1)
    if first < 0:
        x, first = tf.pad(x, [[0, 0], [-first, 0], [0, 0]]), 0
    groups = tf.reshape(tf.slice(x, (0, first, 0), (-1, span, -1)), (-1, count, every, x.shape[2]))
    return tf.reshape(tf.slice(groups, (0, 0, every - 1, 0), (-1, -1, 1, -1)), (-1, count, x.shape[2]))
