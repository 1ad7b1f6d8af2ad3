"""TensorFlow Lite (LiteRT): what edge devices load. float32, one row a call, built-in operators alone."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.exporters.candidate import Candidate
from learnd.exporters.saved_model import save_with_signature
from learnd.types import Float32Array


class TFLiteFormat:
    """``model.tflite`` with the signature ``serving_default`` of a fixed batch of one.

    The network should be built with its loops over time written out: TensorFlow Lite runs them faster, and a rolled
    loop would need a fixed batch anyway.
    """

    file_name = "model.tflite"
    unroll = True

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the file *target*."""
        network = candidate.network
        network.settle()
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
            # By way of a SavedModel: converting a bare concrete function can write a file without its weights.
            save_with_signature(network, Path(folder), batch=1)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
            target.write_bytes(converter.convert())

    def reader(self, target: Path) -> "TFLiteReader":
        """The written model, run by the interpreter that edge devices use."""
        return TFLiteReader(target)


class TFLiteReader:
    """Answers from a TensorFlow Lite file on disk."""

    def __init__(self, target: Path) -> None:
        self._interpreter = Interpreter(model_path=str(target), num_threads=1)
        self._run = self._interpreter.get_signature_runner("serving_default")

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        rows = [self._run(inputs=row[None]) for row in x]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    def check(self, x: Float32Array) -> None:
        """It can do nothing else."""
