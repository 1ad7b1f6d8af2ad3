"""What TensorFlow Serving and its clients look for in a version's own folder: a SavedModel, by links, and a request."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from learnd.core.types import Float32Array

FOLDER = "saved_model"
EXAMPLE = "example_request.json"


def link(folder: Path) -> dict[str, str]:
    """Link whatever is in ``saved_model/`` beside it; returns name and target of each, relative to *folder*."""
    inside = folder / FOLDER
    names = sorted(path.name for path in inside.iterdir()) if inside.is_dir() else []
    links = {name: f"{FOLDER}/{name}" for name in names if not (folder / name).exists()}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return links


def write_example(folder: Path, row: Float32Array, inputs: Sequence[str]) -> None:
    """Write a request with one recent input as a client of TensorFlow Serving's REST interface posts it.

    *inputs* are what the signature ``records`` calls the features.
    """
    columns = {name: [row[..., i].tolist()] for i, name in enumerate(inputs)}
    body = {"signature_name": "records", "inputs": columns}
    (folder / EXAMPLE).write_text(json.dumps(body) + "\n", encoding="utf-8")


def stands_for(name: str, links: Mapping[str, str]) -> str | None:
    """Of which file *name* is another name, by way of one of *links*; None if it is its own.

    >>> stands_for("variables/variables.index", {"variables": "saved_model/variables"})
    'saved_model/variables/variables.index'
    """
    first, _, rest = name.partition("/")
    if first not in links:
        return None
    return f"{links[first]}/{rest}" if rest else links[first]


def names(folder: Path, links: Iterable[str]) -> list[str]:
    """Every file of a version by its path, also by those that lead through *links*: stores know no links."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in links:
        found |= {path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if path.is_file()}
    return sorted(found)
