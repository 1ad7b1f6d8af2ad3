"""One affine map."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, flat, output
from learnd.models.settings import LinearSettings


def linear(settings: LinearSettings, spec: CoreSpec) -> Any:
    """Online linear regression once the inputs are standardised."""
    inputs = keras.Input(spec.row_shape)
    return core(inputs, output(flat(inputs, spec), settings, spec))
