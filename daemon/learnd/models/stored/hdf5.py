"""HDF5 files of Keras: whole models and weights, of Keras 3 and Keras 2."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from learnd.models.stored.architecture import model_of_config, read_json
from learnd.models.stored.custom import known
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored
from learnd.models.stored.safety import lambdas_allowed
from learnd.models.stored.slots import unique_paths
from learnd.models.stored.training import (
    keras2_slots_by_name,
    keras2_training,
    keras3_training,
    with_slots,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
NO_OPTIMIZER = "a file of weights does not say which optimizer made them; it starts afresh"
# What a compiled model keeps beside its layers.
_NOT_WEIGHTS = ("optimizer", "metrics", "_metrics", "_compile_metrics", "_compile_loss", "_loss_tracker")


@contextmanager
def opened(source: Any, name: str) -> Iterator[Any]:
    """The HDF5 file in *source* (a path or a file object)."""
    with refusing(f"{name} is not a whole HDF5 file"):
        file = h5py.File(source, "r")
    with file:
        yield file


def open_hdf5(
    path: Path, code: Sequence[str], allow_lambda: Sequence[str], architecture: Callable[[], Any] | None
) -> StoredModel:
    """Whatever Keras wrote into the HDF5 file *path*; *architecture* builds the model that a file of weights is for."""
    with opened(path, str(path)) as file, refusing(f"{path} is not an HDF5 file that Keras wrote"):
        if "model_config" in file.attrs:
            return _whole_model(path, file, code, allow_lambda)
        if "layer_names" in file.attrs:
            model = wanted(path, architecture)
            notes = _assign_by_layer(path, file, model)[1]
            return stored(model, "HDF5 weights by layer", Training(notes=(NO_OPTIMIZER,)), *notes)
        if "layers" in file or "vars" in file or "_layer_checkpoint_dependencies" in file:
            model = wanted(path, architecture)
            assign_saved_state(path, path, model)
            return stored(model, "HDF5 weights", Training(notes=(NO_OPTIMIZER,)))
    return refuse(f"{path} is an HDF5 file, but not one that Keras wrote")


def wanted(path: Path, architecture: Callable[[], Any] | None) -> Any:
    """The model that *architecture* builds; a `ConfigError` where there is none."""
    if architecture is None:
        refuse(
            f"{path} holds weights alone; say which model they belong to: model.architecture names the JSON that"
            " model.to_json() writes, or choose a built-in model.kind, or kind: factory"
        )
    return architecture()


def assign_saved_state(path: Path, file: Any, model: Any) -> None:
    """Give *model* the weights in *file*, of `save_weights`; every weight is in both and of the same shape.

    Raises
    ------
    ConfigError
        naming the weights that differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        # What Keras would write for this model: the names are Keras' own business.
        ours = Path(folder) / "ours.weights.h5"
        model.save_weights(ours)
        with opened(ours, str(ours)) as expected, opened(file, str(path)) as found:
            _compare(path, _datasets(found), _datasets(expected))
        theirs = Path(folder) / "theirs.weights.h5"
        if isinstance(file, Path):
            theirs.symlink_to(file.resolve())
        else:
            file.seek(0)
            theirs.write_bytes(file.read())
        with refusing(f"{path}: its weights do not fit"):
            model.load_weights(theirs)


def optimizer_arrays(file: Any) -> dict[str, np.ndarray]:
    """The optimizer's variables by position, from an archive's weights; empty where there are none."""
    group = file.get("optimizer/vars")
    return {} if group is None else {name: np.asarray(group[name]) for name in group}


def _datasets(file: Any) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and name.partition("/")[0] not in _NOT_WEIGHTS:
            found[name] = tuple(item.shape)

    file.visititems(visit)
    return found


def _compare(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    wrong = [
        f"{name} is {found.get(name, 'absent')} in the file and {expected.get(name, 'absent')} in the model"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        refuse(f"{path} does not fit the model: {'; '.join(wrong[:5])}{more}")


def _whole_model(path: Path, file: Any, code: Sequence[str], allow_lambda: Sequence[str]) -> StoredModel:
    config = read_json(path, file.attrs["model_config"], "its architecture")
    if "model_weights" not in file:
        refuse(f"{path} describes a model but holds no weights")
    text = file.attrs.get("training_config")
    compiled = None if text is None else read_json(path, text, "its training configuration")
    if _text(file.attrs.get("keras_version", "2")).startswith("3"):
        safe_mode = not lambdas_allowed(path, config, allow_lambda)
        with known(code):
            model = _loaded_by_keras(path, safe_mode=safe_mode)
            return stored(model, "HDF5 model of Keras 3", _keras3(compiled, file, model))
    model = model_of_config(path, config, code, allow_lambda)
    names, notes = _assign_by_layer(path, file["model_weights"], model)
    with known(code):
        return stored(model, "HDF5 model of Keras 2", _keras2(compiled, file, model, names), *notes)


def _loaded_by_keras(path: Path, *, safe_mode: bool) -> Any:
    """Keras tells formats by the suffix, which the user's file may lack."""
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "model.h5"
        link.symlink_to(path.resolve())
        return keras.saving.load_model(link, compile=False, safe_mode=safe_mode)


def _keras3(compiled: Any, file: Any, model: Any) -> Training:
    if compiled and "optimizer_config" in compiled:
        compiled = {**compiled, "optimizer": compiled["optimizer_config"]}
    values = {str(i): value for i, value in enumerate(_optimizer_weights(file).values())}
    return keras3_training(compiled, values, model.trainable_variables)


def _keras2(compiled: Any, file: Any, model: Any, names: Mapping[str, str]) -> Training:
    training = keras2_training(compiled)
    values = _optimizer_weights(file)
    if training.optimizer is None or not values:
        return with_slots(training, {}, "the file holds no optimizer state")
    return with_slots(training, *keras2_slots_by_name(training.optimizer, values, names))


def _optimizer_weights(file: Any) -> dict[str, np.ndarray]:
    group = file.get("optimizer_weights")
    return {} if group is None else {name: np.asarray(group[name]) for name in _names(group, "weight_names")}


def _assign_by_layer(path: Path, group: Any, model: Any) -> tuple[dict[str, str], list[str]]:
    """Give *model* the weights of the old format; every layer and weight is in both.

    Returns Keras 3's paths by the file's names without ``:0``, and notes.
    """
    saved = {name: _names(group[name], "weight_names") for name in _names(group, "layer_names")}
    saved = {name: weights for name, weights in saved.items() if weights}
    layers = {layer.name: layer for layer in model.layers if _weights(layer)}
    notes = []
    if saved.keys() == layers.keys():
        pairs = [(name, layers[name]) for name in saved]
    elif len(saved) == len(layers):
        # Keras numbers the layers that were not named by hand, and counts on from model to model.
        pairs = list(zip(saved, layers.values(), strict=True))
        renamed = ", ".join(f"{name} as {layer.name}" for name, layer in pairs if name != layer.name)
        notes.append(f"layers were matched by their order, for their names differ: {renamed}")
    else:
        refuse(f"{path} has weights for the layers {', '.join(saved)}; the model has {', '.join(layers)}")
    paths = dict(zip(map(id, model.variables), unique_paths(model.variables), strict=True))
    found: dict[str, str] = {}
    for name, layer in pairs:
        found.update(_assign_layer(path, group[name], name, layer, paths))
    top = _names(group["top_level_model_weights"], "weight_names") if "top_level_model_weights" in group else []
    if top:
        refuse(
            f"{path} has weights outside of its layers ({', '.join(top)}), which only the model's own class can read"
        )
    return found, notes


def _assign_layer(path: Path, group: Any, name: str, layer: Any, paths: Mapping[int, str]) -> dict[str, str]:
    names, weights = _names(group, "weight_names"), _weights(layer)
    if len(names) != len(weights):
        theirs, ours = ", ".join(names), ", ".join(weight.path for weight in weights)
        refuse(f"{path}: the layer {name} has the weights {theirs}; in the model it has {ours}")
    found = {}
    for saved, weight in zip(names, weights, strict=True):
        plain, value = saved.partition(":")[0], np.asarray(group[saved])
        same = plain.rpartition("/")[2] == weight.name and tuple(value.shape) == tuple(weight.shape)
        if not same:
            ours = f"{weight.path} {tuple(weight.shape)}"
            refuse(f"{path}: in the layer {name}, {saved} {value.shape} does not fit the model's {ours}")
        weight.assign(value)
        found[plain] = paths[id(weight)]
    return found


def _weights(layer: Any) -> list[Any]:
    """In the order of the old format."""
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names, which is cut into numbered pieces where it is too long for one attribute."""
    pieces = [attribute] if attribute in group.attrs else _pieces(group, attribute)
    return [_text(name) for piece in pieces for name in group.attrs[piece]]


def _pieces(group: Any, attribute: str) -> list[str]:
    pieces: list[str] = []
    while f"{attribute}{len(pieces)}" in group.attrs:
        pieces.append(f"{attribute}{len(pieces)}")
    return pieces


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
