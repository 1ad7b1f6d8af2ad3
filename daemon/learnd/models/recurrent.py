"""Gated recurrent layers over the window."""

from typing import Any

import keras

from learnd.models.core import CoreSpec, core, initializer, normalized, output, penalty, with_dropout
from learnd.models.rnn_cells import Gru, Lstm
from learnd.models.settings import GruSettings, LstmSettings


def lstm(settings: LstmSettings, spec: CoreSpec) -> Any:
    """One LSTM layer (Hochreiter and Schmidhuber, 1997), its last state, an affine map."""
    return _recurrent(Lstm, settings, spec, "lstm")


def gru(settings: GruSettings, spec: CoreSpec) -> Any:
    """One GRU layer (Cho et al., 2014), its last state, an affine map."""
    return _recurrent(Gru, settings, spec, "gru")


def _recurrent(layer: Any, settings: Any, spec: CoreSpec, name: str) -> Any:
    inputs = keras.Input(spec.row_shape)
    features = layer(
        settings.units,
        kernel_initializer=initializer(spec, 0),
        recurrent_initializer=keras.initializers.Orthogonal(seed=spec.seed * 1000 + 1),
        kernel_regularizer=penalty(settings),
        recurrent_regularizer=penalty(settings),
        unroll=spec.unroll,
        name=name,
    )(inputs)
    features = with_dropout(normalized(features, settings, name), settings, spec, 0, name)
    return core(inputs, output(features, settings, spec))
