"""What a built-in architecture is asked for, and the pieces that several of them use."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import keras


@dataclass(frozen=True, slots=True)
class CoreSpec:
    """From standardised rows of *row_shape* to *outputs* standardised numbers.

    *unroll* writes loops over time out, for formats that have none. *classify*: the numbers stand for classes, of which
    *known* are there at the start, where there may come more.
    """

    row_shape: tuple[int, ...]
    outputs: int
    seed: int = 0
    unroll: bool = False
    classify: bool = False
    known: int | None = None


def flat(inputs: Any, spec: CoreSpec) -> Any:
    """The inputs as one row of numbers."""
    if len(spec.row_shape) == 1:
        return inputs
    return keras.layers.Reshape((prod(spec.row_shape),), name="flat")(inputs)


def initializer(spec: CoreSpec, index: int) -> Any:
    """Glorot's uniform draw from the seed and *index*, which tells the layers apart."""
    return keras.initializers.GlorotUniform(seed=spec.seed * 1000 + index)


def penalty(settings: Any) -> Any:
    """``l1 * sum(|w|) + l2 * sum(w ** 2)`` for one kernel; None where the settings ask for neither."""
    if not settings.l1 and not settings.l2:
        return None
    return keras.regularizers.L1L2(settings.l1, settings.l2)


def hidden(make: Callable[..., Any], features: Any, settings: Any, spec: CoreSpec, index: int, name: str) -> Any:
    """*features* through one hidden layer: its kernel, then normalised, activated and dropped out as set.

    *make* is called with ``activation``, ``kernel_initializer``, ``kernel_regularizer`` and ``name``. Layers that the
    settings do not ask for are not there, and the others are called the same with or without them: checkpoints go by
    these names.
    """
    layer = make(
        activation=None if settings.normalization else settings.activation,
        kernel_initializer=initializer(spec, index),
        kernel_regularizer=penalty(settings),
        name=name,
    )
    features = normalized(layer(features), settings, name)
    if settings.normalization:
        features = keras.layers.Activation(settings.activation, name=f"{name}_activation")(features)
    return with_dropout(features, settings, spec, index, name)


def normalized(features: Any, settings: Any, name: str) -> Any:
    """*features* of the layer *name* over the batch or over themselves, as the settings say."""
    kinds = {"batch": keras.layers.BatchNormalization, "layer": keras.layers.LayerNormalization}
    if settings.normalization is None:
        return features
    return kinds[settings.normalization](name=f"{name}_normalization")(features)


def with_dropout(features: Any, settings: Any, spec: CoreSpec, index: int, name: str) -> Any:
    """*features* of the layer *name* with the share that the settings name dropped while learning."""
    if not settings.dropout:
        return features
    seed = spec.seed * 1000 + index
    return keras.layers.Dropout(settings.dropout, seed=seed, name=f"{name}_dropout")(features)


def output(features: Any, settings: Any, spec: CoreSpec) -> Any:
    """The last layer. It starts at zero, so that an untrained model predicts the mean (no change, for a forecast)."""
    layer = keras.layers.Dense(
        spec.outputs, kernel_initializer="zeros", kernel_regularizer=penalty(settings), name="output"
    )
    return layer(features)


def core(inputs: Any, outputs: Any) -> keras.Model:
    """The finished core."""
    return keras.Model(inputs, outputs, name="core")
