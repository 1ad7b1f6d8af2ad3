"""TensorFlow Lite that trains: a device goes on learning with the interpreter it has, on built-in operators alone."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from learnd.core.errors import ExportError, FormatUnavailableError
from learnd.core.types import Float32Array
from learnd.export.exportable_model import Candidate, argument_names, raw
from learnd.export.formats.litert import TFLiteReader
from learnd.export.formats.tflite import converted


class TrainingFormat:
    """``model_training.tflite``: signatures ``infer``, ``train``, ``get`` and ``set``.

    ``infer`` answers as ``serving_default`` does. ``train`` takes ``x``, (rows, *row_shape), and ``y``,
    (rows, targets), where ``rows`` is what one update of the daemon has, takes one step, and returns the ``loss`` from
    before. ``get`` returns all that `train` changes, optimizer included, by name; ``set`` takes the same. The scales of
    inputs and targets stay as they are: TensorFlow Lite has no float64 to go on with their moments.
    """

    file_name = "model_training.tflite"
    unroll = True
    tolerance: ClassVar[float | None] = None

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the file *target*.

        Raises
        ------
        FormatUnavailableError
            if the model's gradients need operators that TensorFlow Lite does not have, with their names.
        """
        module = _TrainingModule(candidate)
        try:
            with _simple_activations(candidate.network), _clipping_of_nothing(candidate.optimizer):
                signatures = module.signatures()
                written = converted(target.parent, module, signatures, _with_variables)
        except Exception as error:
            missing = _operators(str(error))
            if not missing:
                raise
            raise FormatUnavailableError(f"TensorFlow Lite has no built-in operator {', '.join(missing)}") from error
        target.write_bytes(written)

    def reader(self, target: Path) -> "TrainingReader":
        """The written model, run by the interpreter that edge devices use."""
        return TrainingReader(target)


class TrainingReader(TFLiteReader):
    """Answers from a file that trains."""

    def check(self, x: Float32Array) -> None:
        """Make sure that it learns: a step is finite and changes the weights, and ``set`` takes it back.

        Raises
        ------
        ExportError
            if not.
        """
        train, get, put = map(self.interpreter.get_signature_runner, ("train", "get", "set"))
        shapes = {name: detail["shape"] for name, detail in train.get_input_details().items()}
        rows = np.resize(x, shapes["x"]).astype(np.float32)
        before = {name: np.copy(value) for name, value in get().items()}
        loss = float(
            train(x=rows, **{name: np.zeros(shapes[name], np.float32) for name in shapes if name != "x"})["loss"]
        )
        after = get()
        if not np.isfinite(loss) or not all(np.isfinite(value).all() for value in after.values()):
            raise ExportError(f"tflite_training: train answers with the loss {loss} on recent inputs")
        if all(np.array_equal(value, before[name]) for name, value in after.items()):
            raise ExportError("tflite_training: train changes nothing")
        put(**before)
        if not all(np.array_equal(value, before[name]) for name, value in get().items()):
            raise ExportError("tflite_training: set does not bring back what get gave")


class _TrainingModule(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """The functions, each of a fixed number of rows: a dynamic one has operators that TensorFlow Lite lacks."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(name="learnd")
        self._candidate = candidate
        trained = {name: v for name, v in candidate.state.items() if _is_trained(name, candidate)}
        names = argument_names(sorted(trained))
        self._named = {names[name]: raw(trained[name]) for name in names}
        self.all = candidate.every_variable()

    def signatures(self) -> Mapping[str, Any]:
        """Every signature, traced."""
        candidate = self._candidate
        shape = candidate.network.row_shape
        x = tf.TensorSpec((candidate.batch_rows, *shape), tf.float32, name="x")
        y = tf.TensorSpec((candidate.batch_rows, candidate.targets), tf.float32, name="y")
        one = tf.TensorSpec((1, *shape), tf.float32, name="inputs")
        values = {name: tf.TensorSpec(v.shape, v.dtype, name) for name, v in self._named.items()}
        return {
            "infer": _function(self._infer).get_concrete_function(one),
            "train": _function(self._train).get_concrete_function(*([x, y] if candidate.targets else [x])),
            "get": _function(self._get).get_concrete_function(),
            "set": _function(self._set).get_concrete_function(**values),
        }

    def _infer(self, inputs: Any) -> Any:
        return dict(self._candidate.network.call(inputs))

    def _train(self, x: Any, y: Any = None) -> Any:
        if y is None:
            y = tf.zeros((self._candidate.batch_rows, 0))
        return {"loss": tf.reduce_mean(self._candidate.learn(x, y, observe=False))}

    def _get(self) -> Any:
        return {name: tf.identity(v) for name, v in self._named.items()}

    def _set(self, **values: Any) -> Any:
        with tf.control_dependencies([v.assign(values[name]) for name, v in self._named.items()]):
            return {"count": tf.constant(len(self._named))}


def _is_trained(name: str, candidate: Candidate) -> bool:
    """Whether `train` changes it: weights, batch statistics and the optimizer's state, but no scales."""
    learning = {id(v) for v in (*candidate.network.trainable_variables, *candidate.network.statistics())}
    return name.startswith(("optimizer/", "guard/")) or id(candidate.state[name]) in learning


def _with_variables(converter: Any) -> bytes:
    converter.experimental_enable_resource_variables = True
    written: bytes = converter.convert()
    return written


def _operators(said: str) -> list[str]:
    """The operators that a converter's error complains of.

    >>> _operators("Flex ops: FlexReluGrad, FlexEluGrad\\nDetails: ...")
    ['EluGrad', 'ReluGrad']
    """
    named = [word for line in re.findall(r"(?:Flex|Select|Custom) ops: ([^\n]*)", said) for word in line.split(",")]
    return sorted({name.strip().removeprefix("Flex") for name in named})


@contextmanager
def _simple_activations(network: Any) -> Iterator[None]:
    """While tracing: relu as a product, since TensorFlow Lite has no gradient of it."""
    layers = [layer for layer in network.core._flatten_layers() if getattr(layer, "activation", None) is not None]
    changed = [layer for layer in layers if layer.activation is keras.activations.relu]
    for layer in changed:
        layer.activation = _relu
    try:
        yield
    finally:
        for layer in changed:
            layer.activation = keras.activations.relu


@contextmanager
def _clipping_of_nothing(optimizer: Any) -> Iterator[None]:
    """While tracing: a gradient of 0 is clipped to 0.

    Keras divides by the norm. TensorFlow Lite answers 0 times the least of 1 / 0 and 1 / clipnorm with what is no
    number, and the optimizer's slots would stay so: after one refused row, or one that fits exactly, it never learns.
    """
    clip = optimizer._clip_gradients

    def clipped(gradients: Any) -> Any:
        return [
            after if before is None else tf.where(tf.equal(before, 0.0), before, after)
            for before, after in zip(gradients, clip(gradients), strict=True)
        ]

    object.__setattr__(optimizer, "_clip_gradients", clipped)
    try:
        yield
    finally:
        object.__delattr__(optimizer, "_clip_gradients")


def _relu(z: Any) -> Any:
    return z * tf.cast(z > 0, z.dtype)


def _function(python: Any) -> Any:
    return tf.function(python, autograph=False)
