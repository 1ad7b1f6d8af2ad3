"""What a built-in architecture is asked for, and the pieces that several of them use."""

from dataclasses import dataclass
from math import prod
from typing import Any

import keras


@dataclass(frozen=True, slots=True)
class CoreSpec:
    """From standardised rows of *row_shape* to *outputs* standardised numbers.

    *unroll* writes loops over time out, for formats that have none.
    """

    row_shape: tuple[int, ...]
    outputs: int
    seed: int = 0
    unroll: bool = False


def flat(inputs: Any, spec: CoreSpec) -> Any:
    """The inputs as one row of numbers."""
    if len(spec.row_shape) == 1:
        return inputs
    return keras.layers.Reshape((prod(spec.row_shape),), name="flat")(inputs)


def dense(units: int, spec: CoreSpec, index: int, *, activation: str | None = None, name: str = "") -> Any:
    """A dense layer with weights drawn from the seed and *index*, which tells the layers apart."""
    return keras.layers.Dense(
        units,
        activation=activation,
        kernel_initializer=keras.initializers.GlorotUniform(seed=spec.seed * 1000 + index),
        name=name or f"dense_{index}",
    )


def output(features: Any, spec: CoreSpec) -> Any:
    """The last layer. It starts at zero, so that an untrained model predicts the mean (no change, for a forecast)."""
    layer = keras.layers.Dense(spec.outputs, kernel_initializer="zeros", name="output")
    return layer(features)


def core(inputs: Any, outputs: Any) -> keras.Model:
    """The finished core."""
    return keras.Model(inputs, outputs, name="core")
