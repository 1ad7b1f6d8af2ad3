"""Beginning from what learned before: files are adopted into the ``data_dir``; one learnd goes on as another."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import structlog

from learnd.checkpoint.reading import newest_checkpoint, read_arrays, read_fingerprint
from learnd.config.settings import ModelRecipe, ScalingSettings
from learnd.core.errors import ConfigError, Problem
from learnd.core.fsync import fsync, write_text
from learnd.core.types import State

log = structlog.get_logger()

Recipe = TypeVar("Recipe", bound=ModelRecipe)

_FOLDER = "model"
_RECORD = "adopted.json"


def pinned_copy(recipe: Recipe, data_dir: Path) -> Recipe:
    """The same recipe, with what it loads copied into *data_dir*: years later the original may be gone, or another.

    Copied once; what a ``data_dir`` has adopted stays.

    Raises
    ------
    ConfigError
        if there is nothing at ``model.load`` and nothing was adopted before.
    """
    model = recipe.model
    named: dict[str, Path | None] = {"load": model.load, "architecture": model.architecture_file}
    wanted = {key: path for key, path in named.items() if path is not None}
    if not wanted:
        return recipe
    folder = data_dir / _FOLDER
    record = _record(folder)
    changed = [path for key, path in wanted.items() if _digest(path) not in (None, record.get(key, {}).get("sha256"))]
    if not record or (changed and not any(data_dir.glob("checkpoints/ckpt-*"))):
        # Also where a first start failed: a file that was put right must not be ignored.
        _adopt(wanted, data_dir)
        record = _record(folder)
    elif changed:
        note = "what was adopted at the first start is used; begin a new data_dir to use this"
        log.warning("loaded_model_changed", paths=[str(path) for path in changed], note=note)
    paths = {key: folder / key / Path(record[key]["name"]) for key in wanted}
    return recipe.model_copy(update={"model": model.model_copy(update=paths)})


def _record(folder: Path) -> dict[str, Any]:
    """What was adopted; empty if nothing was."""
    path = folder / _RECORD
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _adopt(wanted: Mapping[str, Path], data_dir: Path) -> None:
    building = data_dir / f".{_FOLDER}-building"
    shutil.rmtree(building, ignore_errors=True)
    record = {}
    for key, path in wanted.items():
        (building / key).mkdir(parents=True)
        _copy(path, building / key, key)
        record[key] = {"name": path.name, "path": str(path), "sha256": _digest(path)}
    write_text(building / _RECORD, json.dumps(record, indent=2) + "\n")
    for path in [building, *building.rglob("*")]:
        fsync(path)
    shutil.rmtree(data_dir / _FOLDER, ignore_errors=True)
    building.rename(data_dir / _FOLDER)
    fsync(data_dir)
    log.info("model_adopted", always=True, path=str(data_dir / _FOLDER), **{k: str(p) for k, p in wanted.items()})


def _copy(path: Path, folder: Path, key: str) -> None:
    """A file, a folder, or the files of a TensorFlow checkpoint's prefix; of a ``data_dir`` its newest checkpoint."""
    prefix = own_checkpoint(path)
    if prefix is not None:
        target = folder / path.name / "checkpoints"
        target.mkdir(parents=True)
        for part in prefix.parent.glob(f"{prefix.name}.*"):
            shutil.copy(part, target / part.name)
        if (path / _FOLDER).is_dir():  # what it was itself loaded from: the architecture is there
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
    """The files of a TensorFlow checkpoint; empty if there is none."""
    return sorted(path.parent.glob(f"{path.name}.*")) if Path(f"{path}.index").is_file() else []


def _digest(path: Path) -> str | None:
    """SHA-256 over the names and bytes of all files; None where there are none (any more)."""
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
    """The prefix of the newest checkpoint of the ``data_dir`` *path*, or of its ``checkpoints`` folder; else None."""
    for folder in (path / "checkpoints", path):
        if folder.is_dir() and (prefix := newest_checkpoint(folder)) is not None:
            return prefix
    return None


def exported_classes(recipe: ModelRecipe) -> tuple[str, ...]:
    """The classes of the learnd export that ``model.load`` names; empty if it is none, or has none.

    Raises
    ------
    ConfigError
        if the export takes other features, or the same in another order: it would answer, and wrongly.
    """
    load = recipe.model.load
    manifest = load / "learnd.json" if load is not None else None
    if manifest is None or not manifest.is_file():
        return ()
    described = json.loads(manifest.read_text(encoding="utf-8"))
    features = [feature["name"] for feature in described["features"]]
    _require_same(recipe, features, described["task"], described["predicts"], load)
    return tuple(described.get("classes", ()))


@dataclass(frozen=True, slots=True)
class WarmStart:
    """Another learnd's state to go on from: its recipe with our head and freezing, and every array that it had."""

    recipe: ModelRecipe
    arrays: Mapping[str, np.ndarray[Any, Any]]
    optimizer: str | None
    labels: tuple[str, ...]


def warm_start(recipe: ModelRecipe) -> WarmStart | None:
    """What ``model.load`` names, if that is a checkpoint of learnd's own; else None.

    Raises
    ------
    ConfigError
        if it learned from other features, or for another task without a new head.
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
        model["load"] = _adopted_by(load, theirs.model.load)
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


def _adopted_by(data_dir: Path | None, original: Path) -> Path:
    """Where the learnd of *data_dir* keeps what it was loaded from."""
    assert data_dir is not None
    path = data_dir / _FOLDER / "load" / original.name
    if not path.exists() and not _of_prefix(path):
        message = (
            f"{data_dir} began with {original}, and holds no copy of it; name the data_dir itself, not a folder in it"
        )
        raise ConfigError(Problem("model.load", message))
    return path


def _require_same(recipe: ModelRecipe, features: list[str], task: str, target: list[str], load: Path | None) -> None:
    """That another learnd's model gets, and without a new head gives, what it did."""
    if features != list(recipe.features):
        message = f"{load} learned from {', '.join(features)}, in this order; the configuration has other features"
        raise ConfigError(Problem("model.load", message))
    if recipe.model.head is not None:
        return
    if task != recipe.task.kind:
        message = f"{load} learned a {task}; add `head: {{}}` to go on with another task"
        raise ConfigError(Problem("model.load", message))
    if recipe.target and target != recipe.target:
        message = (
            f"{load} predicts {', '.join(target)}, not {', '.join(recipe.target)}; add `head: {{}}` for another target"
        )
        raise ConfigError(Problem("model.load", message))


def _labels(state: State) -> tuple[str, ...]:
    labels = state["transforms"].get("labels")
    return tuple(labels["names"]) if labels is not None else ()
