"""ONNX, by way of tf2onnx (extra ``onnx``): what ONNX Runtime, and the many programs that build on it, load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from learnd.core.types import Float32Array
from learnd.export.exportable_model import Candidate

_OPSET = 18
"""The newest that tf2onnx 1.17 writes."""


class OnnxFormat:
    """``model.onnx``: ``inputs`` with any number of rows to the outputs by name, in float32."""

    file_name = "model.onnx"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the file *target*."""
        import onnx  # noqa: PLC0415 - an extra
        import tf2onnx  # noqa: PLC0415

        network = candidate.network
        spec = [tf.TensorSpec((None, *network.row_shape), tf.float32, name="inputs")]
        serve = tf.function(lambda inputs: dict(network.call(inputs)), autograph=False, input_signature=spec)
        model, _ = tf2onnx.convert.from_function(serve, input_signature=spec, opset=_OPSET)
        _give_constants(model, serve.get_concrete_function())
        onnx.save(model, target)

    def reader(self, target: Path) -> "OnnxReader":
        """The written model, run by ONNX Runtime."""
        return OnnxReader(target)


def _give_constants(model: Any, function: Any) -> None:
    """Give *model* what *function* took from around it: tf2onnx makes inputs of tensors, of variables constants.

    Say the mean of a user's `Normalization` layer.
    """
    from onnx import numpy_helper  # noqa: PLC0415

    captured = function.captured_inputs
    ports = zip(function.inputs[len(function.inputs) - len(captured) :], captured, strict=True)
    values = {port.name: value for port, value in ports if port.dtype != tf.resource}
    for given in [given for given in model.graph.input if given.name in values]:
        model.graph.initializer.append(numpy_helper.from_array(values[given.name].numpy(), given.name))
        model.graph.input.remove(given)


class OnnxReader:
    """Answers from an ONNX file on disk."""

    def __init__(self, target: Path) -> None:
        import onnxruntime  # noqa: PLC0415 - an extra

        self._session: Any = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, map(np.asarray, self._session.run(names, {"inputs": x})), strict=True))

    def check(self, x: Float32Array) -> None:
        """It can do nothing else."""
