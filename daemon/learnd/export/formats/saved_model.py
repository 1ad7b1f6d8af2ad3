"""TensorFlow SavedModel: what C++ programs, TensorFlow Serving and other Pythons load, run, and go on training.

Nothing of our code goes along, nor of Keras'. The signatures, by name:

``serving_default``
    ``inputs``, raw rows in the order of the features, (n, *row_shape), to the outputs by name
``records``
    one tensor per feature by its name, (n,) or (n, window), to the same outputs
``learn``
    ``x`` as ``inputs``, ``y`` of shape (n, targets), to ``loss``, the mean over the rows before the step: one step of
    the daemon's own update. A class is its number, one that the export knows. Where the inputs are their own targets
    there is no ``y``. No rows, or a number that is not finite, are an error, and nothing is learned.
``weights``
    nothing, to every variable by name
``save``, ``restore``
    ``path``, a prefix, to the same: all that `learn` changes, as a checkpoint that `tf.train.load_checkpoint` reads
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from learnd.core.errors import ExportError
from learnd.core.types import Float32Array
from learnd.export import warmup
from learnd.export.exportable_model import Candidate, argument_names


class SavedModelFormat:
    """``saved_model/``: every signature, any number of rows, the optimizer's slots inside."""

    file_name = "saved_model"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the folder *target*."""
        module = LearningModule(candidate)
        tf.saved_model.save(module, str(target), signatures=module.signatures())
        warmup.write(target, candidate.examples, list(argument_names(candidate.features).values()))

    def reader(self, target: Path) -> "SavedModelReader":
        """The written model, loaded back with nothing but TensorFlow."""
        return SavedModelReader(target)


class LearningModule(tf.Module):  # type: ignore[misc]  # TensorFlow has no types
    """A candidate's functions beside the raw variables that they work on, as `tf.saved_model.save` takes them.

    A Keras layer or optimizer in the module would drag its configuration, and so our classes, into the file.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(name="learnd")
        self._network = candidate.network
        self._learn = candidate.learn
        self._names = argument_names(candidate.features)
        self._targets = candidate.targets
        self._classes = candidate.classes
        self._saved, self.state = candidate.changing()
        self.all = candidate.every_variable()

    def signatures(self) -> Mapping[str, Any]:
        """Every signature, traced."""
        row_shape = self._network.row_shape
        x = tf.TensorSpec((None, *row_shape), tf.float32, name="x")
        y = [tf.TensorSpec((None, self._targets), tf.float32, name="y")] if self._targets else []
        path = tf.TensorSpec((), tf.string, name="path")
        columns = {name: tf.TensorSpec((None, *row_shape[:-1]), tf.float32, name=name) for name in self._names.values()}
        return {
            "serving_default": _function(self._serve).get_concrete_function(
                tf.TensorSpec(x.shape, tf.float32, name="inputs")
            ),
            "records": _function(self._records).get_concrete_function(**columns),
            "learn": _function(self._step if y else self._step_on_inputs).get_concrete_function(x, *y),
            "weights": _function(self._weights).get_concrete_function(),
            "save": _function(self._save).get_concrete_function(path),
            "restore": _function(self._restore).get_concrete_function(path),
        }

    def _serve(self, inputs: Any) -> Any:
        return dict(self._network.call(inputs))

    def _records(self, **columns: Any) -> Any:
        return dict(self._network.call(tf.stack([columns[name] for name in self._names.values()], axis=-1)))

    def _step(self, x: Any, y: Any) -> Any:
        # Scales take in what the update then refuses: one row that is not finite, or none, would make them so for good.
        checks = [
            tf.debugging.assert_positive(tf.shape(x)[0], message="x holds no row"),
            tf.debugging.assert_all_finite(x, "x holds a number that is not finite; nothing was learned"),
            tf.debugging.assert_all_finite(y, "y holds a number that is not finite; nothing was learned"),
        ]
        if self._classes is not None:
            message = (
                f"y holds a class number that this export does not know: it has {self._classes} classes, from 0 on"
            )
            numbers = tf.clip_by_value(tf.round(y), 0.0, self._classes - 1.0)
            checks.append(tf.debugging.assert_equal(y, numbers, message=message))
        with tf.control_dependencies(checks):
            return {"loss": tf.reduce_mean(self._learn(tf.identity(x), tf.identity(y)))}

    def _step_on_inputs(self, x: Any) -> Any:
        return self._step(x, tf.zeros((tf.shape(x)[0], 0)))

    def _weights(self) -> Any:
        # Output names may hold no colon; a checkpoint's names have none.
        return {name: tf.identity(variable) for name, variable in zip(self._saved, self.state, strict=True)}

    def _save(self, path: Any) -> Any:
        slices = [""] * len(self._saved)
        write = tf.raw_ops.SaveV2(
            prefix=path, tensor_names=self._saved, shape_and_slices=slices, tensors=list(self.state)
        )
        # Without an output that waits for it the operation would be pruned in silence.
        with tf.control_dependencies([write]):
            return {"path": tf.identity(path)}

    def _restore(self, path: Any) -> Any:
        read = tf.raw_ops.RestoreV2(
            prefix=path,
            tensor_names=self._saved,
            shape_and_slices=[""] * len(self._saved),
            dtypes=[variable.dtype for variable in self.state],
        )
        assignments = [
            variable.assign(tf.ensure_shape(value, variable.shape))
            for variable, value in zip(self.state, read, strict=True)
        ]
        with tf.control_dependencies(assignments):
            return {"path": tf.identity(path)}


class SavedModelReader:
    """Answers from a SavedModel on disk."""

    def __init__(self, target: Path) -> None:
        # The loaded object owns the signature's variables; it must live as long as the signature.
        self._loaded = tf.saved_model.load(str(target))
        self._signatures = self._loaded.signatures

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        answers = self._signatures["serving_default"](inputs=tf.constant(x))
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def check(self, x: Float32Array) -> None:
        """Make sure that it learns: a step is finite, and a state that was saved comes back bit by bit.

        Raises
        ------
        ExportError
            if not.
        """
        learn = self._signatures["learn"]
        arguments = {"x": tf.constant(x)}
        spec = learn.structured_input_signature[1].get("y")
        if spec is not None:
            arguments["y"] = self._targets(x, spec.shape)
        before = self._weights()
        with tempfile.TemporaryDirectory() as folder:
            path = tf.constant(str(Path(folder) / "state"))
            self._signatures["save"](path=path)
            loss = float(learn(**arguments)["loss"])
            if not np.isfinite(loss):
                raise ExportError(f"saved_model: learn answers with the loss {loss} on recent inputs")
            self._signatures["restore"](path=path)
        changed = [name for name, value in self._weights().items() if value.tobytes() != before[name].tobytes()]
        if changed:
            raise ExportError(f"saved_model: restore does not bring back {', '.join(changed)}")

    def _targets(self, x: Float32Array, shape: Any) -> Any:
        """Such that any loss is finite: what the model says itself, or the first class."""
        said = self._signatures["serving_default"](inputs=tf.constant(x)).get("prediction")
        return tf.zeros((len(x), *shape[1:])) if said is None else said

    def _weights(self) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in self._signatures["weights"]().items()}


def save_with_signature(network: Any, target: Path, *, batch: int | None) -> None:
    """Save *network*'s serving function alone, with the variables that it reads, for converters."""
    module = tf.Module()
    module.weights = [variable.value for variable in network.served_state()]
    spec = tf.TensorSpec((batch, *network.row_shape), tf.float32, name="inputs")
    module.serve = tf.function(lambda inputs: dict(network.call(inputs)), autograph=False, input_signature=[spec])
    tf.saved_model.save(module, str(target), signatures={"serving_default": module.serve})


def _function(python: Any) -> Any:
    return tf.function(python, autograph=False)
