"""Convolutions over the window."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, output
from learnd.models.settings import Conv1dSettings


def conv1d(settings: Conv1dSettings, spec: CoreSpec) -> Any:
    """Causal convolutions; then the newest step and the mean over time, side by side, and an affine map."""
    inputs = keras.Input(spec.row_shape)
    features = inputs
    for index, filters in enumerate(settings.filters):
        features = keras.layers.Conv1D(
            filters,
            settings.kernel_size,
            padding="causal",
            activation=settings.activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=spec.seed * 1000 + index),
            name=f"conv_{index}",
        )(features)
    newest = features[:, -1, :]
    mean = keras.layers.GlobalAveragePooling1D(name="mean")(features)
    return core(inputs, output(keras.layers.Concatenate(name="summary")([newest, mean]), spec))
