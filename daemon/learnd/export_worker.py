"""The work of the child process that builds and verifies one export; `learnd.export_child` is its beginning.

It reads ``FOLDER/.request`` and writes the formats and the manifest beside it. On success it ends with status 0;
otherwise its last line on standard error says why.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from learnd.durable import fsync
from learnd.errors import ExportError, LearndError
from learnd.exporters import EXPORTERS, card, manifest, serving, software
from learnd.exporters.publish import REQUEST
from learnd.exporters.signature import Signer
from learnd.exporters.verify import largest_difference
from learnd.modeling import make_model
from learnd.settings import ModelRecipe

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
    recipe = ModelRecipe.model_validate(request["recipe"])
    formats: dict[str, Any] = {}
    for name in request["formats"]:
        network = make_model(recipe, unroll=name == "tflite").network
        for i, variable in enumerate(network.served_state()):
            variable.assign(arrays[f"weight_{i}"])
        network.settle()
        implementation = EXPORTERS[name].load()()
        target = folder / implementation.file_name
        started_s = time.monotonic()
        _write(implementation, network, target, name)
        written_s = time.monotonic()
        answers = implementation.reader(target)(inputs)
        tolerance = request["tolerance"]
        ratio = largest_difference(name, answers, wanted, tolerance=tolerance)
        formats[name] = {
            "path": implementation.file_name,
            "tolerance": tolerance,
            "difference_of_allowed": ratio,
            "verified_rows": len(inputs),
            "write_s": round(written_s - started_s, 3),
            "load_and_run_s": round(time.monotonic() - written_s, 3),
        }
    model = recipe.model
    _seal(
        folder,
        {
            **request["manifest"],
            "inputs": [{"name": "inputs", "dtype": "float32", "shape": [None, *inputs.shape[1:]]}],
            "outputs": [
                {"name": name, "dtype": str(value.dtype), "shape": [None, *value.shape[1:]]}
                for name, value in wanted.items()
            ],
            "scaling": network.scales(),
            "versions": software.versions(),
            "code_sha256": software.code_hashes([*model.code, *([model.factory] if model.kind == "factory" else [])]),
            "formats": formats,
        },
        Signer(Path(request["signing_key_file"])) if request["signing_key_file"] else None,
    )


def _seal(folder: Path, document: dict[str, Any], signer: Signer | None) -> None:
    """Add what is made from all that is there: the card, the hashes, the manifest, its signature; in this order."""
    key = {"algorithm": "Ed25519", "id": signer.key_id} if signer is not None else None
    document = {**document, "links": serving.link(folder), "signing_key": key}
    card.write(folder, document)
    files = {p: f for p, f in manifest.hash_files(folder).items() if not p.startswith(f"{REQUEST}/")}
    written = manifest.write(folder, {**document, "files": files})
    if signer is not None:
        path = folder / manifest.SIGNATURE_NAME
        path.write_bytes(signer.sign(written))
        fsync(path)


def _write(implementation: Any, network: Any, target: Path, name: str) -> None:
    try:
        implementation.write(network, target)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = lines[0][:300] if lines else type(error).__name__
        raise ExportError(
            f"{name} cannot be written: {said}; export.formats without {name} publishes the rest"
        ) from error
