"""Dense layers."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, dense, flat, output
from learnd.models.settings import MlpSettings


def mlp(settings: MlpSettings, spec: CoreSpec) -> Any:
    """A stack of dense layers of the widths in ``hidden``."""
    inputs = keras.Input(spec.row_shape)
    features = flat(inputs, spec)
    for index, units in enumerate(settings.hidden):
        features = dense(units, spec, index, activation=settings.activation)(features)
    return core(inputs, output(features, spec))
