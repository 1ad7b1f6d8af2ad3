"""A bottleneck of dense layers."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, dense, flat, output
from learnd.models.settings import AutoencoderSettings


def autoencoder(settings: AutoencoderSettings, spec: CoreSpec) -> Any:
    """Down through ``hidden`` to its last width, the code, and up through the same widths again."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    widths = [*settings.hidden, *reversed(settings.hidden[:-1])]
    for index, units in enumerate(widths):
        name = "code" if index == len(settings.hidden) - 1 else ""
        features = dense(units, spec, index, activation=settings.activation, name=name)(features)
    return core(inputs, output(features, spec))
