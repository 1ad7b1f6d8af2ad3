"""TensorFlow Lite in int8, fitted to recent real inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.core.errors import FormatUnavailableError
from learnd.export.exportable_model import Candidate
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import Served, TFLiteFormat


class Int8Format(TFLiteFormat):
    """``model_int8.tflite``: the whole network in int8, fitted to recent real inputs; float32 in and out.

    What brings raw numbers to standard units and back stays float32: an int8 tensor has one scale for all of it, with
    zero in its range, so a reading of 1.00 +- 0.01 would have three values.
    """

    file_name = "model_int8.tflite"
    tolerance = 0.2

    def _rows(self, candidate: Candidate) -> "Served":
        return ServedApart(candidate.network)

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
            raise FormatUnavailableError(f"the converter leaves {', '.join(sorted(left)) or 'everything'} in float32")
        return reader


class ServedApart(Served):
    """The same, the core's answer held apart from what brings it to raw units.

    Beside each other, the converter would work the raw units into the weights of the core's last layer.
    """

    def serve(self, inputs: Any) -> Any:
        whole = self.network.answer

        def apart(x: Any, *, training: bool) -> Any:
            z = whole(x, training=training)
            return tf.stack([z, z])[0]

        object.__setattr__(self.network, "answer", apart)
        try:
            return super().serve(inputs)
        finally:
            object.__delattr__(self.network, "answer")


_SCALING = {"SUB", "DIV", "MUL", "ADD", "MINIMUM", "MAXIMUM", "STRIDED_SLICE", "TILE", "RESHAPE", "DEQUANTIZE"}
"""What stands between raw numbers and standard units."""
_SCORE = {"SQUARED_DIFFERENCE", "MEAN"}
"""Of an answer and the input: in int8 the score of no anomaly could be larger than those that were fitted to."""
_EDGE_OPERATORS = _SCALING | _SCORE


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
