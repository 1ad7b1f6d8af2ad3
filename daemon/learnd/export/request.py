"""The request for one export: the files from which a child process builds it.

They lie in ``FOLDER/.request/`` while the export is built in FOLDER. The child process shares nothing else with the
learner.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learnd.core.snapshot import Snapshot
from learnd.core.types import Float32Array
from learnd.export import manifest
from learnd.export.settings import ExportSettings
from learnd.export.verify import spread_of

REQUEST = ".request"
"""Folder of the request, inside the folder of the export."""
DOCUMENT = "request.json"
ARRAYS = "arrays.npz"
CURRENT_FORMAT = "format"
"""File with the name of the format that the child process is working on, to be read if the process dies."""
REHEARSAL = "rehearsal.json"
"""File in which the child process of a rehearsal leaves the unavailable formats, each with the reason."""
VERIFIED_ROWS = 64
"""Number of recent inputs on which an export is compared with the live model."""


def write_request(
    building: Path,
    snapshot: Snapshot,
    answers: Mapping[str, Float32Array],
    settings: ExportSettings,
    *,
    recipe: Mapping[str, Any],
    description: Mapping[str, Any],
    rehearsal: bool = False,
) -> None:
    """Write the request for an export of *snapshot* in the folder *building*.

    Parameters
    ----------
    answers : the live model's answers to ``snapshot.probe_inputs``, by output
    recipe : the sections of the configuration from which the child builds the network
    description : the parts of the manifest that the snapshot does not hold
    rehearsal : only find out which formats can be built
    """
    request = building / REQUEST
    request.mkdir(parents=True)
    examples, inputs = split_rows(snapshot.probe_inputs)
    expected = {name: values[-len(inputs) :] for name, values in answers.items()}
    arrays = {f"weight_{i}": weight for i, weight in enumerate(snapshot.weights)}
    arrays |= {f"learning_{i}": array for i, array in enumerate(snapshot.learning.values())}
    arrays |= {f"output_{name}": value for name, value in expected.items()}
    arrays |= {f"spread_{name}": value for name, value in spread_of(answers).items()}
    np.savez(request / ARRAYS, allow_pickle=False, examples=examples, inputs=inputs, **arrays)
    text = json.dumps(
        {
            "recipe": recipe,
            "rehearsal": rehearsal,
            "formats": settings.formats,
            "tolerance": settings.tolerance,
            "tolerances": settings.tolerances,
            "learning": list(snapshot.learning),
            "signing_key_file": str(key.absolute()) if (key := settings.signing_key_file) else None,
            "manifest": {**description, **manifest.provenance(snapshot)},
        }
    )
    (request / DOCUMENT).write_text(text, encoding="utf-8")


def split_rows(rows: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Return the older *rows*, as examples to fit formats to, and the newest, to verify formats on.

    A single row is returned as both.

    >>> [part.tolist() for part in split_rows(np.arange(4, dtype=np.float32))]
    [[0.0, 1.0], [2.0, 3.0]]
    """
    verified = min(VERIFIED_ROWS, len(rows) // 2)
    return (rows[:-verified], rows[-verified:]) if verified else (rows, rows)


def is_rehearsal(building: Path) -> bool:
    """Return whether the request in the folder *building* only asks which formats can be built."""
    document = json.loads((building / REQUEST / DOCUMENT).read_text(encoding="utf-8"))
    return bool(document.get("rehearsal"))
