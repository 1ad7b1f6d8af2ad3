"""Reader of `tf.train.Checkpoint` files of a Keras 3 model, with or without its optimizer."""

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from learnd.core.tensors import Array, KerasModel
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored_model
from learnd.models.stored.slots import ITERATION, slot_key, unique_paths
from learnd.models.stored.training import AFRESH

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# Children of a compiled model that are not its layers, and so hold none of its weights.
_NOT_LAYERS = frozenset(
    {"optimizer", "_optimizer", "_loss_tracker", "_compile_metrics", "_compile_loss", "_metrics", "save_counter"}
)

_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


class _Attribute(Protocol):
    """A tensor that belongs to an object of the checkpoint."""

    full_name: str
    checkpoint_key: str


def open_checkpoint(prefix: Path, model: KerasModel) -> StoredModel:
    """Read the checkpoint *prefix* into *model* and return it.

    Every variable must be both in the checkpoint and in the model, with the same shape.

    Raises
    ------
    ConfigError
        with the names of the variables that differ.
    """
    with refusing(f"{prefix} is not a complete TensorFlow checkpoint"):
        checkpoint = _Checkpoint(prefix)
    with refusing(f"{prefix} does not fit the model"):
        _require_same_variables(prefix, checkpoint.variables(), _expected_variables(model))
        reader = tf.train.Checkpoint(model=model) if checkpoint.has_model else tf.train.Checkpoint(model)
        reader.read(str(prefix)).expect_partial()
        training = _training(checkpoint, model)
    return stored_model(model, "TensorFlow checkpoint", training)


class _Checkpoint:
    """The object graph of a checkpoint: which variable belongs to which object."""

    def __init__(self, prefix: Path) -> None:
        self._reader = tf.train.load_checkpoint(str(prefix))
        if not self._reader.has_tensor(_GRAPH):
            refuse(f"{prefix} is a checkpoint of TensorFlow 1, which has no object graph; convert it with Keras")
        self._nodes = TrackableObjectGraph.FromString(self._reader.get_tensor(_GRAPH)).nodes
        self._shapes = self._reader.get_variable_to_shape_map()
        self.has_model = "model" in self._children(0)
        self._model = self._children(0)["model"] if self.has_model else 0

    def variables(self) -> _Shapes:
        """Return the shapes of the model's variables by ``name (place)``, as they were saved."""
        return {f"{self._name(node)} ({place})": self._shape(node) for place, node in self._model_variables()}

    def optimizer(self) -> tuple[list[tuple[str, Array]], list[tuple[str, tuple[int, ...]]]]:
        """Return names and values of the optimizer's variables, and names and shapes of those that it trains."""
        places = {**self._children(self._model), **self._children(0)}
        root = next((places[name] for name in ("optimizer", "_optimizer") if name in places), None)
        if root is None:
            return [], []
        own = [(self._name(node), self._value(node)) for node in self._list_items(root, "_variables")]
        trained = [(self._name(node), self._shape(node)) for node in self._list_items(root, "_trainable_variables")]
        return own, trained

    def _model_variables(self) -> Iterator[tuple[str, int]]:
        """Yield the place and the node of every variable of the model, breadth first."""
        queue, seen = deque([("", self._model)]), {self._model}
        while queue:
            place, node = queue.popleft()
            if self._attribute(node) is not None:
                yield place, node
            for name, child in sorted(self._children(node).items()):
                if child not in seen and not (node == self._model and name in _NOT_LAYERS):
                    seen.add(child)
                    queue.append((f"{place}/{name}" if place else name, child))

    def _list_items(self, root: int, name: str) -> list[int]:
        container = self._children(root).get(name)
        if container is None:
            return []
        children = self._children(container)
        return [children[key] for key in sorted((k for k in children if k.isdigit()), key=int)]

    def _children(self, node: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in self._nodes[node].children}

    def _attribute(self, node: int) -> _Attribute | None:
        return next((a for a in self._nodes[node].attributes if a.name == _VALUE), None)

    def _require_attribute(self, node: int) -> _Attribute:
        attribute = self._attribute(node)
        assert attribute is not None
        return attribute

    def _name(self, node: int) -> str:
        return str(self._require_attribute(node).full_name)

    def _shape(self, node: int) -> tuple[int, ...]:
        return tuple(self._shapes[self._require_attribute(node).checkpoint_key])

    def _value(self, node: int) -> Array:
        return np.asarray(self._reader.get_tensor(self._require_attribute(node).checkpoint_key))


def _expected_variables(model: KerasModel) -> _Shapes:
    """Return the variables of a checkpoint of *model*. Only TensorFlow knows their places, so it writes one."""
    with tempfile.TemporaryDirectory() as folder:
        return _Checkpoint(Path(tf.train.Checkpoint(model=model).write(f"{folder}/ours"))).variables()


def _require_same_variables(prefix: Path, in_file: _Shapes, in_model: _Shapes) -> None:
    """Compare the variables by place, because each process numbers the names differently.

    Raises
    ------
    ConfigError
        with up to five of the variables that differ.
    """
    theirs, ours = ({_place(key): (key, shape) for key, shape in side.items()} for side in (in_file, in_model))
    differences = []
    for place in sorted(theirs.keys() | ours.keys()):
        their_name, their_shape = theirs.get(place, (None, "absent"))
        our_name, our_shape = ours.get(place, (None, "absent"))
        if their_shape != our_shape:
            differences.append(f"{their_name or our_name} is {their_shape} in the checkpoint, {our_shape} in the model")
    if differences:
        more = f", and {len(differences) - 5} more" if len(differences) > 5 else ""
        refuse(f"{prefix} does not fit the model: {'; '.join(differences[:5])}{more}")


def _place(key: str) -> str:
    return key.rpartition(" (")[2]


def _training(checkpoint: _Checkpoint, model: KerasModel) -> Training:
    own, trained = checkpoint.optimizer()
    if not own:
        return Training(notes=(f"{AFRESH}: the checkpoint holds no optimizer state",))
    variables = model.trainable_variables
    if [shape for _, shape in trained] != [tuple(v.shape) for v in variables]:
        return Training(notes=(f"{AFRESH}: the checkpoint's optimizer trained other variables than the model has",))
    paths = dict(zip((name for name, _ in trained), unique_paths(variables), strict=True))
    slots: dict[str, Array] = {}
    unknown = []
    for position, (full_name, value) in enumerate(own):
        name = full_name.rpartition("/")[2]
        if name == ITERATION:
            slots[ITERATION] = value
        elif name != "learning_rate":
            key = slot_key(name, value.shape, dict(trained), set())
            if key is None:
                unknown.append(full_name)
                slots[f"optimizer/{position}"] = value
            else:
                path, _, slot = key.rpartition("/")
                slots[f"{paths[path]}/{slot}"] = value
    notes = ["the checkpoint does not name the optimizer of its state; configure the same one in learning.optimizer"]
    if unknown:
        names = ", ".join(unknown)
        notes.append(f"these optimizer variables belong to no weight and are restored by their position: {names}")
    return Training(None, slots, None, tuple(notes))
