"""Autoencoder of dense layers with a bottleneck."""

from functools import partial

import keras

from learnd.core.tensors import KerasModel
from learnd.models.core import CoreSpec, core, flat, hidden, output
from learnd.models.settings import AutoencoderSettings


def autoencoder(settings: AutoencoderSettings, spec: CoreSpec) -> KerasModel:
    """Return dense layers of the widths in ``hidden``, down to the last one (the code), and back up mirrored."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    widths = [*settings.hidden, *reversed(settings.hidden[:-1])]
    for index, units in enumerate(widths):
        name = "code" if index == len(settings.hidden) - 1 else f"dense_{index}"
        features = hidden(partial(keras.layers.Dense, units), features, settings, spec, index, name)
    return core(inputs, output(features, settings, spec))
