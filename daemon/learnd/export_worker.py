"""The work of the child process that builds and verifies one export; `learnd.export_child` is its beginning.

It reads ``FOLDER/.request`` and writes the formats and the manifest beside it. On success it ends with status 0;
otherwise its last line on standard error says why. ``FOLDER/.request/format`` names the format in hand, for whoever
finds that the process died of it.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from learnd.averaging.none import NoAverager
from learnd.averaging.settings import NoneSettings
from learnd.errors import ExportError, FormatUnavailableError, LearndError
from learnd.exporters import EXPORTERS, manifest
from learnd.exporters.candidate import Candidate
from learnd.exporters.publish import IN_HAND, REQUEST
from learnd.exporters.verify import largest_difference
from learnd.learners.averaged import AveragedModel
from learnd.modeling import make_model, make_update, named_variables, targets_of
from learnd.settings import LearningRecipe

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
    request: dict[str, Any] = json.loads((folder / REQUEST / "request.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / REQUEST / "arrays.npz", allow_pickle=False)
    inputs = arrays["inputs"]
    wanted = {name.removeprefix("output_"): arrays[name] for name in arrays if name.startswith("output_")}
    formats: dict[str, Any] = {}
    for name in request["formats"]:
        (folder / REQUEST / IN_HAND).write_text(name, encoding="utf-8")
        try:
            formats[name] = _build(name, folder, request, arrays, wanted)
        except FormatUnavailableError as error:
            (folder / EXPORTERS[name].load().file_name).unlink(missing_ok=True)
            formats[name] = {"unavailable": str(error)}
    if all("unavailable" in said for said in formats.values()):
        raise ExportError("; ".join(f"{name} is unavailable: {said['unavailable']}" for name, said in formats.items()))
    document = {
        **request["manifest"],
        "tensorflow": tf.__version__,
        "inputs": [{"name": "inputs", "dtype": "float32", "shape": [None, *inputs.shape[1:]]}],
        "outputs": [
            {"name": name, "dtype": str(value.dtype), "shape": [None, *value.shape[1:]]}
            for name, value in wanted.items()
        ],
        "formats": formats,
        "files": {p: f for p, f in manifest.hash_files(folder).items() if not p.startswith(REQUEST)},
    }
    manifest.write(folder, document)


def _build(
    name: str, folder: Path, request: Mapping[str, Any], arrays: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
    """One format, written, loaded back and compared; returns what the manifest says of it."""
    implementation = EXPORTERS[name].load()()
    candidate = make_candidate(request, arrays, unroll=implementation.unroll)
    target = folder / implementation.file_name
    started_s = time.monotonic()
    _write(implementation, candidate, target, name)
    written_s = time.monotonic()
    reader = implementation.reader(target)
    loaded_s = time.monotonic()
    inputs = arrays["inputs"]
    answers = reader(inputs)
    tolerance = request["tolerances"].get(name) or implementation.tolerance or request["tolerance"]
    spreads = {name: arrays[f"spread_{name}"] for name in wanted}
    rounded = implementation.tolerance is not None
    ratio = largest_difference(name, answers, wanted, spreads, tolerance=tolerance, mean=rounded)
    reader.check(inputs)
    return {
        "path": implementation.file_name,
        "tolerance": tolerance,
        "measure": "root mean square" if rounded else "largest",
        "difference_of_allowed": ratio,
        "verified_rows": len(inputs),
        "write_s": round(written_s - started_s, 3),
        "load_s": round(loaded_s - written_s, 3),
        "bytes": sum(path.stat().st_size for path in (target, *target.rglob("*")) if path.is_file()),
    }


def make_candidate(request: Mapping[str, Any], arrays: Mapping[str, Any], *, unroll: bool) -> Candidate:
    """The model of a request, with the averaged weights and with all that it needs to go on learning."""
    recipe = LearningRecipe.model_validate(request["recipe"])
    made = make_model(recipe, unroll=unroll, loss=recipe.learning.loss)
    network = made.network
    # On its own it has nothing to average with: it learns as the live model of a daemon without averaging does.
    averaged = AveragedModel(network, NoAverager(NoneSettings(kind="none")))
    update = make_update(made, recipe.learning, averaged)
    learning = {name: arrays[f"learning_{i}"] for i, name in enumerate(request["learning"])}
    if made.thaw_at is not None and int(learning.pop("learned", 0)) >= made.thaw_at:
        made.freeze.thaw()
    state = named_variables(network, update.optimizer)
    for i, variable in enumerate(network.served_state()):
        variable.assign(arrays[f"weight_{i}"])
    for name, variable in state.items():
        if name in learning:
            variable.assign(learning[name])
    guarded = {f"guard/{name}": variable for name, variable in update.guard.variables().items()}

    def learn(x: Any, y: Any, *, observe: bool = True) -> Any:
        return update(x, y, tf.ones(tf.shape(x)[:1]), observe=observe)[1]

    return Candidate(
        network,
        learn,
        update.optimizer,
        {**state, **guarded},
        tuple(recipe.features),
        targets_of(recipe),
        getattr(recipe.learning, "batch_size", 1),
        arrays["examples"],
    )


def _write(implementation: Any, candidate: Candidate, target: Path, name: str) -> None:
    try:
        implementation.write(candidate, target)
    except ExportError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else type(error).__name__
        raise ExportError(
            f"{name} cannot be written: {said}; export.formats without {name} publishes the rest"
        ) from error
