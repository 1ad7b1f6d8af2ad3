"""A temporal convolutional network over the window (Bai, Kolter and Koltun, 2018)."""

from functools import partial
from typing import Any

import keras

from learnd.models.core import CoreSpec, core, hidden, initializer, output, penalty
from learnd.models.layers import CausalConv, Newest
from learnd.models.settings import TcnSettings


def tcn(settings: TcnSettings, spec: CoreSpec) -> Any:
    """Residual blocks of causal convolutions dilated 1, 2, 4 and so on; their newest step, an affine map.

    The newest step reads every second step of the last block's input, every fourth of the block's before it, and so
    on. Only those are computed: each block hands on every second of its steps, and so needs no dilation. The answer is
    the same as with it; batch normalisation takes its statistics over these steps alone.
    """
    inputs = keras.Input(spec.row_shape)
    window = spec.row_shape[0]
    blocks = settings.blocks or blocks_for(window, settings.kernel_size)
    field = receptive_field(blocks, settings.kernel_size)
    features = Newest(steps=field, name="seen")(inputs) if field < window else inputs
    for index in range(blocks):
        features = _block(features, settings, spec, index)
    newest = keras.layers.Flatten(name="flat")(Newest(steps=1, name="newest")(features))
    return core(inputs, output(newest, settings, spec))


def receptive_field(blocks: int, kernel_size: int) -> int:
    """How many steps the newest output sees: ``1 + 2 (kernel_size - 1) (2 ** blocks - 1)``.

    Block i has two convolutions of dilation ``2 ** i``, and each of them reaches ``(kernel_size - 1) 2 ** i`` back.

    >>> receptive_field(1, 3), receptive_field(4, 3)
    (5, 61)
    """
    return 1 + 2 * (kernel_size - 1) * ((1 << blocks) - 1)


def blocks_for(window: int, kernel_size: int) -> int:
    """The fewest blocks whose receptive field covers *window* steps.

    >>> [blocks_for(window, 3) for window in (1, 5, 6, 29, 30, 61)]
    [1, 1, 2, 3, 4, 4]
    """
    blocks = 1
    while receptive_field(blocks, kernel_size) < window:
        blocks += 1
    return blocks


def _block(features: Any, settings: TcnSettings, spec: CoreSpec, index: int) -> Any:
    """Two convolutions and the way round them, at every second step counted back from the newest."""
    name = f"block_{index}"
    change = features
    for place, strides in enumerate((1, 2)):
        make = partial(CausalConv, settings.filters, settings.kernel_size, strides=strides)
        change = hidden(make, change, settings, spec, 3 * index + place, f"{name}_conv_{place}")
    kept = Newest(2, unroll=spec.unroll, name=f"{name}_kept")(features)
    if kept.shape[-1] != settings.filters:
        kept = keras.layers.Dense(
            settings.filters,
            kernel_initializer=initializer(spec, 3 * index + 2),
            kernel_regularizer=penalty(settings),
            name=f"{name}_projection",
        )(kept)
    total = keras.layers.Add(name=f"{name}_sum")([kept, change])
    return keras.layers.Activation(settings.activation, name=name)(total)
