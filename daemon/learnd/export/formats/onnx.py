"""ONNX through tf2onnx (extra ``onnx``), for ONNX Runtime and the many programs that build on it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import tensorflow as tf

from learnd.core.tensors import Array
from learnd.core.types import Float32Array
from learnd.export.exportable_model import ExportableModel
from learnd.export.formats.tracing import TracedFunction, float32_spec

if TYPE_CHECKING:  # onnx is an extra
    from onnx import ModelProto

_OPSET = 18
"""The newest opset that tf2onnx 1.17 writes."""


class OnnxFormat:
    """``model.onnx``: from ``inputs``, with any number of rows, to the outputs by name, in float32."""

    file_name = "model.onnx"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write *model* to the file *target*."""
        import onnx  # noqa: PLC0415 - an extra
        import tf2onnx  # noqa: PLC0415

        network = model.network
        spec = [float32_spec((None, *network.row_shape), "inputs")]
        serve = tf.function(lambda inputs: dict(network.call(inputs)), autograph=False, input_signature=spec)
        proto, _ = tf2onnx.convert.from_function(serve, input_signature=spec, opset=_OPSET)
        _inline_constants(proto, serve.get_concrete_function())
        onnx.save(proto, target)

    def reader(self, target: Path) -> "OnnxReader":
        """Return the written model, run by ONNX Runtime."""
        return OnnxReader(target)


def _inline_constants(proto: "ModelProto", function: TracedFunction) -> None:
    """Store in *proto* the values of the tensors that *function* captured.

    tf2onnx turns captured variables into constants, but captured tensors into inputs. An example is the mean of a
    user's `Normalization` layer.
    """
    from onnx import numpy_helper  # noqa: PLC0415 - an extra

    captured = function.captured_inputs
    ports = zip(function.inputs[len(function.inputs) - len(captured) :], captured, strict=True)
    values = {port.name: value for port, value in ports if port.dtype != tf.resource}
    for port in [port for port in proto.graph.input if port.name in values]:
        proto.graph.initializer.append(numpy_helper.from_array(values[port.name].numpy(), port.name))
        proto.graph.input.remove(port)


class _NamedPort(Protocol):
    name: str


class _Session(Protocol):
    """The members of `onnxruntime.InferenceSession` that are used here."""

    def get_outputs(self) -> Sequence[_NamedPort]: ...

    def run(self, names: Sequence[str], inputs: Mapping[str, Array], /) -> Sequence[Array]: ...


class OnnxReader:
    """Predicts with an ONNX file."""

    def __init__(self, target: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - an extra

        self._session: _Session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, map(np.asarray, self._session.run(names, {"inputs": x})), strict=True))

    def check(self, x: Float32Array) -> None:
        """Do nothing: the file has no other function to check."""
