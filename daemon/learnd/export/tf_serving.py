"""Files that TensorFlow Serving and its clients expect in a version's folder: links to a SavedModel, and a request."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from learnd.core.types import Float32Array

FOLDER = "saved_model"
EXAMPLE = "example_request.json"


def link(folder: Path) -> dict[str, str]:
    """Link everything in ``saved_model/`` into *folder*; return each link's name and target, relative to *folder*."""
    inside = folder / FOLDER
    names = sorted(path.name for path in inside.iterdir()) if inside.is_dir() else []
    links = {name: f"{FOLDER}/{name}" for name in names if not (folder / name).exists()}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return links


def write_example(folder: Path, row: Float32Array, inputs: Sequence[str]) -> None:
    """Write one recent input as the body of a request to TensorFlow Serving's REST interface.

    *inputs* are the argument names of the features in the signature ``records``.
    """
    columns = {name: [row[..., i].tolist()] for i, name in enumerate(inputs)}
    body = {"signature_name": "records", "inputs": columns}
    (folder / EXAMPLE).write_text(json.dumps(body) + "\n", encoding="utf-8")


def link_target(name: str, links: Mapping[str, str]) -> str | None:
    """Return the file that *name* leads to through one of *links*; None if its path contains no link.

    >>> link_target("variables/variables.index", {"variables": "saved_model/variables"})
    'saved_model/variables/variables.index'
    """
    first, _, rest = name.partition("/")
    if first not in links:
        return None
    return f"{links[first]}/{rest}" if rest else links[first]


def names(folder: Path, links: Iterable[str]) -> list[str]:
    """Return the path of every file of a version, including the paths through *links*.

    Object stores have no links, so an upload copies those files twice.
    """
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    for name in links:
        paths |= {path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if path.is_file()}
    return sorted(paths)
