"""``.keras`` archives, of Keras 3 and Keras 2, from a file or from memory."""

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from learnd.models.stored.architecture import model_of_config, read_json
from learnd.models.stored.custom import known
from learnd.models.stored.hdf5 import assign_saved_state, opened, optimizer_arrays
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored
from learnd.models.stored.safety import lambdas_allowed, refuse_unsafe_members
from learnd.models.stored.slots import ITERATION, unique_paths
from learnd.models.stored.training import (
    keras2_slots_in_order,
    keras2_training,
    keras3_training,
    loss_of,
    with_slots,
)

MAGIC = b"PK\x03\x04"
WEIGHTS = "model.weights.h5"
OUR_OPTIMIZER = "learnd/optimizer.json"
OUR_SLOTS = "learnd/slots.npz"


def open_archive(path: Path, data: Any, code: Sequence[str], allow_lambda: Sequence[str]) -> StoredModel:
    """The model in the zip archive *data*, a file object; *path* is what messages call it."""
    with refusing(f"{path} is not a whole zip archive"):
        archive = zipfile.ZipFile(data)
    with archive, refusing(f"{path} is not a whole Keras archive"):
        refuse_unsafe_members(path, archive)
        members = set(archive.namelist())
        lacking = {"metadata.json", "config.json", WEIGHTS} - members
        if lacking:
            refuse(f"{path} is a zip archive without {', '.join(sorted(lacking))}: Keras did not write it")
        broken = archive.testzip()
        if broken is not None:
            refuse(f"{path} is damaged: {broken} does not match its checksum")
        version = str(read_json(path, archive.read("metadata.json"), "metadata.json").get("keras_version", ""))
        config = read_json(path, archive.read("config.json"), "config.json")
        if version.startswith("2"):
            return _of_keras2(path, archive, config, code, allow_lambda)
        return _of_keras3(path, archive, config, code, allow_lambda)


def _of_keras3(
    path: Path, archive: zipfile.ZipFile, config: Any, code: Sequence[str], allow_lambda: Sequence[str]
) -> StoredModel:
    safe_mode = not lambdas_allowed(path, config, allow_lambda)
    with tempfile.TemporaryDirectory() as folder, known(code):
        # Keras tells formats by the suffix, which the user's file may lack.
        copy = _copied(archive, Path(folder) / "model.keras")
        # Not compiled: a metric that is not known would keep the model from being opened.
        model = keras.saving.load_model(copy, compile=False, safe_mode=safe_mode)
        if OUR_OPTIMIZER in archive.namelist():
            return stored(model, "learnd's own", _our_training(path, archive, model, _compiled(config)))
        with opened(io.BytesIO(archive.read(WEIGHTS)), f"{path}: {WEIGHTS}") as file:
            training = keras3_training(_compiled(config), optimizer_arrays(file), model.trainable_variables)
    return stored(model, "Keras 3 archive", training)


def _of_keras2(
    path: Path, archive: zipfile.ZipFile, config: Any, code: Sequence[str], allow_lambda: Sequence[str]
) -> StoredModel:
    model = model_of_config(path, config, code, allow_lambda)
    weights = io.BytesIO(archive.read(WEIGHTS))
    assign_saved_state(path, weights, model)
    with known(code):
        training = keras2_training(_compiled(config))
    if training.optimizer is not None:
        with opened(weights, f"{path}: {WEIGHTS}") as file:
            values = optimizer_arrays(file)
        found: tuple[Any, str] = ({}, "the file holds no optimizer state")
        if values:
            found = keras2_slots_in_order(training.optimizer, values, model.trainable_variables)
        training = with_slots(training, *found)
    return stored(model, "Keras 2 archive", training)


def _our_training(path: Path, archive: zipfile.ZipFile, model: Any, compiled: Any) -> Training:
    """What `learnd.models.stored.serialized.to_bytes` added: slots by the number of the variable, not by its path."""
    described = read_json(path, archive.read(OUR_OPTIMIZER), OUR_OPTIMIZER)
    with np.load(io.BytesIO(archive.read(OUR_SLOTS)), allow_pickle=False) as arrays:
        slots = {_path(name, unique_paths(model.trainable_variables)): arrays[name] for name in arrays.files}
    return Training(described, slots, *loss_of((compiled or {}).get("loss")))


def _path(name: str, paths: Sequence[str]) -> str:
    number, _, slot = name.partition("/")
    return f"{paths[int(number)]}/{slot}" if number.isdigit() else name


def numbered(slots: Mapping[str, np.ndarray], paths: Sequence[str]) -> dict[str, np.ndarray]:
    """*slots* with the position of each variable in place of its path, which a layer's new surroundings may change."""
    positions = {path: str(position) for position, path in enumerate(paths)}
    result = {}
    for name, value in slots.items():
        path, _, slot = name.rpartition("/")
        result[f"{positions[path]}/{slot}" if name != ITERATION and path in positions else name] = value
    return result


def _compiled(config: Any) -> Any:
    """What the model was compiled with; for a Keras 2 model in the same place."""
    return config.get("compile_config") if isinstance(config, Mapping) else None


def _copied(archive: zipfile.ZipFile, target: Path) -> Path:
    """Keras' own members of *archive*, in a new archive: it wonders at any other."""
    with zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            if not name.startswith("learnd/") and not name.endswith("/"):
                copy.writestr(name, archive.read(name))
    return target
