"""Causal convolutions over the window."""

from functools import partial

import keras

from learnd.core.tensors import KerasModel
from learnd.models.core import CoreSpec, core, hidden, output
from learnd.models.layers import CausalConv, Newest
from learnd.models.settings import Conv1dSettings


def conv1d(settings: Conv1dSettings, spec: CoreSpec) -> KerasModel:
    """Return causal convolutions and an affine map of their newest step and their mean over time, concatenated."""
    inputs = keras.Input(spec.row_shape)
    features = inputs
    for index, filters in enumerate(settings.filters):
        make = partial(CausalConv, filters, settings.kernel_size)
        features = hidden(make, features, settings, spec, index, f"conv_{index}")
    newest = keras.layers.Flatten(name="flat")(Newest(steps=1, name="newest")(features))
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(features)
    return core(inputs, output(keras.layers.Concatenate(name="summary")([newest, mean]), settings, spec))
