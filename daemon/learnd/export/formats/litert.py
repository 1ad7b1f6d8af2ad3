"""Runs TensorFlow Lite files with LiteRT, the interpreter that edge devices have; knows no TensorFlow."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from learnd.core.types import Float32Array


class TFLiteReader:
    """Answers from a TensorFlow Lite file on disk, by the signature that serves."""

    def __init__(self, target: Path) -> None:
        self.interpreter = Interpreter(model_path=str(target), num_threads=1)
        signatures = self.interpreter.get_signature_list()
        self._run = self.interpreter.get_signature_runner("infer" if "infer" in signatures else "serving_default")

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        rows = [self._run(inputs=row[None]) for row in x]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def check(self, x: Float32Array) -> None:
        """It can do nothing else."""

    def dtypes(self) -> set[Any]:
        """What its tensors are made of."""
        return {detail["dtype"] for detail in self.interpreter.get_tensor_details()}

    def float_operators(self) -> set[str]:
        """The operators that answer in floating point."""
        dtypes = {detail["index"]: detail["dtype"] for detail in self.interpreter.get_tensor_details()}
        operators = self.interpreter._get_ops_details()
        return {
            operator["op_name"]
            for operator in operators
            if any(dtypes.get(int(tensor)) in (np.float32, np.float16) for tensor in operator["outputs"])
        }
