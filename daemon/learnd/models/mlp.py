"""Stack of dense layers."""

from functools import partial

import keras

from learnd.core.tensors import KerasModel
from learnd.models.core import CoreSpec, core, flat, hidden, output
from learnd.models.settings import MlpSettings


def mlp(settings: MlpSettings, spec: CoreSpec) -> KerasModel:
    """Return a stack of dense layers of the widths in ``hidden``."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    for index, units in enumerate(settings.hidden):
        features = hidden(partial(keras.layers.Dense, units), features, settings, spec, index, f"dense_{index}")
    return core(inputs, output(features, settings, spec))
