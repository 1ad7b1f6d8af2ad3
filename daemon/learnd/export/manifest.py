"""``learnd.json``: what an export is, what it learned from, what made it, and the hash of every file.

Its form is the JSON Schema `SCHEMA_FILE`, which is made from the classes here. A reader needs nothing but the schema;
whoever changes a class gives it a new number and adds the schema of that number.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from learnd.core.errors import ExportError
from learnd.core.fsync import fsync, write_text
from learnd.core.settings_base import Count, Section
from learnd.core.types import Published, Snapshot

FILE_NAME = "learnd.json"
SIGNATURE_NAME = f"{FILE_NAME}.sig"
FORMAT_VERSION = 3
SCHEMA_ID = f"urn:learnd:manifest:{FORMAT_VERSION}"
SCHEMA_FILE = Path(__file__).with_name(f"manifest.{FORMAT_VERSION}.schema.json")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Whole = Annotated[int, Field(ge=0)]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$")]
"""ISO 8601, UTC."""


class _Part(Section):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Feature(_Part):
    """One input, in the order of the model's inputs."""

    name: str
    input: str
    """Its name in signatures with one tensor per feature."""
    min: float | None
    max: float | None
    """The range outside of which a reading was taken for a fault, where one was configured."""
    missing: float | None
    """What stood in for a missing reading, where something was configured to."""


class Port(_Part):
    """One tensor that goes in or comes out."""

    name: str
    dtype: str
    shape: list[int | None]
    """None: any number, the batch."""


class Scale(_Part):
    """How numbers are scaled inside the model, or `none`; whoever uses the model scales nothing.

    The inputs of a forecast are differences to the last reading, and its target is the change from it.
    """

    kind: Literal["online", "none"]
    mean: list[Any] | None
    spread: list[Any] | None
    """Standard deviation; 0 where two different values were never seen."""


class Offset(_Part):
    """Up to where one partition was learned."""

    topic: str
    partition: Whole
    next_offset: Whole


class TimeRange(_Part):
    """Event times of the first and the last sample."""

    first: Moment
    last: Moment


class Errors(_Part):
    """Of predictions that were made before their sample was learned; None: not known."""

    loss: float | None
    """Mean over the most recent samples (1000): squared error in standard deviations or cross-entropy, by default."""
    absolute_error: float | None
    """The same in the target's units; of classes the share of wrong ones."""
    mean_loss: float | None
    """Mean over every sample since the first."""


class Prequential(_Part):
    """Of the weights that learn, and of their average, which is what is exported."""

    live: Errors
    averaged: Errors


class Parent(_Part):
    """The export that was the newest before this one."""

    number: Count
    manifest_sha256: Sha256
    loss_since: float | None
    """Mean loss of its weights over samples that came after it, as whoever runs an export has it; None: not known."""
    samples_since: Whole
    """So many of them were judged: some of each batch."""


class SigningKey(_Part):
    """The public key that `SIGNATURE_NAME` is checked with."""

    algorithm: Literal["Ed25519"]
    id: Sha256
    """Of the key's SubjectPublicKeyInfo in DER."""


class Format(_Part):
    """One form of the model in this folder; formats may say more of themselves than this."""

    model_config = ConfigDict(extra="allow")

    path: str


class File(_Part):
    """One file of the export."""

    bytes: Whole
    sha256: Sha256


class Manifest(_Part):
    """What a folder of an export holds, and where it came from."""

    schema_id: Literal["urn:learnd:manifest:3"] = Field(alias="$schema")
    format_version: Literal[3]
    number: Count
    created_at: Moment
    name: str
    """Of the learnd that made it."""
    parent: Parent | None
    task: str
    model: str
    window: Count | None
    """Readings of a key in one input; None: one."""
    features: list[Feature]
    predicts: list[str]
    """What the numbers of a prediction are called."""
    classes: list[str]
    """By their number, the order of the probabilities; empty where the model has none."""
    inputs: list[Port]
    outputs: list[Port]
    scaling: dict[str, Scale]
    offsets: list[Offset]
    time_range: TimeRange | None
    """None: the records tell no time."""
    samples: Whole
    updates: Whole
    loss: str
    """What losses are of: a name of Keras', the user's own, or the task's: squared error in standard deviations, or
    cross-entropy."""
    prequential: Prequential
    config_sha256: Sha256
    """Of the whole configuration without its secrets."""
    versions: dict[str, str]
    """Of learnd, Python and the libraries that made the files."""
    code_sha256: dict[str, Sha256]
    """Of the Python files of learnd, and of the user's packages that the model is made of."""
    signing_key: SigningKey | None
    """None: not signed."""
    formats: dict[str, Format]
    unavailable: dict[str, str]
    """Formats that were asked for and that this model cannot have, each with the reason."""
    files: dict[str, File]
    """Every file in the folder but this one and its signature, by its path."""
    links: dict[str, Annotated[str, Field(pattern="^saved_model/[^/]+$")]]
    """Other names of the SavedModel's parts, so that the folder itself is one, as TensorFlow Serving wants it."""


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
        "time_range": _time_range(snapshot.first_time_s, snapshot.last_time_s),
        "prequential": {
            "live": _errors(signal.loss, signal.absolute_error, signal.mean_loss),
            "averaged": _errors(signal.averaged_loss),
        },
        "classes": list(snapshot.labels),
    }


def _time_range(first_s: float, last_s: float) -> dict[str, str] | None:
    """None for records that tell no time: lines of a file are then all of the time 0.

    >>> _time_range(0.0, 0.0), _time_range(0.0, 60.0)
    (None, {'first': '1970-01-01T00:00:00+00:00', 'last': '1970-01-01T00:01:00+00:00'})
    """
    return {"first": moment(first_s), "last": moment(last_s)} if first_s or last_s else None


def _errors(loss: float, absolute_error: float = math.nan, mean_loss: float = math.nan) -> dict[str, float | None]:
    """JSON has no NaN.

    >>> _errors(0.5)
    {'loss': 0.5, 'absolute_error': None, 'mean_loss': None}
    """
    figures = {"loss": loss, "absolute_error": absolute_error, "mean_loss": mean_loss}
    return {name: figure if math.isfinite(figure) else None for name, figure in figures.items()}


def moment(time_s: float) -> str:
    """
    >>> moment(0.0)
    '1970-01-01T00:00:00+00:00'
    """
    return datetime.fromtimestamp(time_s, UTC).isoformat()


def parent(folder: Path | None, published: Published | None = None) -> dict[str, Any] | None:
    """What a manifest says of the export in *folder*, the newest so far; None where there is none, or no manifest.

    *published* is how an export did since; it counts if it is that one.
    """
    path = folder / FILE_NAME if folder is not None else None
    if folder is None or path is None or not path.is_file():
        return None
    known = published if published is not None and published.number == int(folder.name) else None
    return {
        "number": int(folder.name),
        "manifest_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "loss_since": known.loss if known else None,
        "samples_since": known.samples if known else 0,
    }


def hash_files(folder: Path, *, durable: bool = True) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file under *folder* but the manifest and its signature.

    Each is made durable on the way, unless they are only looked at. A link is no file of an export.
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
    """Write the manifest, durably, if *document* is one; returns its bytes.

    Raises
    ------
    ExportError
        if it does not fit `Manifest`; better no export than one that its readers do not understand.
    """
    head = {"$schema": SCHEMA_ID, "format_version": FORMAT_VERSION}
    try:
        made = Manifest.model_validate({**head, **document})
    except ValidationError as error:
        raise ExportError(f"{FILE_NAME} does not fit its schema: {first_problem(error)}") from error
    text = json.dumps(made.model_dump(mode="json", by_alias=True), indent=2, allow_nan=False) + "\n"
    write_text(folder / FILE_NAME, text)
    return text.encode()


def unavailable(folder: Path) -> dict[str, str]:
    """The formats that the model cannot have, each with the reason, as the manifest in *folder* has them."""
    found: dict[str, str] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))["unavailable"]
    return found


def first_problem(error: ValidationError) -> str:
    """Where a document does not fit its schema, and why, in one line."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the manifests that are written now."""
    made = Manifest.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **made,
        "title": "learnd.json, the manifest of a learnd export",
    }
