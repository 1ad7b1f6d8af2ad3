"""What ``learnd inspect`` shows of an export or of a data_dir."""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learnd.checkpoint import files as checkpoint_files
from learnd.checkpoint.checkpointer import read_checkpoint
from learnd.core.errors import ExportDamagedError, StateDamagedError, UsageError
from learnd.export import manifest, versions


def describe(path: Path) -> dict[str, Any]:
    """An export's manifest, with whether its files still have their hashes; or a data_dir's checkpoints, newest first.

    Raises
    ------
    UsageError
        if *path* is neither.
    ExportDamagedError
        if the manifest cannot be read.
    """
    if (path / manifest.FILE_NAME).is_file():
        return _export(path)
    if (path / "checkpoints").is_dir():
        return _data_dir(path)
    raise UsageError(f"{path} is neither an export (no {manifest.FILE_NAME}) nor a data_dir (no checkpoints/)")


def _data_dir(path: Path) -> dict[str, Any]:
    directory = path / "checkpoints"
    looked_at = [_checkpoint(directory, number) for number in reversed(checkpoint_files.numbers(directory))]
    still_there = checkpoint_files.numbers(directory)  # a daemon may be at work, and prune
    checkpoints = [checkpoint for checkpoint in looked_at if checkpoint["number"] in still_there]
    shown: dict[str, Any] = {
        "checkpoints": checkpoints,
        "set_aside": sorted(p.name for p in directory.glob(f"{checkpoint_files.SET_ASIDE}*")),
        "exports": versions.numbers(path / "exports"),
    }
    sound = [checkpoint["number"] for checkpoint in checkpoints if checkpoint["sound"]]
    if sound:
        arrays, state = read_checkpoint(checkpoint_files.prefix(directory, sound[0]))
        shapes = {name: list(array.shape) for name, array in sorted(arrays.items())}
        shown.update(progress=state["progress"], arrays=shapes)
    return shown


def _checkpoint(directory: Path, number: int) -> dict[str, Any]:
    """One checkpoint in short; what cannot be known of a damaged one is None."""
    damage = checkpoint_files.damage(directory, number)
    summary: dict[str, Any] | None = None
    with contextlib.suppress(StateDamagedError):
        summary = checkpoint_files.read_summary(directory, number)
    if summary is None and not damage:
        damage, summary = _of_an_older_learnd(directory, number)
    known = summary or {}
    return {
        "number": number,
        "sound": not damage,
        "damage": damage or None,
        "samples": known.get("samples"),
        "records": known.get("records"),
        "offsets": known.get("offsets"),
        "bytes": checkpoint_files.size_bytes(directory, number),
        "saved_at": known.get("saved_at"),
        "checksums": "files" in known,
    }


def _of_an_older_learnd(directory: Path, number: int) -> tuple[str, dict[str, Any] | None]:
    """Without checksums of ours, TensorFlow has to read all of it, and compares its own."""
    prefix = checkpoint_files.prefix(directory, number)
    try:
        _, state = read_checkpoint(prefix)
    except Exception as error:
        return str(error), None
    saved_at = datetime.fromtimestamp(prefix.with_name(f"{prefix.name}.index").stat().st_mtime, UTC)
    return "", {**state["progress"], "saved_at": saved_at.isoformat()}


def _export(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((path / manifest.FILE_NAME).read_text(encoding="utf-8"))
        named = document["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportDamagedError(
            f"{path / manifest.FILE_NAME} is no manifest any more ({type(error).__name__}: {error}); "
            "take another export, or this one from a backup"
        ) from error
    document["sound"] = manifest.hash_files(path, durable=False) == named
    return document
