"""Reader of Keras' HDF5 files: whole models and weights alone, of Keras 3 and Keras 2."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import h5py
import keras
import numpy as np

from learnd.core.tensors import Array, KerasModel, Layer, Variable
from learnd.models.stored.architecture import model_of_config, read_json
from learnd.models.stored.custom import custom_code
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored_model
from learnd.models.stored.safety import lambdas_allowed
from learnd.models.stored.slots import unique_paths
from learnd.models.stored.training import (
    AFRESH,
    keras2_slots_by_name,
    keras2_training,
    keras3_training,
    with_slots,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""First bytes of an HDF5 file."""
_NO_OPTIMIZER = f"{AFRESH}: a file of weights does not name the optimizer that made them"
# Groups of a compiled model that are not its layers.
_NOT_LAYERS = ("optimizer", "metrics", "_metrics", "_compile_metrics", "_compile_loss", "_loss_tracker")

Build: TypeAlias = Callable[[], KerasModel]
"""A function that builds a model with fresh weights."""
_Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
_CompileConfig: TypeAlias = Mapping[str, Any] | None


class Group(Protocol):
    """An HDF5 group: a mapping of names to groups and arrays, with attributes."""

    @property
    def attrs(self) -> Mapping[str, Any]: ...

    def get(self, name: str, /) -> "Group | None": ...

    def visititems(self, visit: Callable[[str, object], None], /) -> object: ...

    def __getitem__(self, name: str, /) -> "Group": ...

    def __contains__(self, name: str, /) -> bool: ...

    def __iter__(self) -> Iterator[str]: ...


@contextmanager
def hdf5_file(source: Path | IO[bytes], name: str) -> Iterator[Group]:
    """Open the HDF5 file in *source* for reading. Messages call it *name*."""
    with refusing(f"{name} is not a complete HDF5 file"):
        file = h5py.File(source, "r")
    with file:
        yield file


def open_hdf5(path: Path, code: Sequence[str], allow_lambda: Sequence[str], architecture: Build | None) -> StoredModel:
    """Return the model that Keras wrote into the HDF5 file *path*.

    *architecture* builds the model if the file holds only weights.

    Raises
    ------
    ConfigError
        if Keras did not write the file, the weights do not fit, or code in it is not allowed.
    """
    with hdf5_file(path, str(path)) as file, refusing(f"{path} is not an HDF5 file that Keras wrote"):
        if "model_config" in file.attrs:
            return _whole_model(path, file, code, allow_lambda)
        if "layer_names" in file.attrs:
            model = build_architecture(path, architecture)
            notes = _assign_by_layer(path, file, model)[1]
            return stored_model(model, "HDF5 weights by layer", Training(notes=(_NO_OPTIMIZER,)), *notes)
        if "layers" in file or "vars" in file or "_layer_checkpoint_dependencies" in file:
            model = build_architecture(path, architecture)
            assign_saved_state(path, path, model)
            return stored_model(model, "HDF5 weights", Training(notes=(_NO_OPTIMIZER,)))
    return refuse(f"{path} is an HDF5 file, but not one that Keras wrote")


def build_architecture(path: Path, architecture: Build | None) -> KerasModel:
    """Return the model that *architecture* builds for the weights in *path*.

    Raises
    ------
    ConfigError
        if *architecture* is None.
    """
    if architecture is None:
        refuse(
            f"{path} holds weights without an architecture; name the JSON file that model.to_json() writes in"
            " model.architecture, or choose a built-in model.kind, or kind: factory"
        )
    return architecture()


def assign_saved_state(path: Path, file: Path | IO[bytes], model: KerasModel) -> None:
    """Assign the weights in *file*, written by `save_weights`, to *model*. Messages call the file *path*.

    Every weight must be both in the file and in the model, with the same shape.

    Raises
    ------
    ConfigError
        with the names of the weights that differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        # What Keras would write for this model: only Keras knows how it names the weights.
        ours = Path(folder) / "ours.weights.h5"
        model.save_weights(ours)
        with hdf5_file(ours, str(ours)) as our_file, hdf5_file(file, str(path)) as their_file:
            _require_same_shapes(path, _dataset_shapes(their_file), _dataset_shapes(our_file))
        theirs = Path(folder) / "theirs.weights.h5"
        if isinstance(file, Path):
            theirs.symlink_to(file.resolve())
        else:
            file.seek(0)
            theirs.write_bytes(file.read())
        with refusing(f"{path}: its weights do not fit"):
            model.load_weights(theirs)


def optimizer_arrays(file: Group) -> dict[str, Array]:
    """Return the optimizer's variables by position from an archive's weights; empty if there are none."""
    group = file.get("optimizer/vars")
    return {} if group is None else {name: np.asarray(group[name]) for name in group}


def _dataset_shapes(file: Group) -> _Shapes:
    shapes: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and name.partition("/")[0] not in _NOT_LAYERS:
            shapes[name] = tuple(item.shape)

    file.visititems(visit)
    return shapes


def _require_same_shapes(path: Path, in_file: _Shapes, in_model: _Shapes) -> None:
    differences = [
        f"{name} is {in_file.get(name, 'absent')} in the file and {in_model.get(name, 'absent')} in the model"
        for name in sorted(in_file.keys() | in_model.keys())
        if in_file.get(name) != in_model.get(name)
    ]
    if differences:
        more = f", and {len(differences) - 5} more" if len(differences) > 5 else ""
        refuse(f"{path} does not fit the model: {'; '.join(differences[:5])}{more}")


def _whole_model(path: Path, file: Group, code: Sequence[str], allow_lambda: Sequence[str]) -> StoredModel:
    config = read_json(path, file.attrs["model_config"], "its architecture")
    if "model_weights" not in file:
        refuse(f"{path} describes a model but holds no weights")
    text = file.attrs.get("training_config")
    compiled = None if text is None else read_json(path, text, "its training configuration")
    if _text(file.attrs.get("keras_version", "2")).startswith("3"):
        safe_mode = not lambdas_allowed(path, config, allow_lambda)
        with custom_code(code):
            model = _load_with_keras(path, safe_mode=safe_mode)
            return stored_model(model, "HDF5 model of Keras 3", _keras3_training(compiled, file, model))
    model = model_of_config(path, config, code, allow_lambda)
    paths, notes = _assign_by_layer(path, file["model_weights"], model)
    with custom_code(code):
        return stored_model(model, "HDF5 model of Keras 2", _keras2_training(compiled, file, paths), *notes)


def _load_with_keras(path: Path, *, safe_mode: bool) -> KerasModel:
    """Return the model in *path*. Keras recognises formats by the suffix, which the user's file may lack."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "model.h5"
        link.symlink_to(path.resolve())
        model: KerasModel = keras.saving.load_model(link, compile=False, safe_mode=safe_mode)
        return model


def _keras3_training(compiled: _CompileConfig, file: Group, model: KerasModel) -> Training:
    if compiled and "optimizer_config" in compiled:
        compiled = {**compiled, "optimizer": compiled["optimizer_config"]}
    values = {str(i): value for i, value in enumerate(_optimizer_weights(file).values())}
    return keras3_training(compiled, values, model.trainable_variables)


def _keras2_training(compiled: _CompileConfig, file: Group, paths: Mapping[str, str]) -> Training:
    training = keras2_training(compiled)
    values = _optimizer_weights(file)
    if training.optimizer is None or not values:
        return with_slots(training, {}, "the file holds no optimizer state")
    return with_slots(training, *keras2_slots_by_name(training.optimizer, values, paths))


def _optimizer_weights(file: Group) -> dict[str, Array]:
    group = file.get("optimizer_weights")
    return {} if group is None else {name: np.asarray(group[name]) for name in _names(group, "weight_names")}


def _assign_by_layer(path: Path, group: Group, model: KerasModel) -> tuple[dict[str, str], list[str]]:
    """Assign the weights of the format of Keras 2, which lists them by layer, to *model*.

    Every layer and weight must be both in the file and in the model. Returns Keras 3's paths by the file's names
    without ``:0``, and notes.
    """
    saved = {name: _names(group[name], "weight_names") for name in _names(group, "layer_names")}
    saved = {name: weights for name, weights in saved.items() if weights}
    layers = {layer.name: layer for layer in model.layers if _weights(layer)}
    notes = []
    if saved.keys() == layers.keys():
        pairs = [(name, layers[name]) for name in saved]
    elif len(saved) == len(layers):
        # Keras numbers the layers without a name, and continues to count from model to model.
        pairs = list(zip(saved, layers.values(), strict=True))
        renamed = ", ".join(f"{name} as {layer.name}" for name, layer in pairs if name != layer.name)
        notes.append(f"layers were matched by their order, because their names differ: {renamed}")
    else:
        refuse(f"{path} has weights for the layers {', '.join(saved)}; the model has {', '.join(layers)}")
    paths = dict(zip(map(id, model.variables), unique_paths(model.variables), strict=True))
    assigned: dict[str, str] = {}
    for name, layer in pairs:
        assigned.update(_assign_layer(path, group[name], name, layer, paths))
    top = _names(group["top_level_model_weights"], "weight_names") if "top_level_model_weights" in group else []
    if top:
        refuse(
            f"{path} has weights outside of its layers ({', '.join(top)}), which only the model's own class can read;"
            " save the whole model as .keras and name the class in model.code"
        )
    return assigned, notes


def _assign_layer(path: Path, group: Group, name: str, layer: Layer, paths: Mapping[int, str]) -> dict[str, str]:
    """Assign the weights in *group* to *layer*. Returns the paths, by id in *paths*, by the file's names."""
    names, weights = _names(group, "weight_names"), _weights(layer)
    if len(names) != len(weights):
        theirs, ours = ", ".join(names), ", ".join(weight.path for weight in weights)
        refuse(f"{path}: the layer {name} has the weights {theirs}; in the model it has {ours}")
    assigned = {}
    for saved, weight in zip(names, weights, strict=True):
        plain, value = saved.partition(":")[0], np.asarray(group[saved])
        same = plain.rpartition("/")[2] == weight.name and tuple(value.shape) == tuple(weight.shape)
        if not same:
            ours = f"{weight.path} {tuple(weight.shape)}"
            refuse(f"{path}: in the layer {name}, {saved} {value.shape} does not fit the model's {ours}")
        weight.assign(value)
        assigned[plain] = paths[id(weight)]
    return assigned


def _weights(layer: Layer) -> list[Variable]:
    """Return the weights of *layer* in the order of the format of Keras 2."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _names(group: Group, attribute: str) -> list[str]:
    """Return a list of names. A list that is too long for one attribute is stored in numbered pieces."""
    pieces = [attribute] if attribute in group.attrs else _pieces(group, attribute)
    return [_text(name) for piece in pieces for name in group.attrs[piece]]


def _pieces(group: Group, attribute: str) -> list[str]:
    pieces: list[str] = []
    while f"{attribute}{len(pieces)}" in group.attrs:
        pieces.append(f"{attribute}{len(pieces)}")
    return pieces


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
