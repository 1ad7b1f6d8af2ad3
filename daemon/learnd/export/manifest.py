"""Reads and writes ``learnd.json``: the content and origin of an export, what made it, and the hash of every file.

`learnd.export.manifest_schema` describes the form.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learnd.core.errors import ExportError
from learnd.core.fsync import fsync, write_text
from learnd.core.quality import Figures
from learnd.core.snapshot import ChosenWeights, Published, Snapshot
from learnd.core.types import IntervalOffsets
from learnd.export.manifest_schema import FORMAT_VERSION, SCHEMA_ID, Manifest

FILE_NAME = "learnd.json"
SIGNATURE_NAME = f"{FILE_NAME}.sig"


def provenance(snapshot: Snapshot) -> dict[str, Any]:
    """Return the part of the manifest that comes from the snapshot."""
    signal = snapshot.signal
    return {
        "samples": snapshot.samples,
        "updates": snapshot.updates,
        "offsets": [
            {"topic": p.topic, "partition": p.partition, "next_offset": offset}
            for p, offset in sorted(snapshot.offsets.items())
        ],
        "time_range": _time_range(snapshot.first_time_s, snapshot.last_time_s),
        "prequential": {
            "live": _errors(signal.loss, signal.absolute_error, signal.mean_loss),
            "averaged": _errors(signal.averaged_loss),
        },
        "quality": {
            "recent": _figures(snapshot.quality.recent),
            "total": _figures(snapshot.quality.total),
            "fading": _figures(snapshot.quality.fading),
        },
        "intervals": _intervals(snapshot.intervals),
        "classes": list(snapshot.labels),
        "weights": _weights(snapshot.chosen),
    }


def _intervals(offsets: IntervalOffsets | None) -> dict[str, Any] | None:
    if offsets is None:
        return None
    ends = {"lower": offsets.lower.tolist(), "upper": offsets.upper.tolist()}
    return {"coverage": offsets.coverage, "samples": offsets.samples, **ends}


def _weights(chosen: ChosenWeights | None) -> dict[str, Any] | None:
    return None if chosen is None else {"chosen": chosen.name, "standing_loss": dict(chosen.losses)}


def _figures(figures: Figures) -> dict[str, Any]:
    """Return the figures over some samples, with None for those that are not finite."""
    errors = figures.errors
    return {
        "samples": figures.samples,
        "compared_samples": errors.samples,
        "skill": {"live": _finite(errors.live_skill), "averaged": _finite(errors.averaged_skill)},
        "error": {name: _finite(getattr(errors, name)) for name in ("live", "averaged", "naive")},
        "measures": {name: _finite(figure) for name, figure in figures.measures.items()},
        "parts": {
            part: {name: _finite(figure) for name, figure in measures.items()}
            for part, measures in figures.parts.items()
        },
    }


def _finite(figure: float) -> float | None:
    """Return *figure*; None if it is not finite, because JSON has no NaN."""
    return figure if math.isfinite(figure) else None


def _time_range(first_s: float, last_s: float) -> dict[str, str] | None:
    """Return the first and last time; None for records without times, such as a file's lines, which all have time 0.

    >>> _time_range(0.0, 0.0), _time_range(0.0, 60.0)
    (None, {'first': '1970-01-01T00:00:00+00:00', 'last': '1970-01-01T00:01:00+00:00'})
    """
    return {"first": iso_time(first_s), "last": iso_time(last_s)} if first_s or last_s else None


def _errors(loss: float, absolute_error: float = math.nan, mean_loss: float = math.nan) -> dict[str, float | None]:
    """Return the figures by name, with None for those that are not finite: JSON has no NaN.

    >>> _errors(0.5)
    {'loss': 0.5, 'absolute_error': None, 'mean_loss': None}
    """
    figures = {"loss": loss, "absolute_error": absolute_error, "mean_loss": mean_loss}
    return {name: _finite(figure) for name, figure in figures.items()}


def iso_time(time_s: float) -> str:
    """Return seconds since 1970 as a time in ISO 8601, UTC.

    >>> iso_time(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def parent(folder: Path | None, published: Published | None = None) -> dict[str, Any] | None:
    """Return the manifest's entry for its parent, the newest export so far, which is in *folder*.

    Returns None if there is no such export, or it has no manifest. *published* is the loss of some export on later
    samples; it is used only if that export is the parent.
    """
    path = folder / FILE_NAME if folder is not None else None
    if folder is None or path is None or not path.is_file():
        return None
    since = published if published is not None and published.number == int(folder.name) else None
    return {
        "number": int(folder.name),
        "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "loss_since": since.loss if since else None,
        "samples_since": since.samples if since else 0,
        "skill_since": _finite(since.skill) if since else None,
    }


def hash_files(folder: Path, *, durable: bool = True) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of every file under *folder* except the manifest and its signature.

    Symbolic links are not files of an export. With *durable*, each file is also flushed to the disk.
    """
    files: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in (FILE_NAME, SIGNATURE_NAME) or path.is_symlink() or not path.is_file():
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if durable:
            fsync(path)
        files[name] = {"bytes": path.stat().st_size, "sha256": digest}
    return files


def write(folder: Path, document: Mapping[str, Any]) -> bytes:
    """Validate *document*, write it durably as the manifest in *folder*, and return its bytes.

    Raises
    ------
    ExportError
        if it does not fit `Manifest`. Failing the export is better than a manifest that its readers cannot parse.
    """
    head = {"$schema": SCHEMA_ID, "format_version": FORMAT_VERSION}
    try:
        validated = Manifest.model_validate({**head, **document})
    except ValidationError as error:
        raise ExportError(f"{FILE_NAME} does not fit its schema: {first_problem(error)}") from error
    text = json.dumps(validated.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"
    write_text(folder / FILE_NAME, text)
    return text.encode()


def unavailable(folder: Path) -> dict[str, str]:
    """Return the unavailable formats, each with the reason, from the manifest in *folder*."""
    reasons: dict[str, str] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["unavailable"]
    return reasons


def first_problem(error: ValidationError) -> str:
    """Return in one line where a document first fails to fit its schema, and why."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
