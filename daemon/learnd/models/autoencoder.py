"""A bottleneck of dense layers."""

from functools import partial
from typing import Any

import keras

from learnd.models.core import CoreSpec, core, flat, hidden, output
from learnd.models.settings import AutoencoderSettings


def autoencoder(settings: AutoencoderSettings, spec: CoreSpec) -> Any:
    """Down through ``hidden`` to its last width, the code, and up through the same widths again."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    widths = [*settings.hidden, *reversed(settings.hidden[:-1])]
    for index, units in enumerate(widths):
        name = "code" if index == len(settings.hidden) - 1 else f"dense_{index}"
        features = hidden(partial(keras.layers.Dense, units), features, settings, spec, index, name)
    return core(inputs, output(features, settings, spec))
