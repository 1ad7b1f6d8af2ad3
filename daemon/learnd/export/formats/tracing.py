"""Tracing of Python functions into TensorFlow graphs, with protocols for what TensorFlow returns."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import tensorflow as tf

from learnd.core.tensors import NamedTensors, Shape, Tensor


class TensorSpec(Protocol):
    """The static description of one argument: `tf.TensorSpec`."""

    @property
    def shape(self) -> Shape: ...


class GraphTensor(Tensor, Protocol):
    """A tensor of a graph, which has a name."""

    @property
    def name(self) -> str: ...


class TracedFunction(Protocol):
    """A function traced for fixed argument shapes, or a signature loaded from a SavedModel."""

    @property
    def inputs(self) -> Sequence[GraphTensor]: ...

    @property
    def captured_inputs(self) -> Sequence[Tensor]: ...

    @property
    def structured_input_signature(self) -> tuple[Sequence[TensorSpec], Mapping[str, TensorSpec]]: ...

    def __call__(self, **arguments: Tensor) -> NamedTensors: ...


def trace(function: Callable[..., NamedTensors], *specs: TensorSpec, **named_specs: TensorSpec) -> TracedFunction:
    """Return *function* traced for arguments of *specs*, without AutoGraph."""
    traced: TracedFunction = tf.function(function, autograph=False).get_concrete_function(*specs, **named_specs)
    return traced


def float32_spec(shape: Sequence[int | None], name: str) -> TensorSpec:
    """Return the description of a float32 argument; None in *shape* stands for any size."""
    spec: TensorSpec = tf.TensorSpec(shape, tf.float32, name=name)
    return spec
