"""Gated recurrent layers over the window."""

from collections.abc import Callable

import keras

from learnd.core.tensors import KerasModel, Layer
from learnd.models.core import CoreSpec, core, initializer, normalized, output, penalty, with_dropout
from learnd.models.rnn_cells import Gru, Lstm
from learnd.models.settings import GruSettings, LstmSettings


def lstm(settings: LstmSettings, spec: CoreSpec) -> KerasModel:
    """Return one LSTM layer (Hochreiter and Schmidhuber, 1997), then an affine map of its last state."""
    return _recurrent(Lstm, settings, spec, "lstm")


def gru(settings: GruSettings, spec: CoreSpec) -> KerasModel:
    """Return one GRU layer (Cho et al., 2014), then an affine map of its last state."""
    return _recurrent(Gru, settings, spec, "gru")


def _recurrent(
    make: Callable[..., Layer], settings: LstmSettings | GruSettings, spec: CoreSpec, name: str
) -> KerasModel:
    inputs = keras.Input(spec.row_shape)
    layer = make(
        settings.units,
        kernel_initializer=initializer(spec, 0),
        recurrent_initializer=keras.initializers.Orthogonal(seed=spec.seed * 1000 + 1),
        kernel_regularizer=penalty(settings),
        recurrent_regularizer=penalty(settings),
        unroll=spec.unroll,
        name=name,
    )
    features = with_dropout(normalized(layer(inputs), settings, name), settings, spec, 0, name)
    return core(inputs, output(features, settings, spec))
