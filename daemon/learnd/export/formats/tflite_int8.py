"""TensorFlow Lite in int8, calibrated with recent inputs."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.core.errors import FormatUnavailableError
from learnd.core.tensors import NamedTensors, Tensor
from learnd.export.exportable_model import ExportableModel
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import Converter, ServedNetwork, TFLiteFormat

_SCALING = {"SUB", "DIV", "MUL", "ADD", "MINIMUM", "MAXIMUM", "STRIDED_SLICE", "TILE", "RESHAPE", "DEQUANTIZE"}
"""Operators between raw numbers and standard units."""
_SOFT_LIMIT = {"RELU", "RELU_0_TO_1", "LOG", "EXP", "NOT_EQUAL", "EQUAL", "SELECT", "SELECT_V2"}
"""Operators of the soft limit of inputs, of its inverse, and of missing values."""
_SEASONS = {"SIN", "COS", "CONCATENATION"}
"""Operators that make sine and cosine of a seasonal input. In int8 a day would have 256 moments."""
_SCORE = {"SQUARED_DIFFERENCE", "MEAN"}
"""Operators between an answer, the input and the score. In int8 no score could exceed those of the calibration rows."""
_INDICATORS = {"CAST", "CONCATENATION", "GATHER"}
"""Operators of the indicators of missing readings."""
_EDGE_OPERATORS = _SCALING | _SOFT_LIMIT | _SEASONS | _SCORE | _INDICATORS


class Int8Format(TFLiteFormat):
    """``model_int8.tflite``: the whole network in int8, calibrated with recent inputs; float32 in and out.

    The conversion from raw numbers to standard units and back stays float32. An int8 tensor has one scale for all its
    numbers, and its range contains zero, so a reading of 1.00 +- 0.01 would have three possible values.
    """

    file_name = "model_int8.tflite"
    tolerance = 0.2

    def _served(self, model: ExportableModel) -> "ServedNetwork":
        return ServedWithSeparateCore(model.network)

    def _convert(self, converter: Converter, model: ExportableModel) -> bytes:
        edges = edge_operators(converter.convert())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
        converter.representative_dataset = lambda: (
            ("serving_default", {"inputs": row[None]}) for row in model.examples
        )
        # Meant for finding operators that lose accuracy in int8, it is also the only way to exclude some of them.
        debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=lambda: ({"inputs": row[None]} for row in model.examples[:1]),
            debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=edges),
        )
        return bytes(debugger.get_nondebug_quantized_model())

    def reader(self, target: Path) -> "TFLiteReader":
        """Return the written model.

        Raises
        ------
        FormatUnavailableError
            if operators of the core are still in float32.
        """
        reader = TFLiteReader(target)
        remaining = reader.float_operators() - _EDGE_OPERATORS
        if remaining or np.int8 not in reader.dtypes():
            names = ", ".join(sorted(remaining)) or "everything"
            raise FormatUnavailableError(f"the converter leaves {names} in float32")
        return reader


class ServedWithSeparateCore(ServedNetwork):
    """A serving function in which an operator separates the core's answer from its conversion to raw units.

    Without it, the converter would fold the raw units into the weights of the core's last layer.
    """

    def serve(self, inputs: Tensor) -> NamedTensors:
        """Return the served outputs by name; this function is traced."""
        answer = self.network.answer

        def separated(x: Tensor, *, training: bool) -> Tensor:
            z = answer(x, training=training)
            stacked: Tensor = tf.stack([z, z])
            return stacked[0]

        object.__setattr__(self.network, "answer", separated)
        try:
            return super().serve(inputs)
        finally:
            object.__delattr__(self.network, "answer")


def edge_operators(file: bytes) -> list[str]:
    """Return the operators between raw inputs and standard units, and between the core's answers and raw units.

    Each operator is named by its output tensors, as the converter names it.
    """
    interpreter = Interpreter(model_content=file)
    names = {detail["index"]: detail["name"] for detail in interpreter.get_tensor_details()}
    operators = [o for o in interpreter._get_ops_details() if o["op_name"] in _EDGE_OPERATORS]
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    connected = {detail["index"] for detail in inputs}
    first = [o for o in operators if _extends(connected, o, "inputs", "outputs")]
    connected = {detail["index"] for detail in outputs}
    last = [o for o in reversed(operators) if _extends(connected, o, "outputs", "inputs")]
    return [names[int(index)] for operator in (*first, *last) for index in operator["outputs"]]


def _extends(connected: set[int], operator: Mapping[str, Iterable[int]], near: str, far: str) -> bool:
    """Return whether a *connected* tensor is at the *near* end of *operator*; if so, add those at its *far* end."""
    reached = not connected.isdisjoint(map(int, operator[near]))
    if reached:
        connected.update(map(int, operator[far]))
    return reached
