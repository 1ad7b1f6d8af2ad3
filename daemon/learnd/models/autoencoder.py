"""Autoencoder of dense layers with a bottleneck."""

from functools import partial
from math import prod

import keras

from learnd.core.tensors import KerasModel
from learnd.models.core import CoreSpec, core, flat, hidden, output
from learnd.models.settings import AutoencoderSettings

_FIRST_WIDTH, _WIDEST_CODE = 16, 4


def autoencoder(settings: AutoencoderSettings, spec: CoreSpec) -> KerasModel:
    """Return dense layers of the widths in ``hidden``, down to the last one (the code), and back up mirrored."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    encoder = default_encoder(prod(spec.row_shape)) if settings.hidden is None else settings.hidden
    widths = [*encoder, *reversed(encoder[:-1])]
    for index, units in enumerate(widths):
        name = "code" if index == len(encoder) - 1 else f"dense_{index}"
        features = hidden(partial(keras.layers.Dense, units), features, settings, spec, index, name)
    return core(inputs, output(features, settings, spec))


def default_encoder(inputs: int) -> list[int]:
    """Return the widths of the encoder's layers for rows of *inputs* numbers: the last is narrower than the input.

    >>> default_encoder(2), default_encoder(5), default_encoder(100)
    ([16, 1], [16, 2], [16, 4])
    """
    return [_FIRST_WIDTH, max(1, min(_WIDEST_CODE, inputs // 2))]
