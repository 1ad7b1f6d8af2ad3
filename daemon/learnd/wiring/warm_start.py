"""Warm start: copies a pretrained model into ``data_dir``, or continues from another instance's state."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from learnd.checkpoint.reading import newest_checkpoint, read_arrays, read_fingerprint
from learnd.config.settings import ModelRecipe, ScalingSettings
from learnd.core.errors import ConfigError, Problem
from learnd.core.fsync import fsync, write_text
from learnd.core.tensors import Array
from learnd.core.types import State

log = structlog.get_logger()

Recipe = TypeVar("Recipe", bound=ModelRecipe)

_FOLDER = "model"
_RECORD = "adopted.json"


def pinned_copy(recipe: Recipe, data_dir: Path) -> Recipe:
    """Return *recipe* with the files that it loads replaced by copies in *data_dir*.

    Years later the originals may be gone or changed. They are copied once, at the first start; the copies do not
    change.

    Raises
    ------
    ConfigError
        if ``model.load`` does not exist, and there is no copy.
    """
    model = recipe.model
    options: dict[str, Path | None] = {"load": model.load, "architecture": model.architecture_file}
    sources = {key: path for key, path in options.items() if path is not None}
    if not sources:
        return recipe
    folder = data_dir / _FOLDER
    record = _record(folder)
    changed = [path for key, path in sources.items() if _digest(path) not in (None, record.get(key, {}).get("sha256"))]
    if not record or (changed and not any(data_dir.glob("checkpoints/ckpt-*"))):
        # Copied again if the first start failed: a corrected file must not be ignored.
        _copy_all(sources, data_dir)
        record = _record(folder)
    elif changed:
        note = "the copy from the first start is used; use a new data_dir for the changed file"
        log.warning("loaded_model_changed", paths=[str(path) for path in changed], note=note)
    paths = {key: folder / key / Path(record[key]["name"]) for key in sources}
    return recipe.model_copy(update={"model": model.model_copy(update=paths)})


def _record(folder: Path) -> dict[str, Any]:
    """Return the record of the copies, by option; empty if there are none."""
    path = folder / _RECORD
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return record


def _copy_all(sources: Mapping[str, Path], data_dir: Path) -> None:
    """Copy the files or folders *sources* into *data_dir*, atomically and durably, with a record of their digests."""
    building = data_dir / f".{_FOLDER}-building"
    shutil.rmtree(building, ignore_errors=True)
    record = {}
    for key, path in sources.items():
        (building / key).mkdir(parents=True)
        _copy(path, building / key, key)
        record[key] = {"name": path.name, "path": str(path), "sha256": _digest(path)}
    write_text(building / _RECORD, json.dumps(record, indent=2) + "\n")
    for path in [building, *building.rglob("*")]:
        fsync(path)
    shutil.rmtree(data_dir / _FOLDER, ignore_errors=True)
    building.rename(data_dir / _FOLDER)
    fsync(data_dir)
    log.info("model_copied", always=True, path=str(data_dir / _FOLDER), **{k: str(p) for k, p in sources.items()})


def _copy(path: Path, folder: Path, key: str) -> None:
    """Copy a file, a folder, the files of a TensorFlow checkpoint prefix, or the newest checkpoint of a
    ``data_dir``."""
    prefix = own_checkpoint(path)
    if prefix is not None:
        target = folder / path.name / "checkpoints"
        target.mkdir(parents=True)
        for part in prefix.parent.glob(f"{prefix.name}.*"):
            shutil.copy(part, target / part.name)
        if (path / _FOLDER).is_dir():  # its own copy of a loaded model, for the architecture
            shutil.copytree(path / _FOLDER, folder / path.name / _FOLDER)
    elif path.is_dir():
        shutil.copytree(path, folder / path.name)
    elif path.is_file():
        shutil.copy(path, folder / path.name)
    elif parts := _of_prefix(path):
        for part in parts:
            shutil.copy(part, folder / part.name)
    else:
        raise ConfigError(Problem(f"model.{key}", f"{path} does not exist; name a model file, a folder or a prefix"))


def _of_prefix(path: Path) -> list[Path]:
    """Return the files of the TensorFlow checkpoint with this prefix; empty if there is none."""
    return sorted(path.parent.glob(f"{path.name}.*")) if Path(f"{path}.index").is_file() else []


def _digest(path: Path) -> str | None:
    """Return the SHA-256 of the names and contents of all files at *path*; None if there are none."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()) or _of_prefix(path)
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def own_checkpoint(path: Path) -> Path | None:
    """Return the prefix of the newest checkpoint in *path*, a ``data_dir`` or its ``checkpoints`` folder; else None."""
    for folder in (path / "checkpoints", path):
        if folder.is_dir() and (prefix := newest_checkpoint(folder)) is not None:
            return prefix
    return None


def exported_classes(recipe: ModelRecipe) -> tuple[str, ...]:
    """Return the classes of the learnd export at ``model.load``; empty if it is not an export, or has no classes.

    Raises
    ------
    ConfigError
        if the export has other features, or another order: its predictions would be wrong.
    """
    load = recipe.model.load
    manifest = load / "learnd.json" if load is not None else None
    if manifest is None or not manifest.is_file():
        return ()
    content = json.loads(manifest.read_text(encoding="utf-8"))
    features = [feature["name"] for feature in content["features"]]
    _require_same(recipe, features, content["task"], content["predicts"], load)
    return tuple(content.get("classes", ()))


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Another instance's state to continue from.

    Attributes
    ----------
    recipe : the other instance's recipe, with the head and the frozen layers of this configuration
    arrays : all arrays of its checkpoint, by name
    optimizer : the name of its optimizer; None if that is unknown
    labels : its classes
    """

    recipe: ModelRecipe
    arrays: Mapping[str, Array]
    optimizer: str | None
    labels: tuple[str, ...]


def warm_start(recipe: ModelRecipe) -> WarmStart | None:
    """Return the state at ``model.load`` if it is a checkpoint of learnd, else None.

    Raises
    ------
    ConfigError
        if its features differ, or if its task or target differs and there is no new head.
    """
    load = recipe.model.load
    prefix = own_checkpoint(load) if load is not None else None
    if prefix is None:
        return None
    fingerprint = read_fingerprint(prefix)
    _require_same(recipe, fingerprint["features"], fingerprint["task"]["kind"], fingerprint["target"], load)
    theirs = ModelRecipe.model_validate(
        {
            "features": fingerprint["features"],
            "target": list(recipe.target),
            "task": recipe.task.model_dump(),
            "model": fingerprint["model"],
            "scaling": fingerprint["scaling"],
        }
    )
    scaling = {"inputs": theirs.scale_inputs, "target": theirs.scale_target}
    model: dict[str, Any] = {
        "head": recipe.model.head or theirs.model.head,
        "freeze": recipe.model.freeze,
        "load": None,
    }
    if theirs.model.load is not None:
        model["load"] = _copy_of(load, theirs.model.load)
    arrays, state = read_arrays(prefix.parent)
    return WarmStart(
        recipe.model_copy(
            update={
                "model": theirs.model.model_copy(update=model),
                "scaling": ScalingSettings(**{key: "online" if on else "none" for key, on in scaling.items()}),
            }
        ),
        arrays,
        fingerprint["learning"]["optimizer"],
        _labels(state),
    )


def _copy_of(data_dir: Path | None, original: Path) -> Path:
    """Return the copy in *data_dir* of *original*, the model that the other instance was loaded from."""
    assert data_dir is not None
    path = data_dir / _FOLDER / "load" / original.name
    if not path.exists() and not _of_prefix(path):
        message = f"{data_dir} was loaded from {original}, but has no copy of it; name the data_dir, not a folder in it"
        raise ConfigError(Problem("model.load", message))
    return path


def _require_same(recipe: ModelRecipe, features: list[str], task: str, target: list[str], load: Path | None) -> None:
    """Raise `ConfigError` unless the features are the same and, without a new head, the task and the target too."""
    if features != list(recipe.features):
        message = f"{load} learned from {', '.join(features)}, in this order; configure the same features"
        raise ConfigError(Problem("model.load", message))
    if recipe.model.head is not None:
        return
    if task != recipe.task.kind:
        message = f"{load} learned a {task}; add `head: {{}}` to use another task"
        raise ConfigError(Problem("model.load", message))
    if recipe.target and target != recipe.target:
        message = (
            f"{load} predicts {', '.join(target)}, not {', '.join(recipe.target)}; add `head: {{}}` to change that"
        )
        raise ConfigError(Problem("model.load", message))


def _labels(state: State) -> tuple[str, ...]:
    labels = state["transforms"].get("labels")
    return tuple(labels["names"]) if labels is not None else ()
