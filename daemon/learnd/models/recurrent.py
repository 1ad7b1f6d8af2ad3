"""Gated recurrent layers over the window."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, output
from learnd.models.settings import GruSettings, LstmSettings


def lstm(settings: LstmSettings, spec: CoreSpec) -> Any:
    """One LSTM layer (Hochreiter and Schmidhuber, 1997), its last state, an affine map."""
    return _recurrent(keras.layers.LSTM, settings.units, spec, "lstm")


def gru(settings: GruSettings, spec: CoreSpec) -> Any:
    """One GRU layer (Cho et al., 2014), its last state, an affine map."""
    return _recurrent(keras.layers.GRU, settings.units, spec, "gru")


def _recurrent(layer: Any, units: int, spec: CoreSpec, name: str) -> Any:
    inputs = keras.Input(spec.row_shape)
    features = layer(
        units,
        kernel_initializer=keras.initializers.GlorotUniform(seed=spec.seed * 1000),
        recurrent_initializer=keras.initializers.Orthogonal(seed=spec.seed * 1000 + 1),
        unroll=spec.unroll,
        name=name,
    )(inputs)
    return core(inputs, output(features, spec))
