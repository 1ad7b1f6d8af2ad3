"""TensorFlow Lite with training: a device trains the model further with its interpreter and built-in operators."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import keras
import numpy as np
import tensorflow as tf

from learnd.core.errors import ExportError, FormatUnavailableError
from learnd.core.tensors import NamedTensors, Optimizer, Tensor
from learnd.core.types import Float32Array
from learnd.export.exportable_model import (
    ExportableModel,
    ExportableNetwork,
    argument_names,
    tf_variable,
)
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import Converter, converted
from learnd.export.formats.tracing import TracedFunction, float32_spec, trace


class TrainingFormat:
    """``model_training.tflite``: signatures ``infer``, ``train``, ``get`` and ``set``.

    ``infer`` answers like ``serving_default`` in other formats. ``train`` takes ``x``, (rows, *row_shape), and ``y``,
    (rows, targets), where ``rows`` is the number of rows in one update of the daemon. It takes one step, and returns
    the ``loss`` before the step. ``get`` returns everything that `train` changes, including the optimizer, by name;
    ``set`` takes the same. The scales of inputs and targets do not change, because TensorFlow Lite has no float64 in
    which to update their moments.
    """

    file_name = "model_training.tflite"
    unroll = True
    tolerance: ClassVar[float | None] = None

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write *model* to the file *target*.

        Raises
        ------
        FormatUnavailableError
            if the model's gradients need operators that TensorFlow Lite lacks; the message names them.
        """
        module = _TrainingModule(model)
        try:
            with _differentiable_relu(model.network), _clipping_without_nan(model.optimizer):
                signatures = module.signatures()
                file = converted(target.parent, module, signatures, _convert_with_variables)
        except Exception as error:
            missing = _missing_operators(str(error))
            if not missing:
                raise
            raise FormatUnavailableError(f"TensorFlow Lite has no built-in operator {', '.join(missing)}") from error
        target.write_bytes(file)

    def reader(self, target: Path) -> "TrainingReader":
        """Return the written model, run by the interpreter of edge devices."""
        return TrainingReader(target)


class TrainingReader(TFLiteReader):
    """Predicts with a file that can also train."""

    def check(self, x: Float32Array) -> None:
        """Raise ExportError unless a step is finite and changes the weights, and ``set`` brings them back."""
        train, get, put = map(self.interpreter.get_signature_runner, ("train", "get", "set"))
        shapes = {name: detail["shape"] for name, detail in train.get_input_details().items()}
        rows = np.resize(x, shapes["x"]).astype(np.float32)
        before = {name: np.copy(value) for name, value in get().items()}
        loss = float(
            train(x=rows, **{name: np.zeros(shapes[name], np.float32) for name in shapes if name != "x"})["loss"]
        )
        after = get()
        if not np.isfinite(loss):
            raise ExportError(f"tflite_training: train returns the loss {loss} for recent inputs")
        broken = sorted(name for name, value in after.items() if not np.isfinite(value).all())
        if broken:
            raise ExportError(f"tflite_training: train on recent inputs makes {', '.join(broken)} infinite or NaN")
        if all(np.array_equal(value, before[name]) for name, value in after.items()):
            raise ExportError("tflite_training: train changes nothing")
        put(**before)
        if not all(np.array_equal(value, before[name]) for name, value in get().items()):
            raise ExportError("tflite_training: set does not bring back what get returned")


class _TrainingModule(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """The functions, each for a fixed number of rows: a dynamic one needs operators that TensorFlow Lite lacks."""

    def __init__(self, model: ExportableModel) -> None:
        super().__init__(name="learnd")
        self._model = model
        trained = {name: v for name, v in model.state.items() if _is_trained(name, model)}
        names = argument_names(sorted(trained))
        self._variables = {names[name]: tf_variable(trained[name]) for name in names}
        self.all = model.all_variables()

    def signatures(self) -> Mapping[str, TracedFunction]:
        """Return every signature, traced."""
        model = self._model
        shape = model.network.row_shape
        x = float32_spec((model.batch_rows, *shape), "x")
        y = float32_spec((model.batch_rows, model.targets), "y")
        values = {name: tf.TensorSpec(v.shape, v.dtype, name) for name, v in self._variables.items()}
        return {
            "infer": trace(self._infer, float32_spec((1, *shape), "inputs")),
            "train": trace(self._train, *([x, y] if model.targets else [x])),
            "get": trace(self._get),
            "set": trace(self._set, **values),
        }

    def _infer(self, inputs: Tensor) -> NamedTensors:
        return dict(self._model.network.call(inputs))

    def _train(self, x: Tensor, y: Tensor | None = None) -> NamedTensors:
        targets = tf.zeros((self._model.batch_rows, 0)) if y is None else y
        return {"loss": tf.reduce_mean(self._model.learn(x, targets, observe=False))}

    def _get(self) -> NamedTensors:
        return {name: tf.identity(v) for name, v in self._variables.items()}

    def _set(self, **values: Tensor) -> NamedTensors:
        with tf.control_dependencies([v.assign(values[name]) for name, v in self._variables.items()]):
            return {"count": tf.constant(len(self._variables))}


def _is_trained(name: str, model: ExportableModel) -> bool:
    """Return whether `train` changes the variable: weights, batch statistics and optimizer state, but no scales."""
    learning = {id(v) for v in (*model.network.trainable_variables, *model.network.statistics())}
    return name.startswith(("optimizer/", "guard/")) or id(model.state[name]) in learning


def _convert_with_variables(converter: Converter) -> bytes:
    converter.experimental_enable_resource_variables = True
    return converter.convert()


def _missing_operators(message: str) -> list[str]:
    """Return the operators that a converter's error complains about.

    >>> _missing_operators("Flex ops: FlexReluGrad, FlexEluGrad\\nDetails: ...")
    ['EluGrad', 'ReluGrad']
    """
    lines = re.findall(r"(?:Flex|Select|Custom) ops: ([^\n]*)", message)
    return sorted({name.strip().removeprefix("Flex") for line in lines for name in line.split(",")})


@runtime_checkable
class _Activated(Protocol):
    """A layer with an activation function."""

    activation: Callable[[Tensor], Tensor]


@contextmanager
def _differentiable_relu(network: ExportableNetwork) -> Iterator[None]:
    """Replace relu by a product while the functions are traced: TensorFlow Lite has no gradient of relu."""
    relu = keras.activations.relu
    layers = [
        layer for layer in network.core._flatten_layers() if isinstance(layer, _Activated) and layer.activation is relu
    ]
    for layer in layers:
        layer.activation = _relu
    try:
        yield
    finally:
        for layer in layers:
            layer.activation = relu


@contextmanager
def _clipping_without_nan(optimizer: Optimizer) -> Iterator[None]:
    """Clip a gradient of 0 to 0 while the functions are traced.

    Keras divides by the gradient's norm. TensorFlow Lite computes 0 times the minimum of 1 / 0 and 1 / clipnorm as NaN,
    which would stay in the optimizer's slots. After one refused row, or one that fits exactly, the model would never
    learn again.
    """
    clip = optimizer._clip_gradients

    def clip_without_nan(gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [
            clipped if gradient is None else tf.where(tf.equal(gradient, 0.0), gradient, clipped)
            for gradient, clipped in zip(gradients, clip(gradients), strict=True)
        ]

    object.__setattr__(optimizer, "_clip_gradients", clip_without_nan)
    try:
        yield
    finally:
        object.__delattr__(optimizer, "_clip_gradients")


def _relu(z: Tensor) -> Tensor:
    positive: Tensor = tf.cast(z > 0, z.dtype)
    return z * positive
