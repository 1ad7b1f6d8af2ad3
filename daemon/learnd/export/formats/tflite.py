"""TensorFlow Lite (LiteRT): what edge devices load. One row a call, built-in operators alone."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from learnd.core.errors import FormatUnavailableError
from learnd.export.exportable_model import Candidate
from learnd.export.formats.litert import TFLiteReader


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

    def _rows(self, candidate: Candidate) -> "Served":
        return Served(candidate.network)

    def _converted(self, converter: Any, candidate: Candidate) -> bytes:
        written: bytes = converter.convert()
        return written


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


class Served:
    """A network's serving function for one row, with the raw variables that it reads."""

    def __init__(self, network: Any) -> None:
        self.network = network
        self.module = tf.Module()
        self.module.weights = [variable.value for variable in network.served_state()]
        spec = tf.TensorSpec((1, *network.row_shape), tf.float32, name="inputs")
        self.module.serve = self.function = tf.function(self.serve, autograph=False).get_concrete_function(spec)

    def serve(self, inputs: Any) -> Any:
        """What is traced."""
        return dict(self.network.call(inputs))


def converted(folder: Path, module: Any, signatures: Mapping[str, Any], convert: Callable[[Any], bytes]) -> bytes:
    """*module* as a TensorFlow Lite file, by way of a SavedModel below *folder*; *convert* is given the converter.

    The way round, because converting a bare concrete function can write a file without its weights.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".convert-") as path:
        tf.saved_model.save(module, path, signatures=dict(signatures))
        return convert(tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(signatures)))
