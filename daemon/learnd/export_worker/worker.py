"""Builds and verifies one export in a child process, which `learnd.export_worker.bootstrap` starts.

It reads the request in ``FOLDER/.request`` (`learnd.export.request`), and writes the formats and the manifest to
FOLDER. On success it exits with status 0; otherwise the last line on standard error is the reason. While it works on a
format, ``FOLDER/.request/format`` holds that format's name, for the parent to read if this process is killed.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from learnd.config.settings import LearningRecipe
from learnd.core.errors import ExportError, FormatUnavailableError, LearndError
from learnd.core.fsync import fsync
from learnd.core.types import Float32Array, Float64Array
from learnd.export import manifest, model_card, software, tf_serving
from learnd.export.exportable_model import ExportableModel
from learnd.export.formats import EXPORTERS
from learnd.export.request import ARRAYS, CURRENT_FORMAT, DOCUMENT, REHEARSAL, REQUEST, is_rehearsal
from learnd.export.signing import Signer
from learnd.export.verify import largest_difference
from learnd.export_worker.restore_model import restore_model

_LOWEST_PRIORITY = 19


class Reader(Protocol):
    """A written format, loaded again."""

    def __call__(self, x: Float32Array, /) -> Mapping[str, Float32Array]:
        """Return the outputs by name for raw inputs, (n, *row_shape)."""
        ...

    def check(self, x: Float32Array, /) -> None:
        """Raise ExportError if anything besides predicting does not work."""
        ...


class Writer(Protocol):
    """One format of `EXPORTERS`."""

    file_name: str
    unroll: bool
    """Build the model with loops over time unrolled."""

    @property
    def tolerance(self) -> float | None:
        """Default tolerance of a format that rounds on purpose; None for a format that does not."""
        ...

    def write(self, model: ExportableModel, target: Path, /) -> None: ...

    def reader(self, target: Path, /) -> Reader: ...


def main(arguments: list[str]) -> int:
    """Build one export in the folder that is the first argument; with ``--nice``, at the lowest priority."""
    if "--nice" in arguments:
        os.nice(_LOWEST_PRIORITY)
    try:
        folder = Path(arguments[0])
        if is_rehearsal(folder):
            rehearse(folder)
        else:
            build_export(folder)
    except LearndError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


def build_export(folder: Path) -> None:
    """Write every requested format, load each again, compare its answers, and write the manifest.

    Raises
    ------
    ExportError
        if a format cannot be written, loaded or run, or no format is available.
    VerificationError
        if a format gives other answers than the live model.
    """
    job = _Job(folder)
    formats: dict[str, dict[str, Any]] = {}
    unavailable: dict[str, str] = dict(job.request["manifest"].get("unavailable", {}))
    for name in job.request["formats"]:
        (folder / REQUEST / CURRENT_FORMAT).write_text(name, encoding="utf-8")
        writer: Writer = EXPORTERS[name].load()()
        try:
            formats[name] = _build(name, writer, job)
        except FormatUnavailableError as error:
            (folder / writer.file_name).unlink(missing_ok=True)
            unavailable[name] = str(error)
    if not formats:
        raise ExportError("; ".join(f"{name} is unavailable: {reason}" for name, reason in unavailable.items()))
    key = job.request["signing_key_file"]
    description = job.request["manifest"]
    if tf_serving.FOLDER in formats:
        tf_serving.write_example(folder, job.inputs[-1], [feature["input"] for feature in description["features"]])
    network = job.model(unroll=False).network
    _seal(
        folder,
        {
            **description,
            "inputs": [{"name": "inputs", "dtype": "float32", "shape": [None, *job.inputs.shape[1:]]}],
            "outputs": [
                {"name": name, "dtype": str(value.dtype), "shape": [None, *value.shape[1:]]}
                for name, value in job.expected.items()
            ],
            "scaling": network.scales(),
            "loss": network.loss_name,
            "versions": software.versions(),
            "code_sha256": software.code_hashes(_addresses(job.recipe)),
            "formats": formats,
            "unavailable": unavailable,
        },
        Signer(Path(key)) if key else None,
    )


def rehearse(folder: Path) -> None:
    """Write, load and run every requested format of a model that has learned nothing; record those that fail.

    The answers are not compared: the scales of a fresh model mean nothing yet.
    """
    job = _Job(folder)
    unavailable: dict[str, str] = {}
    for name in job.request["formats"]:
        (folder / REQUEST / CURRENT_FORMAT).write_text(name, encoding="utf-8")
        writer: Writer = EXPORTERS[name].load()()
        try:
            _write_and_run(name, writer, job)
        except (FormatUnavailableError, ExportError) as error:
            unavailable[name] = str(error)
            (folder / REQUEST / REHEARSAL).write_text(json.dumps(unavailable), encoding="utf-8")


class _Job:
    """The request in *folder*, and the models that are restored from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.request: dict[str, Any] = json.loads((folder / REQUEST / DOCUMENT).read_text(encoding="utf-8"))
        self.recipe = LearningRecipe.model_validate(self.request["recipe"])
        self._arrays = np.load(folder / REQUEST / ARRAYS, allow_pickle=False)
        self.inputs: Float32Array = self._arrays["inputs"]
        self.expected: dict[str, Float32Array] = self._with_prefix("output_")
        """The live model's answers to `inputs`."""
        self._models: dict[bool, ExportableModel] = {}

    def model(self, *, unroll: bool) -> ExportableModel:
        """Return the model, with its loops over time unrolled or not; the same object at every call."""
        if unroll not in self._models:
            names = self.request["learning"]
            self._models[unroll] = restore_model(self.recipe, names, self._arrays, unroll=unroll)
        return self._models[unroll]

    @functools.cached_property
    def spreads(self) -> dict[str, Float64Array]:
        """Standard deviations of the answers: of the recent ones, but at least those that the network knows."""
        least = self.model(unroll=False).network.least_spreads(self.expected)
        return {name: np.maximum(spread, least[name]) for name, spread in self._with_prefix("spread_").items()}

    def _with_prefix(self, prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): self._arrays[name] for name in self._arrays if name.startswith(prefix)}


def _addresses(recipe: LearningRecipe) -> list[str]:
    """Return the addresses of the user's code that the model is made of."""
    model = recipe.model
    return [*model.code, *([model.factory] if model.kind == "factory" else [])]


def _seal(folder: Path, document: dict[str, Any], signer: Signer | None) -> None:
    """Write the files that describe the others: links, model card, manifest with hashes, signature; in this order."""
    key = {"algorithm": "Ed25519", "id": signer.key_id} if signer is not None else None
    document = {**document, "links": tf_serving.link(folder), "signing_key": key}
    model_card.write(folder, document)
    files = {p: f for p, f in manifest.hash_files(folder).items() if not p.startswith(f"{REQUEST}/")}
    text = manifest.write(folder, {**document, "files": files})
    if signer is not None:
        path = folder / manifest.SIGNATURE_NAME
        path.write_bytes(signer.sign(text))
        fsync(path)


def _write_and_run(name: str, writer: Writer, job: _Job) -> tuple[Mapping[str, Float32Array], dict[str, float]]:
    """Write one format, load it again, and use it; return its answers, and the durations for the manifest."""
    model = job.model(unroll=writer.unroll)
    target = job.folder / writer.file_name
    started_s = time.monotonic()
    with _error_of(name, "written"):
        writer.write(model, target)
    written_s = time.monotonic()
    with _error_of(name, "loaded"):
        reader = writer.reader(target)
    loaded_s = time.monotonic()
    with _error_of(name, "run"):
        answers = reader(job.inputs)
    with _error_of(name, "used"):
        reader.check(job.inputs)
    return answers, {"write_s": round(written_s - started_s, 3), "load_s": round(loaded_s - written_s, 3)}


def _build(name: str, writer: Writer, job: _Job) -> dict[str, Any]:
    """Write one format, load it again, compare its answers, and return its entry in the manifest."""
    answers, durations = _write_and_run(name, writer, job)
    target = job.folder / writer.file_name
    tolerance = job.request["tolerances"].get(name) or writer.tolerance or job.request["tolerance"]
    rounded = writer.tolerance is not None
    ratio = largest_difference(name, answers, job.expected, job.spreads, tolerance=tolerance, mean=rounded)
    return {
        "path": writer.file_name,
        "tolerance": tolerance,
        "measure": "root mean square" if rounded else "largest",
        "difference_of_allowed": ratio,
        "verified_rows": len(job.inputs),
        **durations,
        "bytes": sum(path.stat().st_size for path in (target, *target.rglob("*")) if path.is_file()),
    }


@contextmanager
def _error_of(name: str, action: str) -> Iterator[None]:
    """Turn another library's exception into an ExportError that names the format and the failed action."""
    try:
        yield
    except LearndError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0][:300] if lines else type(error).__name__
        raise ExportError(
            f"{name} cannot be {action}: {text}; remove {name} from export.formats to publish the other formats"
        ) from error
