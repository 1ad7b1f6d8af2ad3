"""TensorFlow Lite with float16 weights."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from learnd.core.errors import FormatUnavailableError
from learnd.core.types import Float32Array
from learnd.export.exportable_model import Candidate
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import TFLiteFormat


class Float16Format(TFLiteFormat):
    """``model_float16.tflite``: weights in half the room, arithmetic in float32 (or float16, on a GPU that can).

    Only what multiplies as a matrix is rounded. The converter's own float16 takes every constant, also those that bring
    raw numbers to standard units: a pressure of 101 325 Pa is infinite in it. A matrix into which it has multiplied a
    scale (that of a single target, say) stays as it is where float16 has no such numbers.
    """

    file_name = "model_float16.tflite"
    tolerance = 0.01

    def _converted(self, converter: Any, candidate: Candidate) -> bytes:
        return with_float16_weights(converter.convert())

    def reader(self, target: Path) -> "TFLiteReader":
        reader = TFLiteReader(target)
        if np.float16 not in reader.dtypes():
            raise FormatUnavailableError("the model has no weights that could be float16")
        return reader


_ROUNDING = 2.0**-11
"""Of float16, relative, where it has all of its bits: from 6e-5 to 65504."""
_ELEMENTWISE = {getattr(schema.BuiltinOperator, name) for name in ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM")}


def with_float16_weights(file: bytes) -> bytes:
    """The same float32 model, its matrices as float16 that it widens when it is loaded; no scales, no biases."""
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(file))
    widen = schema.OperatorCodeT()
    widen.builtinCode = widen.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    widen.version = 3  # the first that takes float16
    model.operatorCodes.append(widen)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    for graph in model.subgraphs:
        scales = {int(i) for o in graph.operators if codes[o.opcodeIndex] in _ELEMENTWISE for i in o.inputs}
        operators = []
        for index, tensor in enumerate(list(graph.tensors)):
            data = model.buffers[tensor.buffer].data
            if tensor.type != schema.TensorType.FLOAT32 or data is None or len(tensor.shape) < 2 or index in scales:
                continue
            matrix = np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32)
            halves = _as_float16(matrix)
            if halves is None:
                continue
            rounded = copy.copy(tensor)
            rounded.type, rounded.name, rounded.buffer = schema.TensorType.FLOAT16, b"float16", len(model.buffers)
            buffer = schema.BufferT()
            buffer.data = halves.view(np.uint8)
            model.buffers.append(buffer)
            tensor.buffer = 0  # the empty one
            operator = schema.OperatorT()
            operator.opcodeIndex = len(model.operatorCodes) - 1
            operator.inputs, operator.outputs = [len(graph.tensors)], [index]
            graph.tensors.append(rounded)
            operators.append(operator)
        graph.operators = [*operators, *graph.operators]
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {note.buffer for note in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None  # what was rounded
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _as_float16(matrix: Float32Array) -> "np.ndarray[Any, Any] | None":
    """*matrix* rounded; None where that costs more than rounding does, because its numbers are too large or too small.

    >>> _as_float16(np.array([0.1, 1e-9], np.float32))
    array([0.1, 0. ], dtype=float16)
    >>> _as_float16(np.array([1e-7, 2e-7], np.float32)), _as_float16(np.array([1e5], np.float32))
    (None, None)
    """
    with np.errstate(over="ignore"):
        halves = matrix.astype(np.float16)
    lost = np.linalg.norm(halves.astype(np.float64) - matrix)
    return halves if lost <= _ROUNDING * np.linalg.norm(matrix.astype(np.float64)) else None
