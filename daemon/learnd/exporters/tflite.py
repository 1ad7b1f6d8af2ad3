"""TensorFlow Lite (LiteRT): what edge devices load. One row a call, built-in operators alone, in four precisions."""

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from learnd.errors import ExportError, FormatUnavailableError
from learnd.exporters.candidate import Candidate
from learnd.exporters.litert import TFLiteReader


class TFLiteFormat:
    """``model.tflite``, float32, with the signature ``serving_default`` of a fixed batch of one.

    The network should be built with its loops over time written out: TensorFlow Lite runs them faster, and a rolled
    loop would need a fixed batch anyway.
    """

    file_name = "model.tflite"
    unroll = True
    tolerance: ClassVar[float | None] = None
    """What rounding on purpose may cost, by default; None where there is none."""

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the file *target*."""
        rows = self._rows(candidate)
        signatures = {"serving_default": rows.function}
        target.write_bytes(converted(target.parent, rows.module, signatures, lambda c: self._converted(c, candidate)))

    def reader(self, target: Path) -> "TFLiteReader":
        """The written model, run by the interpreter that edge devices use."""
        return TFLiteReader(target)

    def _rows(self, candidate: Candidate) -> "_Served":
        return _Served(candidate.network)

    def _converted(self, converter: Any, candidate: Candidate) -> bytes:
        written: bytes = converter.convert()
        return written


class Float16Format(TFLiteFormat):
    """``model_float16.tflite``: weights in half the room, arithmetic in float32 (or float16, on a GPU that can).

    Only what multiplies as a matrix is rounded. The converter's own float16 takes every constant, also those that bring
    raw numbers to standard units: a pressure of 101 325 Pa is infinite in it.
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


class DynamicRangeFormat(TFLiteFormat):
    """``model_dynamic.tflite``: weights as int8, activations in float32.

    The converter leaves tensors of fewer than 1024 numbers alone, and says nothing where that is all of them.
    """

    file_name = "model_dynamic.tflite"
    tolerance = 0.05

    def _converted(self, converter: Any, candidate: Candidate) -> bytes:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return super()._converted(converter, candidate)

    def reader(self, target: Path) -> "TFLiteReader":
        reader = TFLiteReader(target)
        if np.int8 not in reader.dtypes():
            raise FormatUnavailableError("no weight of the model has the 1024 numbers from which on it is quantised")
        return reader


class Int8Format(TFLiteFormat):
    """``model_int8.tflite``: the whole network in int8, fitted to recent real inputs; float32 in and out.

    What brings raw numbers to standard units and back stays float32: an int8 tensor has one scale for all of it, with
    zero in its range, so a reading of 1.00 +- 0.01 would have three values.
    """

    file_name = "model_int8.tflite"
    tolerance = 0.2

    def _rows(self, candidate: Candidate) -> "_Served":
        return _ServedApart(candidate.network)

    def _converted(self, converter: Any, candidate: Candidate) -> bytes:
        edges = edges_of(converter.convert())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.representative_dataset = lambda: (
            ("serving_default", {"inputs": row[None]}) for row in candidate.examples
        )
        # Made to find operators that suffer from int8; the only way to have some left alone.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=lambda: ({"inputs": row[None]} for row in candidate.examples[:1]),
            debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=edges),
        )
        written: bytes = debugger.get_nondebug_quantized_model()
        return written

    def reader(self, target: Path) -> "TFLiteReader":
        reader = TFLiteReader(target)
        left = reader.float_operators() - _EDGE_OPERATORS
        if left or np.int8 not in reader.dtypes():
            raise ExportError(f"tflite_int8: {', '.join(sorted(left)) or 'everything'} was left in float32")
        return reader


class _Served:
    """A network's serving function for one row, with the raw variables that it reads."""

    def __init__(self, network: Any) -> None:
        self._network = network
        self.module = tf.Module()
        self.module.weights = [variable.value for variable in network.served_state()]
        spec = tf.TensorSpec((1, *network.row_shape), tf.float32, name="inputs")
        self.module.serve = self.function = tf.function(self._serve, autograph=False).get_concrete_function(spec)

    def _serve(self, inputs: Any) -> Any:
        return dict(self._network.call(inputs))


class _ServedApart(_Served):
    """The same, the core's answer held apart from what brings it to raw units.

    Beside each other, the converter would work the raw units into the weights of the core's last layer.
    """

    def _serve(self, inputs: Any) -> Any:
        whole = self._network.answer

        def apart(x: Any, *, training: bool) -> Any:
            z = whole(x, training=training)
            return tf.stack([z, z])[0]

        object.__setattr__(self._network, "answer", apart)
        try:
            return super()._serve(inputs)
        finally:
            object.__delattr__(self._network, "answer")


_EDGE_OPERATORS = {"SUB", "DIV", "MUL", "ADD", "STRIDED_SLICE", "TILE", "RESHAPE", "DEQUANTIZE"}
"""What stands between raw numbers and standard units."""


def edges_of(file: bytes) -> list[str]:
    """The converter's names of the operators that bring raw inputs to standard units, and answers to raw ones."""
    interpreter = Interpreter(model_content=file)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    operators = [o for o in interpreter._get_ops_details() if o["op_name"] in _EDGE_OPERATORS]
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    known = {detail["index"] for detail in inputs}
    first = [o for o in operators if _reached(o, known, "inputs", "outputs")]
    known = {detail["index"] for detail in outputs}
    last = [o for o in reversed(operators) if _reached(o, known, "outputs", "inputs")]
    return [names[int(index)] for operator in (*first, *last) for index in operator["outputs"]]


def _reached(operator: Mapping[str, Any], known: set[int], near: str, far: str) -> bool:
    """Whether a *known* tensor is at the *near* end of *operator*; then those at its *far* end are known too."""
    reached = not known.isdisjoint(map(int, operator[near]))
    if reached:
        known.update(map(int, operator[far]))
    return reached


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
            rounded = copy.copy(tensor)
            rounded.type, rounded.name, rounded.buffer = schema.TensorType.FLOAT16, b"float16", len(model.buffers)
            buffer = schema.BufferT()
            buffer.data = (
                np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.float32).astype(np.float16).view(np.uint8)
            )
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


def converted(folder: Path, module: Any, signatures: Mapping[str, Any], convert: Callable[[Any], bytes]) -> bytes:
    """*module* as a TensorFlow Lite file, by way of a SavedModel below *folder*; *convert* is given the converter.

    The way round, because converting a bare concrete function can write a file without its weights.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".convert-") as path:
        tf.saved_model.save(module, path, signatures=dict(signatures))
        return convert(tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(signatures)))
