"""Runs TensorFlow Lite files with LiteRT, the interpreter of edge devices, without TensorFlow."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from learnd.core.types import Float32Array


class TFLiteReader:
    """Predicts with a TensorFlow Lite file, through the signature ``infer`` or else ``serving_default``."""

    def __init__(self, target: Path) -> None:
        self.interpreter = Interpreter(model_path=str(target), num_threads=1)
        signatures = self.interpreter.get_signature_list()
        self._run = self.interpreter.get_signature_runner("infer" if "infer" in signatures else "serving_default")

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        rows = [self._run(inputs=row[None]) for row in x]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def check(self, x: Float32Array) -> None:
        """Do nothing: the file has no other function to check."""

    def dtypes(self) -> set[type[np.generic]]:
        """Return the dtypes of the file's tensors."""
        return {detail["dtype"] for detail in self.interpreter.get_tensor_details()}

    def float_operators(self) -> set[str]:
        """Return the names of the operators whose output is floating point."""
        dtypes = {detail["index"]: detail["dtype"] for detail in self.interpreter.get_tensor_details()}
        operators = self.interpreter._get_ops_details()
        return {
            operator["op_name"]
            for operator in operators
            if any(dtypes.get(int(tensor)) in (np.float32, np.float16) for tensor in operator["outputs"])
        }
