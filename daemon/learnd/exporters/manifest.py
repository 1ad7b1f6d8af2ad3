"""``learnd.json``: what an export is, what it learned from, and the hash of every file."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learnd.durable import fsync, write_text
from learnd.types import Snapshot

FILE_NAME = "learnd.json"
FORMAT_VERSION = 1


def provenance(snapshot: Snapshot) -> dict[str, Any]:
    """The part of the manifest that the snapshot knows."""
    signal = snapshot.signal
    return {
        "samples": snapshot.samples,
        "updates": snapshot.updates,
        "offsets": [
            {"topic": p.topic, "partition": p.partition, "next_offset": offset}
            for p, offset in sorted(snapshot.offsets.items())
        ],
        "time_range": {
            "first": _iso(snapshot.first_time_s),
            "last": _iso(snapshot.last_time_s),
        },
        "prequential": {
            "loss": signal.loss,
            "averaged_loss": signal.averaged_loss,
            "absolute_error": signal.absolute_error,
            "mean_loss": signal.mean_loss,
        },
        **({"classes": list(snapshot.labels)} if snapshot.labels else {}),
    }


def _iso(time_s: float) -> str:
    """
    >>> _iso(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def hash_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file under *folder*, each made durable on the way."""
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != FILE_NAME:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            fsync(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def unavailable(folder: Path) -> dict[str, str]:
    """The formats that the model cannot have, each with the reason, as the manifest in *folder* has them."""
    formats = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["formats"]
    return {name: entry["unavailable"] for name, entry in formats.items() if "unavailable" in entry}


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, durably."""
    write_text(folder / FILE_NAME, json.dumps(manifest, indent=2) + "\n")
