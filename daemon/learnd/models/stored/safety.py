"""Checks before any library reads the file: pickles, code in the file, and paths that leave the folder."""

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from learnd.models.stored.model import LAMBDA, refuse

_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".joblib", ".p"})
# Protocol 2 and later start with the PROTO opcode and their number. Frames and opcodes follow.
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_CLASSES_WITH_CODE = frozenset({"__lambda__", "TorchModuleWrapper"})


def refuse_pickle(path: Path, head: bytes) -> None:
    """Refuse the file *path* if its name or its first bytes, *head*, are those of a pickle.

    Reading a pickle runs code, so none is ever read.

    Raises
    ------
    ConfigError
        for a pickle.
    """
    if path.suffix.lower() in _PICKLE_SUFFIXES or _PICKLE_START.match(head):
        refuse(
            f"{path} is a pickle, which runs code when it is read; save the model with model.save('model.keras')"
            " and name that file"
        )


def refuse_unsafe_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive with a member that is a pickle or lies outside of the archive.

    Raises
    ------
    ConfigError
        with the name of the member.
    """
    for name in archive.namelist():
        member = PurePosixPath(name.replace("\\", "/"))
        if member.is_absolute() or ".." in member.parts or re.match(r"[A-Za-z]:", name):
            refuse(f"{path} has the member {name!r}, which lies outside the archive; Keras does not write such files")
        if member.suffix.lower() in _PICKLE_SUFFIXES:
            refuse(f"{path} has the pickle {name!r}, which runs code when it is read; is it a PyTorch file?")


def lambdas_allowed(path: Path, config: object, allowed: Sequence[str]) -> bool:
    """Return whether the configuration holds code, all of which is in *allowed*; False if it holds none.

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


def layers_with_code(config: object, owner: str = "the model") -> Iterator[str]:
    """Yield the names of all layers, at any depth, that are or contain a marshalled function.

    *owner* is the name of the layer that *config* belongs to.

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


def _is_code(config: Mapping[str, Any]) -> bool:
    kind = str(config.get("class_name", "")).rpartition(">")[2]
    # The old formats mark a marshalled function by a key next to it instead of a class around it.
    return kind == "Lambda" or kind in _CLASSES_WITH_CODE or config.get("function_type") == "lambda"
