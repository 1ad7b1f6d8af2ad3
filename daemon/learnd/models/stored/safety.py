"""What is refused before any library looks at it: pickles, code in the file, paths that leave the folder."""

import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from learnd.models.stored.model import LAMBDA, refuse

_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".p"})
# Protocol 2 and later begin with PROTO and their number; frames and opcodes follow.
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_RUNS_CODE = frozenset({"__lambda__", "TorchModuleWrapper"})


def refuse_pickle(path: Path, head: bytes) -> None:
    """A pickle runs code when it is read, so none is, whatever its name says."""
    if path.suffix.lower() in _PICKLE_SUFFIXES or _PICKLE_START.match(head):
        refuse(
            f"{path} is a pickle, which runs code when it is read; save the model with model.save('model.keras')"
            " and name that file"
        )


def refuse_unsafe_members(path: Path, archive: zipfile.ZipFile) -> None:
    """No member of the archive is a pickle or lies outside it."""
    for name in archive.namelist():
        member = PurePosixPath(name.replace("\\", "/"))
        if member.is_absolute() or ".." in member.parts or re.match(r"[A-Za-z]:", name):
            refuse(f"{path} holds the member {name!r}, which lies outside the archive; it is not what Keras writes")
        if member.suffix.lower() in _PICKLE_SUFFIXES:
            refuse(f"{path} holds the pickle {name!r}, which runs code when it is read; is it a PyTorch file?")


def lambdas_allowed(path: Path, config: Any, allowed: Sequence[str]) -> bool:
    """Whether the configuration holds code that the user allowed; False where it holds none.

    Raises
    ------
    ConfigError
        for a layer with code that is not allowed.
    """
    names = sorted(set(layers_with_code(config)))
    refused = [name for name in names if name not in allowed]
    if refused:
        refuse(
            f"{path} holds Python code in {', '.join(refused)}; write it as a layer class and name its module in"
            f" model.code, or, if you trust whoever made the file, name it here: allow_lambda: [{', '.join(names)}]",
            LAMBDA,
        )
    return bool(names)


def layers_with_code(config: Any, owner: str = "the model") -> Iterator[str]:
    """Names of all layers, at any depth, that are or hold a marshalled function.

    >>> list(layers_with_code({"layers": [{"class_name": "Lambda", "config": {"name": "twice"}}]}))
    ['twice']
    """
    if isinstance(config, list):
        for item in config:
            yield from layers_with_code(item, owner)
    elif isinstance(config, dict):
        inner = config.get("config")
        name = inner.get("name") if isinstance(inner, dict) else None
        owner = name if isinstance(name, str) else owner
        if _is_code(config):
            yield owner
        for value in config.values():
            yield from layers_with_code(value, owner)


def _is_code(config: dict[str, Any]) -> bool:
    kind = str(config.get("class_name", "")).rpartition(">")[2]
    # The old formats mark a marshalled function beside it rather than around it.
    return kind == "Lambda" or kind in _RUNS_CODE or config.get("function_type") == "lambda"
