"""The model that learns and is served: raw values in, raw values out, a standardised core between them."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf


class Network(keras.Model):  # type: ignore[misc]  # Keras has no types
    """What every task's network offers to the learner, the exporters and the checkpoint.

    Attributes
    ----------
    row_shape : shape of one raw input, without the batch dimension
    outputs_per_row : numbers in one prediction
    """

    def __init__(self, core: keras.Model, row_shape: tuple[int, ...], outputs_per_row: int) -> None:
        super().__init__(name="network")
        self.core = core
        self.row_shape = row_shape
        self.outputs_per_row = outputs_per_row

    def complete(self) -> None:
        """Make every variable. Call once, at the end of the constructor."""
        self(tf.zeros((1, *self.row_shape)))

    def call(self, x: Any) -> Mapping[str, Any]:
        """The served outputs by name, for raw inputs of shape (n, *row_shape)."""
        raise NotImplementedError

    def judge(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        """Raw predictions, shape (n, outputs), and losses, shape (n,): mean squares in standard deviations."""
        raise NotImplementedError

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        """The losses of raw *predictions* that other weights made, on the scale that `judge` uses."""
        raise NotImplementedError

    def observe(self, x: Any, y: Any) -> None:
        """Take raw inputs and targets into the online statistics."""
        raise NotImplementedError

    def averaged_weights(self) -> list[Any]:
        """The variables that a served model needs, in a fixed order; all float32.

        The scales are averaged together with the weights that were learned under them.
        """
        return [v for v in self.weights if v.dtype == "float32"]


def mean_square(errors: Any) -> Any:
    """Mean of the squares over all axes but the first, shape (n,)."""
    return tf.reduce_mean(tf.reshape(tf.square(errors), (tf.shape(errors)[0], -1)), axis=1)
