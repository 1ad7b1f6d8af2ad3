"""Reader of ``.keras`` archives of Keras 3 and Keras 2, from a file or from memory."""

import io
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeAlias

import keras
import numpy as np

from learnd.core.tensors import Array, KerasModel
from learnd.models.stored.architecture import Json, model_of_config, read_json
from learnd.models.stored.custom import custom_code
from learnd.models.stored.hdf5 import assign_saved_state, hdf5_file, optimizer_arrays
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored_model
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
"""First bytes of a zip archive."""
OUR_OPTIMIZER = "learnd/optimizer.json"
"""Member with the optimizer's configuration in archives that `learnd.models.to_bytes` made."""
OUR_SLOTS = "learnd/slots.npz"
"""Member with the optimizer's slots in such archives."""
_WEIGHTS = "model.weights.h5"

_CompileConfig: TypeAlias = Mapping[str, Any] | None


def open_archive(path: Path, data: Path | IO[bytes], code: Sequence[str], allow_lambda: Sequence[str]) -> StoredModel:
    """Return the model in the zip archive *data*. Messages call the archive *path*.

    Raises
    ------
    ConfigError
        if it is damaged, is no Keras archive, or holds code that is not allowed.
    """
    with refusing(f"{path} is not a complete zip archive"):
        archive = zipfile.ZipFile(data)
    with archive, refusing(f"{path} is not a complete Keras archive"):
        refuse_unsafe_members(path, archive)
        missing = {"metadata.json", "config.json", _WEIGHTS} - set(archive.namelist())
        if missing:
            refuse(f"{path} is a zip archive without {', '.join(sorted(missing))}, so Keras did not write it")
        damaged = archive.testzip()
        if damaged is not None:
            refuse(f"{path} is damaged: {damaged} does not match its checksum")
        version = str(read_json(path, archive.read("metadata.json"), "metadata.json").get("keras_version", ""))
        config = read_json(path, archive.read("config.json"), "config.json")
        if version.startswith("2"):
            return _open_keras2(path, archive, config, code, allow_lambda)
        return _open_keras3(path, archive, config, code, allow_lambda)


def _open_keras3(
    path: Path, archive: zipfile.ZipFile, config: Json, code: Sequence[str], allow_lambda: Sequence[str]
) -> StoredModel:
    safe_mode = not lambdas_allowed(path, config, allow_lambda)
    with tempfile.TemporaryDirectory() as folder, custom_code(code):
        # Keras recognises formats by the suffix, which the user's file may lack.
        copy = _copy_of_keras_members(archive, Path(folder) / "model.keras")
        # Not compiled: an unknown metric would keep the model from being opened.
        model = keras.saving.load_model(copy, compile=False, safe_mode=safe_mode)
        compiled = _compile_config(config)
        if OUR_OPTIMIZER in archive.namelist():
            return stored_model(model, "learnd's own", _our_training(path, archive, model, compiled))
        with hdf5_file(io.BytesIO(archive.read(_WEIGHTS)), f"{path}: {_WEIGHTS}") as file:
            training = keras3_training(compiled, optimizer_arrays(file), model.trainable_variables)
    return stored_model(model, "Keras 3 archive", training)


def _open_keras2(
    path: Path, archive: zipfile.ZipFile, config: Json, code: Sequence[str], allow_lambda: Sequence[str]
) -> StoredModel:
    model = model_of_config(path, config, code, allow_lambda)
    weights = io.BytesIO(archive.read(_WEIGHTS))
    assign_saved_state(path, weights, model)
    with custom_code(code):
        training = keras2_training(_compile_config(config))
    if training.optimizer is not None:
        with hdf5_file(weights, f"{path}: {_WEIGHTS}") as file:
            values = optimizer_arrays(file)
        if values:
            slots, reason = keras2_slots_in_order(training.optimizer, values, model.trainable_variables)
            training = with_slots(training, slots, reason)
        else:
            training = with_slots(training, {}, "the file holds no optimizer state")
    return stored_model(model, "Keras 2 archive", training)


def _our_training(path: Path, archive: zipfile.ZipFile, model: KerasModel, compiled: _CompileConfig) -> Training:
    """Return the training that `learnd.models.stored.serialized.to_bytes` added to *archive*.

    Its slots are named by the number of the variable and not by its path.
    """
    optimizer = read_json(path, archive.read(OUR_OPTIMIZER), OUR_OPTIMIZER)
    paths = unique_paths(model.trainable_variables)
    with np.load(io.BytesIO(archive.read(OUR_SLOTS)), allow_pickle=False) as arrays:
        slots = {_slot_by_path(name, paths): arrays[name] for name in arrays.files}
    return Training(optimizer, slots, *loss_of((compiled or {}).get("loss")))


def _slot_by_path(name: str, paths: Sequence[str]) -> str:
    number, _, slot = name.partition("/")
    return f"{paths[int(number)]}/{slot}" if number.isdigit() else name


def slots_by_position(slots: Mapping[str, Array], paths: Sequence[str]) -> dict[str, Array]:
    """Return *slots* with the position of each variable in place of its path.

    A path may change when the layer becomes part of another model; the position does not.
    """
    positions = {path: str(position) for position, path in enumerate(paths)}
    result = {}
    for name, value in slots.items():
        path, _, slot = name.rpartition("/")
        result[f"{positions[path]}/{slot}" if name != ITERATION and path in positions else name] = value
    return result


def _compile_config(config: Json) -> _CompileConfig:
    """Return the arguments that the model was compiled with. Keras 2 keeps them in the same place."""
    return config.get("compile_config") if isinstance(config, Mapping) else None


def _copy_of_keras_members(archive: zipfile.ZipFile, target: Path) -> Path:
    """Copy the members that Keras wrote to the archive *target*, and return it. Keras warns about any other."""
    with zipfile.ZipFile(target, "w") as copy:
        for name in archive.namelist():
            if not name.startswith("learnd/") and not name.endswith("/"):
                copy.writestr(name, archive.read(name))
    return target
