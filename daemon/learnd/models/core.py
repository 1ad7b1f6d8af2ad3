"""The specification of a model's core, and the pieces that several built-in architectures share.

The core is the part of a network that maps standardised inputs to standardised outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import keras

from learnd.core.tensors import KerasModel, Layer, Tensor
from learnd.models.settings import HiddenLayerSettings, LinearSettings, RegularizedSettings


@dataclass(frozen=True, slots=True)
class CoreSpec:
    """Requirements on a core.

    Attributes
    ----------
    row_shape : shape of one standardised input row
    outputs : standardised numbers per row
    seed : seed of the initial weights and of dropout
    unroll : unroll loops over time, for export formats that have no loops
    classify : the outputs stand for classes, of which exactly one is true
    independent : the outputs stand for labels, of which any number may be true
    known : classes known at the start, where more may come later; None for a task without classes
    meaning : the configured meaning of a model's outputs: logits or probabilities; ``auto``: as the model says
    scaled : the inputs are standardised
    """

    row_shape: tuple[int, ...]
    outputs: int
    seed: int = 0
    unroll: bool = False
    classify: bool = False
    independent: bool = False
    known: int | None = None
    meaning: str = "auto"
    scaled: bool = False


def flat(inputs: Tensor, spec: CoreSpec) -> Tensor:
    """Return *inputs* as one vector per row, shape (n, product of the row shape)."""
    if len(spec.row_shape) == 1:
        return inputs
    rows: Tensor = keras.layers.Reshape((prod(spec.row_shape),), name="flat")(inputs)
    return rows


def initializer(spec: CoreSpec, index: int) -> Callable[..., Tensor]:
    """Return Glorot's uniform initializer, seeded by the seed of *spec* and by *index*, which differs per layer."""
    draw: Callable[..., Tensor] = keras.initializers.GlorotUniform(seed=spec.seed * 1000 + index)
    return draw


def penalty(settings: LinearSettings | RegularizedSettings) -> Callable[[Tensor], Tensor] | None:
    """Return the penalty ``l1 * sum(|w|) + l2 * sum(w ** 2)`` for one kernel, or None if both factors are zero."""
    if not settings.l1 and not settings.l2:
        return None
    regularizer: Callable[[Tensor], Tensor] = keras.regularizers.L1L2(settings.l1, settings.l2)
    return regularizer


def hidden(
    make: Callable[..., Layer], features: Tensor, settings: HiddenLayerSettings, spec: CoreSpec, index: int, name: str
) -> Tensor:
    """Return *features* after one hidden layer: its kernel, then normalisation, activation and dropout.

    *make* is called with ``activation``, ``kernel_initializer``, ``kernel_regularizer`` and ``name``. A layer that the
    settings do not ask for is not created. The other layers have the same names with and without it, because
    checkpoints identify weights by these names.
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


def normalized(features: Tensor, settings: RegularizedSettings, name: str) -> Tensor:
    """Return *features* of the layer *name* after the normalisation in *settings*, if there is one."""
    kinds = {"batch": keras.layers.BatchNormalization, "layer": keras.layers.LayerNormalization}
    if settings.normalization is None:
        return features
    scaled: Tensor = kinds[settings.normalization](name=f"{name}_normalization")(features)
    return scaled


def with_dropout(features: Tensor, settings: RegularizedSettings, spec: CoreSpec, index: int, name: str) -> Tensor:
    """Return *features* of the layer *name* after the dropout in *settings*, if there is one."""
    if not settings.dropout:
        return features
    layer = keras.layers.Dropout(settings.dropout, seed=spec.seed * 1000 + index, name=f"{name}_dropout")
    remaining: Tensor = layer(features)
    return remaining


def output(features: Tensor, settings: LinearSettings | RegularizedSettings, spec: CoreSpec) -> Tensor:
    """Return the outputs of the last layer, which is dense and without activation.

    Its weights start at zero. An untrained model therefore predicts the mean, and for a forecast no change.
    """
    layer = keras.layers.Dense(
        spec.outputs, kernel_initializer="zeros", kernel_regularizer=penalty(settings), name="output"
    )
    outputs: Tensor = layer(features)
    return outputs


def core(inputs: Tensor, outputs: Tensor) -> KerasModel:
    """Return the functional model from *inputs* to *outputs*."""
    model: KerasModel = keras.Model(inputs, outputs, name="core")
    return model
