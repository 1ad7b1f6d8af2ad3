"""What ``learnd inspect`` shows of an export or of a data_dir."""

import json
from pathlib import Path
from typing import Any

from learnd.checkpoint import read_arrays
from learnd.errors import UsageError
from learnd.exporters import manifest


def describe(path: Path) -> dict[str, Any]:
    """An export's manifest, with whether its files still have their hashes; or a data_dir's state.

    Raises
    ------
    UsageError
        if *path* is neither.
    """
    if (path / manifest.FILE_NAME).is_file():
        return _export(path)
    if (path / "checkpoints").is_dir():
        arrays, state = read_arrays(path / "checkpoints")
        exports = sorted(int(p.name) for p in (path / "exports").glob("*") if p.name.isdigit())
        shapes = {name: list(array.shape) for name, array in sorted(arrays.items())}
        return {"progress": state["progress"], "exports": exports, "arrays": shapes}
    raise UsageError(f"{path} is neither an export (no {manifest.FILE_NAME}) nor a data_dir (no checkpoints/)")


def _export(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / manifest.FILE_NAME).read_text(encoding="utf-8"))
    found = manifest.hash_files(path)
    document["sound"] = found == document["files"]
    return document
