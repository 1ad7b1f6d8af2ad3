"""The work of the child process that builds and verifies one export; `learnd.export_worker.bootstrap` is its beginning.

It reads ``FOLDER/.request`` and writes the formats and the manifest beside it. On success it ends with status 0;
otherwise its last line on standard error says why. ``FOLDER/.request/format`` names the format in hand, for whoever
finds that the process died of it.
"""

import functools
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from learnd.config.settings import LearningRecipe
from learnd.core.errors import ExportError, FormatUnavailableError, LearndError
from learnd.core.fsync import fsync
from learnd.export import manifest, model_card, software, tf_serving
from learnd.export.exportable_model import Candidate
from learnd.export.formats import EXPORTERS
from learnd.export.publisher import IN_HAND, REQUEST
from learnd.export.signing import Signer
from learnd.export.verify import largest_difference
from learnd.export_worker.restore_model import make_candidate

_LOWEST_PRIORITY = 19


def main(arguments: list[str]) -> int:
    """Build one export in the folder that is named first; ``--nice`` does it at the lowest priority."""
    if "--nice" in arguments:
        os.nice(_LOWEST_PRIORITY)
    try:
        build_export(Path(arguments[0]))
    except LearndError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the parent reads it
        return 1
    return 0


def build_export(folder: Path) -> None:
    """Write every format asked for, load each back, compare, and write the manifest."""
    job = _Job(folder)
    formats: dict[str, Any] = {}
    unavailable: dict[str, str] = {}
    for name in job.asked["formats"]:
        (folder / REQUEST / IN_HAND).write_text(name, encoding="utf-8")
        try:
            formats[name] = _build(name, job)
        except FormatUnavailableError as error:
            (folder / EXPORTERS[name].load().file_name).unlink(missing_ok=True)
            unavailable[name] = str(error)
    if not formats:
        raise ExportError("; ".join(f"{name} is unavailable: {reason}" for name, reason in unavailable.items()))
    key = job.asked["signing_key_file"]
    described = job.asked["manifest"]
    if tf_serving.FOLDER in formats:
        tf_serving.write_example(folder, job.inputs[-1], [feature["input"] for feature in described["features"]])
    _seal(
        folder,
        {
            **described,
            "inputs": [{"name": "inputs", "dtype": "float32", "shape": [None, *job.inputs.shape[1:]]}],
            "outputs": [
                {"name": name, "dtype": str(value.dtype), "shape": [None, *value.shape[1:]]}
                for name, value in job.wanted.items()
            ],
            "scaling": job.candidate(unroll=False).network.scales(),
            "loss": job.candidate(unroll=False).network.loss_name,
            "versions": software.versions(),
            "code_sha256": software.code_hashes(_packages(job.recipe)),
            "formats": formats,
            "unavailable": unavailable,
        },
        Signer(Path(key)) if key else None,
    )


class _Job:
    """What was asked for, as files below *folder*, and the models that are made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: dict[str, Any] = json.loads((folder / REQUEST / "request.json").read_text(encoding="utf-8"))
        self.recipe = LearningRecipe.model_validate(self.asked["recipe"])
        self._arrays = np.load(folder / REQUEST / "arrays.npz", allow_pickle=False)
        self.inputs = self._arrays["inputs"]
        self.wanted = self._named("output_")
        self._candidates: dict[bool, Candidate] = {}

    def candidate(self, *, unroll: bool) -> Candidate:
        """The model, its loops written out or not; the same one at every call."""
        if unroll not in self._candidates:
            names = self.asked["learning"]
            self._candidates[unroll] = make_candidate(self.recipe, names, self._arrays, unroll=unroll)
        return self._candidates[unroll]

    @functools.cached_property
    def spreads(self) -> dict[str, Any]:
        """What counts as a standard deviation of the answers: that of the recent ones, or what the model knows."""
        least = self.candidate(unroll=False).network.least_spreads(self.wanted)
        return {name: np.maximum(spread, least[name]) for name, spread in self._named("spread_").items()}

    def _named(self, prefix: str) -> dict[str, Any]:
        return {name.removeprefix(prefix): self._arrays[name] for name in self._arrays if name.startswith(prefix)}


def _packages(recipe: LearningRecipe) -> list[str]:
    """Where the user's code that the model is made of is."""
    model = recipe.model
    return [*model.code, *([model.factory] if model.kind == "factory" else [])]


def _seal(folder: Path, document: dict[str, Any], signer: Signer | None) -> None:
    """Add what is made from all that is there: the card, the hashes, the manifest, its signature; in this order."""
    key = {"algorithm": "Ed25519", "id": signer.key_id} if signer is not None else None
    document = {**document, "links": tf_serving.link(folder), "signing_key": key}
    model_card.write(folder, document)
    files = {p: f for p, f in manifest.hash_files(folder).items() if not p.startswith(f"{REQUEST}/")}
    written = manifest.write(folder, {**document, "files": files})
    if signer is not None:
        path = folder / manifest.SIGNATURE_NAME
        path.write_bytes(signer.sign(written))
        fsync(path)


def _build(name: str, job: _Job) -> dict[str, Any]:
    """One format, written, loaded back and compared; returns what the manifest says of it."""
    implementation = EXPORTERS[name].load()()
    candidate = job.candidate(unroll=implementation.unroll)
    target = job.folder / implementation.file_name
    started_s = time.monotonic()
    with _named(name, "written"):
        implementation.write(candidate, target)
    written_s = time.monotonic()
    with _named(name, "loaded"):
        reader = implementation.reader(target)
    loaded_s = time.monotonic()
    with _named(name, "run"):
        answers = reader(job.inputs)
    tolerance = job.asked["tolerances"].get(name) or implementation.tolerance or job.asked["tolerance"]
    rounded = implementation.tolerance is not None
    ratio = largest_difference(name, answers, job.wanted, job.spreads, tolerance=tolerance, mean=rounded)
    with _named(name, "used"):
        reader.check(job.inputs)
    return {
        "path": implementation.file_name,
        "tolerance": tolerance,
        "measure": "root mean square" if rounded else "largest",
        "difference_of_allowed": ratio,
        "verified_rows": len(job.inputs),
        "write_s": round(written_s - started_s, 3),
        "load_s": round(loaded_s - written_s, 3),
        "bytes": sum(path.stat().st_size for path in (target, *target.rglob("*")) if path.is_file()),
    }


@contextmanager
def _named(name: str, done: str) -> Iterator[None]:
    """What somebody else's library says is told with the format's name, and with what could not be done to it."""
    try:
        yield
    except LearndError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else type(error).__name__
        way_out = f"export.formats without {name} publishes the rest"
        raise ExportError(f"{name} cannot be {done}: {said}; {way_out}") from error
