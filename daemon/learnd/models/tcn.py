"""Temporal convolutional network over the window (Bai, Kolter and Koltun, 2018)."""

from functools import partial

import keras

from learnd.core.tensors import KerasModel, Tensor
from learnd.models.core import CoreSpec, core, hidden, initializer, output, penalty
from learnd.models.layers import CausalConv, Newest
from learnd.models.settings import TcnSettings


def tcn(settings: TcnSettings, spec: CoreSpec) -> KerasModel:
    """Return residual blocks of causal convolutions, dilated 1, 2, 4 and so on, then an affine map of the newest step.

    The newest step depends on every second step of the last block's input, on every fourth step of the block before,
    and so on. Only those steps are computed: each block passes on every second of its steps, and so needs no dilation.
    The outputs are the same as with dilation. Batch normalisation takes its statistics over the computed steps only.
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
    """Return the number of steps that the newest output depends on: ``1 + 2 (kernel_size - 1) (2 ** blocks - 1)``.

    Block i has two convolutions of dilation ``2 ** i``, and each of them reaches ``(kernel_size - 1) 2 ** i`` back.

    >>> receptive_field(1, 3), receptive_field(4, 3)
    (5, 61)
    """
    return 1 + 2 * (kernel_size - 1) * ((1 << blocks) - 1)


def blocks_for(window: int, kernel_size: int) -> int:
    """Return the fewest blocks whose receptive field covers *window* steps.

    >>> [blocks_for(window, 3) for window in (1, 5, 6, 29, 30, 61)]
    [1, 1, 2, 3, 4, 4]
    """
    blocks = 1
    while receptive_field(blocks, kernel_size) < window:
        blocks += 1
    return blocks


def _block(features: Tensor, settings: TcnSettings, spec: CoreSpec, index: int) -> Tensor:
    """Return two convolutions and their residual connection, at every second step counted back from the newest."""
    name = f"block_{index}"
    change = features
    for place, strides in enumerate((1, 2)):
        make = partial(CausalConv, settings.filters, settings.kernel_size, strides=strides)
        change = hidden(make, change, settings, spec, 3 * index + place, f"{name}_conv_{place}")
    residual = Newest(2, unroll=spec.unroll, name=f"{name}_kept")(features)
    if residual.shape[-1] != settings.filters:
        residual = keras.layers.Dense(
            settings.filters,
            kernel_initializer=initializer(spec, 3 * index + 2),
            kernel_regularizer=penalty(settings),
            name=f"{name}_projection",
        )(residual)
    total = keras.layers.Add(name=f"{name}_sum")([residual, change])
    outputs: Tensor = keras.layers.Activation(settings.activation, name=name)(total)
    return outputs
