"""`tf.train.Checkpoint` files of a Keras 3 model, with or without its optimizer."""

import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored
from learnd.models.stored.slots import ITERATION, attributed, unique_paths
from learnd.models.stored.training import AFRESH

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# A compiled model keeps these beside its layers; they are not the model's weights.
_BESIDE = frozenset({"optimizer", "_optimizer", "_loss_tracker", "_compile_metrics", "_compile_loss", "_metrics"})


def open_checkpoint(prefix: Path, model: Any) -> StoredModel:
    """The checkpoint *prefix* put into *model*; every variable of either is in both, and of the same shape.

    Raises
    ------
    ConfigError
        naming the variables that differ.
    """
    with refusing(f"{prefix} is not a whole TensorFlow checkpoint"):
        saved = _Saved(prefix)
    with refusing(f"{prefix} does not fit the model"):
        _compare(prefix, saved.variables(), _expected(model))
        restored = tf.train.Checkpoint(model=model) if saved.has_model else tf.train.Checkpoint(model)
        restored.read(str(prefix)).expect_partial()
        training = _training(saved, model)
    return stored(model, "TensorFlow checkpoint", training)


class _Saved:
    """The object graph of a checkpoint: which variable hangs where."""

    def __init__(self, prefix: Path) -> None:
        self._reader = tf.train.load_checkpoint(str(prefix))
        if not self._reader.has_tensor(_GRAPH):
            refuse(f"{prefix} is a checkpoint of TensorFlow 1, which names no objects; convert it with Keras")
        self._nodes = TrackableObjectGraph.FromString(self._reader.get_tensor(_GRAPH)).nodes
        self._shapes = self._reader.get_variable_to_shape_map()
        self.has_model = "model" in self._children(0)
        self._model = self._children(0)["model"] if self.has_model else 0

    def variables(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the model's variables, by the name and place that they were saved under."""
        return {f"{self._name(node)} ({place})": self._shape(node) for place, node in self._reachable()}

    def optimizer(self) -> tuple[list[Any], list[Any]]:
        """Names and values of the optimizer's variables, and names and shapes of those that it learns."""
        places = {**self._children(self._model), **self._children(0)}
        root = next((places[name] for name in ("optimizer", "_optimizer") if name in places), None)
        if root is None:
            return [], []
        own = [(self._name(node), self._value(node)) for node in self._listed(root, "_variables")]
        learned = [(self._name(node), self._shape(node)) for node in self._listed(root, "_trainable_variables")]
        return own, learned

    def _reachable(self) -> Iterator[tuple[str, int]]:
        queue, seen = deque([("", self._model)]), {self._model}
        while queue:
            place, node = queue.popleft()
            if self._attribute(node) is not None:
                yield place, node
            for name, child in sorted(self._children(node).items()):
                beside = node == self._model and name in (_BESIDE | {"save_counter"})
                if child not in seen and not beside:
                    seen.add(child)
                    queue.append((f"{place}/{name}" if place else name, child))

    def _listed(self, root: int, name: str) -> list[int]:
        container = self._children(root).get(name)
        if container is None:
            return []
        children = self._children(container)
        return [children[key] for key in sorted((k for k in children if k.isdigit()), key=int)]

    def _children(self, node: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in self._nodes[node].children}

    def _attribute(self, node: int) -> Any:
        return next((a for a in self._nodes[node].attributes if a.name == _VALUE), None)

    def _name(self, node: int) -> str:
        return str(self._attribute(node).full_name)

    def _shape(self, node: int) -> tuple[int, ...]:
        return tuple(self._shapes[self._attribute(node).checkpoint_key])

    def _value(self, node: int) -> np.ndarray:
        return np.asarray(self._reader.get_tensor(self._attribute(node).checkpoint_key))


def _expected(model: Any) -> dict[str, tuple[int, ...]]:
    """What a checkpoint of *model* holds; TensorFlow knows the places, so it is asked by writing one."""
    with tempfile.TemporaryDirectory() as folder:
        return _Saved(Path(tf.train.Checkpoint(model=model).write(f"{folder}/ours"))).variables()


def _compare(prefix: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """By place: the names before it are numbered afresh in each process."""
    theirs, ours = ({_place(key): (key, shape) for key, shape in side.items()} for side in (found, expected))
    wrong = []
    for place in sorted(theirs.keys() | ours.keys()):
        name, shape = theirs.get(place, (None, "absent"))
        own, wanted = ours.get(place, (None, "absent"))
        if shape != wanted:
            wrong.append(f"{name or own} is {shape} in the checkpoint and {wanted} in the model")
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        refuse(f"{prefix} does not fit the model: {'; '.join(wrong[:5])}{more}")


def _place(key: str) -> str:
    return key.rpartition(" (")[2]


def _training(saved: _Saved, model: Any) -> Training:
    own, learned = saved.optimizer()
    if not own:
        return Training(notes=("the checkpoint holds no optimizer state; it starts afresh",))
    variables = model.trainable_variables
    if [shape for _, shape in learned] != [tuple(v.shape) for v in variables]:
        return Training(notes=(f"{AFRESH}: the checkpoint's learned other variables than the model's",))
    paths = dict(zip((name for name, _ in learned), unique_paths(variables), strict=True))
    slots: dict[str, np.ndarray] = {}
    unknown = []
    for position, (full, value) in enumerate(own):
        name = full.rpartition("/")[2]
        if name == ITERATION:
            slots[ITERATION] = value
        elif name != "learning_rate":
            key = attributed(name, value.shape, dict(learned), set())
            if key is None:
                unknown.append(full)
                slots[f"optimizer/{position}"] = value
            else:
                path, _, slot = key.rpartition("/")
                slots[f"{paths[path]}/{slot}"] = value
    notes = ["a checkpoint does not say which optimizer made its state; configure the same one"]
    if unknown:
        notes.append(f"these optimizer variables belong to no weight and keep their position: {', '.join(unknown)}")
    return Training(None, slots, None, tuple(notes))
