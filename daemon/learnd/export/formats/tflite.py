"""TensorFlow Lite (LiteRT) for edge devices: one row per call, built-in operators only."""

import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf

from learnd.core.errors import FormatUnavailableError
from learnd.core.tensors import NamedTensors, Tensor
from learnd.export.exportable_model import ExportableModel, ExportableNetwork
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tracing import TracedFunction, float32_spec, trace


class TargetSpec(Protocol):
    """The member of a converter's target specification that is used here."""

    supported_ops: Iterable[object]


class Converter(Protocol):
    """The members of `tf.lite.TFLiteConverter` that are used here."""

    optimizations: Iterable[object]
    target_spec: TargetSpec
    representative_dataset: Callable[[], Iterable[object]]
    experimental_enable_resource_variables: bool

    def convert(self) -> bytes: ...


class TFLiteFormat:
    """``model.tflite``, float32, with the signature ``serving_default`` of a fixed batch of one.

    The network should be built with its loops over time unrolled. TensorFlow Lite runs unrolled loops faster, and a
    loop that is not unrolled would need a fixed batch anyway.
    """

    file_name = "model.tflite"
    unroll = True
    tolerance: ClassVar[float | None] = None
    """Default tolerance of a format that rounds on purpose; None for a format that does not."""

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write *model* to the file *target*."""
        served = self._served(model)
        signatures = {"serving_default": served.function}
        target.write_bytes(converted(target.parent, served.module, signatures, lambda c: self._convert(c, model)))

    def reader(self, target: Path) -> "TFLiteReader":
        """Return the written model, run by the interpreter of edge devices."""
        return TFLiteReader(target)

    def _served(self, model: ExportableModel) -> "ServedNetwork":
        return ServedNetwork(model.network)

    def _convert(self, converter: Converter, model: ExportableModel) -> bytes:
        return converter.convert()


class DynamicRangeFormat(TFLiteFormat):
    """``model_dynamic.tflite``: weights as int8, activations in float32.

    The converter does not quantise tensors of fewer than 1024 numbers, and does not report it if that is all of them.
    """

    file_name = "model_dynamic.tflite"
    tolerance = 0.05

    def _convert(self, converter: Converter, model: ExportableModel) -> bytes:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return super()._convert(converter, model)

    def reader(self, target: Path) -> "TFLiteReader":
        """Return the written model.

        Raises
        ------
        FormatUnavailableError
            if none of its weights were quantised.
        """
        reader = TFLiteReader(target)
        if np.int8 not in reader.dtypes():
            raise FormatUnavailableError(
                "no weight of the model has the 1024 numbers that the converter needs in order to quantise it"
            )
        return reader


class ServedNetwork:
    """A network's serving function for one row, with the TensorFlow variables that it reads."""

    def __init__(self, network: ExportableNetwork) -> None:
        self.network = network
        self.module = tf.Module()
        self.module.weights = [variable.value for variable in network.served_state()]
        self.function = trace(self.serve, float32_spec((1, *network.row_shape), "inputs"))
        self.module.serve = self.function

    def serve(self, inputs: Tensor) -> NamedTensors:
        """Return the served outputs by name; this function is traced."""
        return dict(self.network.call(inputs))


def converted(
    folder: Path, module: object, signatures: Mapping[str, TracedFunction], convert: Callable[[Converter], bytes]
) -> bytes:
    """Return the TensorFlow Lite file that *convert* makes of *module*, through a SavedModel below *folder*.

    The SavedModel is needed, because converting a bare concrete function can write a file without its weights.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".convert-") as path:
        tf.saved_model.save(module, path, signatures=dict(signatures))
        return convert(tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=list(signatures)))
