"""One affine map."""

import keras

from learnd.core.tensors import KerasModel
from learnd.models.core import CoreSpec, core, flat, output
from learnd.models.settings import LinearSettings


def linear(settings: LinearSettings, spec: CoreSpec) -> KerasModel:
    """Return one affine map: online linear regression, because the inputs are standardised."""
    inputs = keras.Input(spec.row_shape)
    return core(inputs, output(flat(inputs, spec), settings, spec))
