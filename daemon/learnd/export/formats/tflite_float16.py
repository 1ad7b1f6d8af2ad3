"""TensorFlow Lite with float16 weights."""

import copy
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from learnd.core.errors import FormatUnavailableError
from learnd.core.types import Float32Array
from learnd.export.exportable_model import ExportableModel
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import Converter, TFLiteFormat

_ROUNDING = 2.0**-11
"""Relative rounding of float16 in the range of its normal numbers, from 6e-5 to 65504."""
_ELEMENTWISE = {getattr(schema.BuiltinOperator, name) for name in ("ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM")}


class Float16Format(TFLiteFormat):
    """``model_float16.tflite``: weights of half the size, arithmetic in float32 (or float16, on a GPU that can).

    Only matrices that are multiplied are rounded. The converter's own float16 option rounds every constant, including
    those that convert raw numbers to standard units: a pressure of 101 325 Pa is infinite in float16. The converter
    also multiplies scales into matrices, for example that of a single target. Such a matrix stays float32 if its
    numbers do not fit float16.
    """

    file_name = "model_float16.tflite"
    tolerance = 0.01

    def _convert(self, converter: Converter, model: ExportableModel) -> bytes:
        return with_float16_weights(converter.convert())

    def reader(self, target: Path) -> "TFLiteReader":
        """Return the written model.

        Raises
        ------
        FormatUnavailableError
            if none of its weights are float16.
        """
        reader = TFLiteReader(target)
        if np.float16 not in reader.dtypes():
            raise FormatUnavailableError("the model has no weights that fit float16")
        return reader


def with_float16_weights(file: bytes) -> bytes:
    """Return the same model with its matrices as float16, which it widens when it is loaded.

    Scales and biases stay float32.
    """
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(file))
    widen = schema.OperatorCodeT()
    widen.builtinCode = widen.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    widen.version = 3  # the first that accepts float16
    model.operatorCodes.append(widen)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    for graph in model.subgraphs:
        scales = {int(i) for o in graph.operators if codes[o.opcodeIndex] in _ELEMENTWISE for i in o.inputs}
        operators = []
        for index, tensor in enumerate(list(graph.tensors)):
            data = model.buffers[tensor.buffer].data
            if tensor.type != schema.TensorType.FLOAT32 or data is None or len(tensor.shape) < 2 or index in scales:
                continue
            halves = _as_float16(np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32))
            if halves is not None:
                operators.append(_widened(model, graph, index, halves))
        graph.operators = [*operators, *graph.operators]
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    used |= {note.buffer for note in model.metadata or ()}
    for index, buffer in enumerate(model.buffers):
        if index not in used:
            buffer.data = None  # the float32 original of a rounded matrix
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _widened(
    model: "schema.ModelT", graph: "schema.SubGraphT", index: int, halves: npt.NDArray[np.float16]
) -> "schema.OperatorT":
    """Store *halves* as a constant, and return the operator that widens it to the tensor *index* of *graph*.

    The operator is of the kind that was added to *model* last.
    """
    constant = copy.copy(graph.tensors[index])
    constant.type, constant.name, constant.buffer = schema.TensorType.FLOAT16, b"float16", len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = halves.view(np.uint8)
    model.buffers.append(buffer)
    graph.tensors[index].buffer = 0  # the empty buffer
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = [len(graph.tensors)], [index]
    graph.tensors.append(constant)
    return operator


def _as_float16(matrix: Float32Array) -> "npt.NDArray[np.float16] | None":
    """Return *matrix* in float16; None if its numbers are too large or too small for float16.

    That is the case if the total error is larger than the rounding of normal float16 numbers.

    >>> _as_float16(np.array([0.1, 1e-9], np.float32))
    array([0.1, 0. ], dtype=float16)
    >>> _as_float16(np.array([1e-7, 2e-7], np.float32)), _as_float16(np.array([1e5], np.float32))
    (None, None)
    """
    with np.errstate(over="ignore"):
        halves = matrix.astype(np.float16)
    error = np.linalg.norm(halves.astype(np.float64) - matrix)
    return halves if error <= _ROUNDING * np.linalg.norm(matrix.astype(np.float64)) else None
