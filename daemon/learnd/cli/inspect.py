"""``learnd inspect``: describes an export, or the checkpoints in a data_dir."""

import argparse
import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learnd.checkpoint import files as checkpoint_files
from learnd.cli.native_logs import silence_native_logs
from learnd.core.errors import ExportDamagedError, StateDamagedError, UsageError
from learnd.core.tensors import Array
from learnd.core.types import State
from learnd.export import gate, manifest, versions


def execute(options: argparse.Namespace) -> int:
    """Print a description of ``options.path`` as JSON; with ``--verify``, check an export. Return the exit code."""
    if options.public_key is not None and not options.verify:
        raise UsageError("--public-key needs --verify, which checks the signature; add --verify")
    if options.verify:
        from learnd.export.audit import audit

        report = audit(options.path, options.public_key)
        print(json.dumps(report.to_dict(), indent=2))
        if not report.sound:
            raise ExportDamagedError(f"{options.path} is not what was published: {report.findings()}")
        return 0
    print(json.dumps(describe(options.path), indent=2, default=str))
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Return the manifest of an export and whether its files match their hashes, or the checkpoints of a data_dir.

    Checkpoints are listed newest first.

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
    descriptions = [_checkpoint(directory, number) for number in reversed(checkpoint_files.numbers(directory))]
    numbers = checkpoint_files.numbers(directory)  # listed again: a running daemon may have pruned some meanwhile
    checkpoints = [checkpoint for checkpoint in descriptions if checkpoint["number"] in numbers]
    description: dict[str, Any] = {
        "checkpoints": checkpoints,
        "set_aside": sorted(p.name for p in directory.glob(f"{checkpoint_files.SET_ASIDE}*")),
        "exports": versions.numbers(path / "exports"),
        "latest": versions.pointed(path / "exports"),
        "refused_exports": gate.read_refusals(path / "exports") or {"count": 0, "last": None},
        "hold": versions.read_hold(path / "exports"),
    }
    sound = [checkpoint["number"] for checkpoint in checkpoints if checkpoint["sound"]]
    if sound:
        arrays, state = _read_checkpoint(checkpoint_files.prefix(directory, sound[0]))
        shapes = {name: list(array.shape) for name, array in sorted(arrays.items())}
        description.update(progress=state["progress"], arrays=shapes)
    return description


def _checkpoint(directory: Path, number: int) -> dict[str, Any]:
    """Return a summary of one checkpoint. Values that a damaged one no longer holds are None."""
    damage = checkpoint_files.damage(directory, number)
    summary: dict[str, Any] | None = None
    with contextlib.suppress(StateDamagedError):
        summary = checkpoint_files.read_summary(directory, number)
    if summary is None and not damage:
        damage, summary = _checkpoint_without_summary(directory, number)
    values = summary or {}
    return {
        "number": number,
        "sound": not damage,
        "damage": damage or None,
        "samples": values.get("samples"),
        "records": values.get("records"),
        "offsets": values.get("offsets"),
        "bytes": checkpoint_files.size_bytes(directory, number),
        "saved_at": values.get("saved_at"),
        "checksums": "files" in values,
    }


def _checkpoint_without_summary(directory: Path, number: int) -> tuple[str, dict[str, Any] | None]:
    """Return the damage and the summary of a checkpoint by an older learnd, which wrote no checksums.

    TensorFlow reads the whole checkpoint and compares its own checksums.
    """
    prefix = checkpoint_files.prefix(directory, number)
    try:
        _, state = _read_checkpoint(prefix)
    except Exception as error:
        return str(error), None
    saved_at = datetime.fromtimestamp(prefix.with_name(f"{prefix.name}.index").stat().st_mtime, UTC)
    return "", {**state["progress"], "saved_at": saved_at.isoformat()}


def _read_checkpoint(prefix: Path) -> tuple[dict[str, Array], State]:
    with silence_native_logs():
        from learnd.checkpoint.reading import read_checkpoint  # imports TensorFlow, which takes seconds

    return read_checkpoint(prefix)


def _export(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads((path / manifest.FILE_NAME).read_text(encoding="utf-8"))
        hashes = document["files"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportDamagedError(
            f"{path / manifest.FILE_NAME} is not a readable manifest ({type(error).__name__}: {error}); "
            "use another export, or restore this one from a backup"
        ) from error
    document["sound"] = manifest.hash_files(path, durable=False) == hashes
    return document
