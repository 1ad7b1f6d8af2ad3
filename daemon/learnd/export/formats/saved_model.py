"""TensorFlow SavedModel, for C++ programs, TensorFlow Serving and other Pythons to load, run and train further.

The folder contains no code of learnd or Keras. The signatures, by name:

``serving_default``
    from ``inputs``, raw rows in the order of the features, (n, *row_shape), to the outputs by name
``records``
    from one tensor per feature by its name, (n,) or (n, window), to the same outputs
``learn``
    from ``x``, like ``inputs``, and ``y`` of shape (n, targets) to ``loss``: takes one step of the daemon's own update,
    and returns the mean loss of the rows before the step. A class is given as its number, and must be known to the
    export. There is no ``y`` if the inputs are their own targets. NaN stands for the mean of a feature whose missing
    readings the daemon takes for it. No rows, or any other number that is not finite, are an error, and nothing is
    learned then.
``weights``
    from nothing to every variable by name
``save``, ``restore``
    from ``path``, a prefix, to the same: write and read everything that ``learn`` changes, as a checkpoint that
    `tf.train.load_checkpoint` reads
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf

from learnd.core.errors import ExportError
from learnd.core.tensors import Array, NamedTensors, Shape, Tensor
from learnd.core.types import Float32Array
from learnd.export import warmup
from learnd.export.exportable_model import ExportableModel, argument_names
from learnd.export.formats.tracing import TracedFunction, float32_spec, trace


class SavedModelFormat:
    """``saved_model/`` with every signature, for any number of rows, including the optimizer's slots."""

    file_name = "saved_model"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write *model* to the folder *target*."""
        module = LearningModule(model)
        tf.saved_model.save(module, str(target), signatures=module.signatures())
        warmup.write(target, model.examples, list(argument_names(model.features).values()))

    def reader(self, target: Path) -> "SavedModelReader":
        """Return the written model, loaded with TensorFlow only."""
        return SavedModelReader(target)


class LearningModule(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A model's functions and the TensorFlow variables that they use, in the form that `tf.saved_model.save` accepts.

    TensorFlow saves the network as generic objects, without code or configuration of Keras or learnd. The optimizer is
    not an attribute: the file needs only its variables, which are in `state`.
    """

    def __init__(self, model: ExportableModel) -> None:
        super().__init__(name="learnd")
        self._network = model.network
        self._learn_rows = model.learn
        self._arguments = list(argument_names(model.features).values())
        self._gaps = np.array(model.gaps, np.bool_)
        self._targets = model.targets
        self._classes = model.classes
        self._names, self.state = model.state_variables()
        self.all = model.all_variables()

    def signatures(self) -> Mapping[str, TracedFunction]:
        """Return every signature, traced."""
        row_shape = self._network.row_shape
        x = float32_spec((None, *row_shape), "x")
        y = [float32_spec((None, self._targets), "y")] if self._targets else []
        path = tf.TensorSpec((), tf.string, name="path")
        columns = {name: float32_spec((None, *row_shape[:-1]), name) for name in self._arguments}
        return {
            "serving_default": trace(self._serve, float32_spec((None, *row_shape), "inputs")),
            "records": trace(self._records, **columns),
            "learn": trace(self._learn if y else self._learn_inputs, x, *y),
            "weights": trace(self._weights),
            "save": trace(self._save, path),
            "restore": trace(self._restore, path),
        }

    def _serve(self, inputs: Tensor) -> NamedTensors:
        return dict(self._network.call(inputs))

    def _records(self, **columns: Tensor) -> NamedTensors:
        return dict(self._network.call(tf.stack([columns[name] for name in self._arguments], axis=-1)))

    def _learn(self, x: Tensor, y: Tensor) -> NamedTensors:
        gap = tf.constant(self._gaps) & tf.math.is_nan(x)
        # As in the daemon, a row needs one reading at least.
        axes = list(range(1, 1 + len(self._network.row_shape)))
        has_reading = tf.reduce_any(tf.math.is_finite(x), axis=axes, keepdims=True)
        present = tf.where(gap & has_reading, tf.zeros_like(x), x)
        # The update refuses such rows, but the scales observe them: one row that is not finite, or a batch without
        # rows, would make the scales NaN for good.
        checks = [
            tf.debugging.assert_positive(tf.shape(x)[0], message="x holds no row"),
            tf.debugging.assert_all_finite(present, "x holds a number that is not finite; nothing was learned"),
            tf.debugging.assert_all_finite(y, "y holds a number that is not finite; nothing was learned"),
        ]
        if self._classes is not None:
            message = (
                f"y holds a class number that this export does not know: it has {self._classes} classes, from 0 on"
            )
            numbers = tf.clip_by_value(tf.round(y), 0.0, self._classes - 1.0)
            checks.append(tf.debugging.assert_equal(y, numbers, message=message))
        with tf.control_dependencies(checks):
            return {"loss": tf.reduce_mean(self._learn_rows(tf.identity(x), tf.identity(y)))}

    def _learn_inputs(self, x: Tensor) -> NamedTensors:
        return self._learn(x, tf.zeros((tf.shape(x)[0], 0)))

    def _weights(self) -> NamedTensors:
        # An output name must not contain a colon; the names in a checkpoint contain none.
        return {name: tf.identity(variable) for name, variable in zip(self._names, self.state, strict=True)}

    def _save(self, path: Tensor) -> NamedTensors:
        slices = [""] * len(self._names)
        write = tf.raw_ops.SaveV2(
            prefix=path, tensor_names=self._names, shape_and_slices=slices, tensors=list(self.state)
        )
        # TensorFlow would silently prune the operation if no output depended on it.
        with tf.control_dependencies([write]):
            return {"path": tf.identity(path)}

    def _restore(self, path: Tensor) -> NamedTensors:
        values = tf.raw_ops.RestoreV2(
            prefix=path,
            tensor_names=self._names,
            shape_and_slices=[""] * len(self._names),
            dtypes=[variable.dtype for variable in self.state],
        )
        assignments = [
            variable.assign(tf.ensure_shape(value, variable.shape))
            for variable, value in zip(self.state, values, strict=True)
        ]
        with tf.control_dependencies(assignments):
            return {"path": tf.identity(path)}


class _LoadedModel(Protocol):
    """The member of a loaded SavedModel that is used here."""

    @property
    def signatures(self) -> Mapping[str, TracedFunction]: ...


class SavedModelReader:
    """Predicts with a SavedModel."""

    def __init__(self, target: Path) -> None:
        # The loaded object owns the variables of its signatures, so it must live as long as they do.
        self._loaded: _LoadedModel = tf.saved_model.load(str(target))
        self._signatures = self._loaded.signatures

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        answers = self._signatures["serving_default"](inputs=tf.constant(x))
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def check(self, x: Float32Array) -> None:
        """Raise ExportError unless one step gives a finite loss, and a saved state is restored bit by bit."""
        learn = self._signatures["learn"]
        arguments = {"x": tf.constant(x)}
        spec = learn.structured_input_signature[1].get("y")
        if spec is not None:
            arguments["y"] = self._targets(x, spec.shape)
        before = self._weights()
        with tempfile.TemporaryDirectory() as folder:
            path = tf.constant(str(Path(folder) / "state"))
            self._signatures["save"](path=path)
            loss = float(learn(**arguments)["loss"].numpy())
            if not np.isfinite(loss):
                raise ExportError(f"saved_model: learn returns the loss {loss} for recent inputs")
            self._signatures["restore"](path=path)
        changed = [name for name, value in self._weights().items() if value.tobytes() != before[name].tobytes()]
        if changed:
            raise ExportError(f"saved_model: restore does not bring back {', '.join(changed)}")

    def _targets(self, x: Float32Array, shape: Shape) -> Tensor:
        """Return targets for which any loss is finite: the model's own predictions, or else the first class."""
        predictions: Tensor | None = self._signatures["serving_default"](inputs=tf.constant(x)).get("prediction")
        if predictions is not None:
            return predictions
        first_class: Tensor = tf.zeros((len(x), *tuple(shape)[1:]))
        return first_class

    def _weights(self) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in self._signatures["weights"]().items()}
