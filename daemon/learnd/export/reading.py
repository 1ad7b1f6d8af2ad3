"""Loading of a published export: its manifest, and the function that runs one of its formats."""

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from learnd.core.errors import ExportDamagedError, FormatUnavailableError, UsageError
from learnd.core.types import Float32Array, NamedArrays
from learnd.export import manifest
from learnd.export.formats import READERS

Answer: TypeAlias = Callable[[Float32Array], NamedArrays]
"""From raw inputs, shape (n, *row_shape), to the outputs by name."""

_NEEDED = ("formats", "features", "window")
"""The fields of a manifest without which an export cannot be run."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of the export in *folder*, as plain values.

    Raises
    ------
    UsageError
        if *folder* is not an export.
    ExportDamagedError
        if the manifest is not JSON.
    """
    path = folder / manifest.FILE_NAME
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"{folder} is not an export: it has no {manifest.FILE_NAME}") from None
    except ValueError as error:
        raise ExportDamagedError(f"{path} cannot be read: {error}") from error
    missing = [key for key in _NEEDED if not isinstance(document, dict) or key not in document]
    if missing:
        raise ExportDamagedError(f"{path} has no {', '.join(missing)}, so it is no export of learnd; copy it again")
    return document


def load_reader(folder: Path, formats: Mapping[str, Mapping[str, str]], format: str | None) -> tuple[str, Answer]:
    """Return the name of a format and the function that runs it; None stands for the first that can be run.

    Raises
    ------
    UsageError
        if the export has no such format, or if the format needs code that was not imported.
    ExportDamagedError
        if the format's file is missing or cannot be loaded.
    """
    runnable = [name for name in formats if name in READERS]
    chosen = format if format is not None else next(iter(runnable), "")
    if chosen not in runnable:
        raise UsageError(f"{folder} has no format {chosen!r} that can be run; it has {', '.join(runnable) or 'none'}")
    module, _, name = READERS[chosen].partition(":")
    load = getattr(import_module(module), name)
    try:
        reader: Answer = load(folder / formats[chosen]["path"])
    except FormatUnavailableError as error:
        raise UsageError(
            f"{folder}: {chosen} cannot be loaded: {error}; import the module with that code first (learnd predict: "
            "--code)"
        ) from error
    except Exception as error:  # each runtime raises its own error for a missing or truncated file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportDamagedError(
            f"{folder}: {chosen} cannot be loaded: {reason}; learnd inspect {folder} --verify names the damaged files"
        ) from error
    return chosen, reader
