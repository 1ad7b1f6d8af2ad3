"""The files of checkpoints: atomic creation and removal, and checksums.

Checkpoint 7 consists of ``ckpt-7.index`` and ``ckpt-7.data-*``, in TensorFlow's format, and of its summary
``ckpt-7.json``: offsets, counts, time, and the SHA-256 of the other files and of the summary itself. The checkpoint
exists once its index is in the directory. If the folder ``.partial-7`` exists without that index, checkpoint 7 is
incomplete, being written or removed, and `sweep` deletes it. So a crash is never mistaken for damage, nor damage for
a crash.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from learnd.core import crash_points
from learnd.core.errors import StateDamagedError
from learnd.core.fsync import fsync

FORMAT_VERSION = 1
SET_ASIDE = "damaged-"
"""Start of the new file names of a damaged checkpoint."""
_NAME = re.compile(r"ckpt-(\d+)\.(index|json|data-.*)$")
_PARTIAL = ".partial-"


def prefix(directory: Path, number: int) -> Path:
    """Return the path prefix of all files of checkpoint *number*."""
    return directory / f"ckpt-{number}"


def numbers(directory: Path) -> list[int]:
    """Return the numbers of all checkpoints, ascending: damaged ones are included, incomplete ones are not."""
    present = {int(match[1]) for path in directory.iterdir() if (match := _NAME.match(path.name))}
    return sorted(present - set(_incomplete(directory)))


def _incomplete(directory: Path) -> list[int]:
    """Return the numbers of checkpoints that a crash left half written or half removed."""
    partial = [int(path.name.removeprefix(_PARTIAL)) for path in directory.glob(f"{_PARTIAL}*")]
    return [number for number in partial if not _index(directory, number).exists()]


def _index(directory: Path, number: int) -> Path:
    return directory / f"ckpt-{number}.index"


def _summary(directory: Path, number: int) -> Path:
    return directory / f"ckpt-{number}.json"


def _files(directory: Path, number: int) -> list[Path]:
    """Return the files of one checkpoint, its index last."""
    paths = [path for path in directory.glob(f"ckpt-{number}.*") if _NAME.match(path.name)]
    return sorted(paths, key=lambda path: (path.suffix == ".index", path.name))


def sweep(directory: Path) -> None:
    """Delete what a crash left half written or half removed."""
    for number in _incomplete(directory):
        for path in _files(directory, number):
            path.unlink()
    for folder in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(folder)


def write(
    directory: Path,
    number: int,
    summary: Mapping[str, Any],
    write_arrays: Callable[[Path], object],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Create checkpoint *number* atomically and durably, with its checksums, and return its size in bytes.

    *write_arrays* writes TensorFlow's files to the prefix that it is given. After any error, from it or from the disk,
    there is no checkpoint of that number, as long as the disk still allows deleting.
    """
    partial = directory / f"{_PARTIAL}{number}"
    sweep(directory)  # what an earlier failure could not delete fills the disk
    try:
        partial.mkdir()
        write_arrays(prefix(partial, number))
        crash_points.reached("checkpoint.before-checksums")
        files = {path.name: describe(path) for path in _files(partial, number)}
        _write_summary(_summary(partial, number), {**summary, "saved_at": now().isoformat(), "files": files})
        size_bytes = 0
        for path in _files(partial, number):
            fsync(path)
            size_bytes += path.stat().st_size
        fsync(partial)
        crash_points.reached("checkpoint.before-rename")
        for path in _files(partial, number):
            if path.suffix == ".index":
                crash_points.reached("checkpoint.before-index")
            path.rename(directory / path.name)
        fsync(directory)
    except Exception:
        _discard(directory, number)
        raise
    with contextlib.suppress(OSError):  # the checkpoint is already durable
        partial.rmdir()
    return size_bytes


def _discard(directory: Path, number: int) -> None:
    """Delete the files of a failed write. What the disk refuses to delete now, `sweep` deletes later."""
    with contextlib.suppress(OSError):
        for path in reversed(_files(directory, number)):  # the index first: it must not outlive the other files
            path.unlink()
        shutil.rmtree(directory / f"{_PARTIAL}{number}")


def remove(directory: Path, number: int) -> None:
    """Remove checkpoint *number*. If a crash interrupts this, `sweep` completes it."""
    partial = directory / f"{_PARTIAL}{number}"
    partial.mkdir(exist_ok=True)
    if (index := _index(directory, number)).exists():
        index.rename(partial / index.name)
    crash_points.reached("checkpoint.half-removed")
    for path in _files(directory, number):
        path.unlink()
    shutil.rmtree(partial)


def set_aside(directory: Path, number: int) -> None:
    """Rename a damaged checkpoint, for people to look at; learnd does not read it again."""
    for path in _files(directory, number):
        path.rename(path.with_name(f"{SET_ASIDE}{path.name}"))


def describe(path: Path) -> dict[str, Any]:
    """Return the size and the SHA-256 of one file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_summary(path: Path, document: Mapping[str, Any]) -> None:
    """Write a summary together with its own SHA-256."""
    checkpoint = {"format_version": FORMAT_VERSION, **document}
    text = json.dumps({"checkpoint": checkpoint, "sha256": _digest(checkpoint)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a document, in hex; it does not depend on the order of its keys.

    >>> _digest({"b": 1, "a": [2]}) == _digest({"a": [2], "b": 1})
    True
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_summary(directory: Path, number: int) -> dict[str, Any] | None:
    """Return the summary of checkpoint *number*; None if an older learnd wrote it, without a summary.

    Raises
    ------
    StateDamagedError
        if the summary is not what was written.
    """
    path = _summary(directory, number)
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_bytes())
        checkpoint: dict[str, Any] = document["checkpoint"]
        sound = _digest(checkpoint) == document["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        sound = False
    if not sound:
        raise StateDamagedError(f"{path.name} is not what was written")
    return checkpoint


def saved_at_s(directory: Path, number: int) -> float:
    """Return when checkpoint *number* was saved, in seconds since 1970; without a summary, by its file's time."""
    summary = read_summary(directory, number)
    if summary is None or "saved_at" not in summary:
        return _index(directory, number).stat().st_mtime
    return datetime.fromisoformat(summary["saved_at"]).timestamp()


def newest_fingerprint(directory: Path) -> dict[str, Any] | None:
    """Return the fingerprint of the newest checkpoint whose summary has one; None if there is none."""
    for number in reversed(numbers(directory)) if directory.is_dir() else ():
        with contextlib.suppress(StateDamagedError):
            summary = read_summary(directory, number)
            if summary is not None and "fingerprint" in summary:
                fingerprint: dict[str, Any] = summary["fingerprint"]
                return fingerprint
    return None


def first_difference(saved: Mapping[str, Any], expected: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first key of *expected* whose value in *saved* differs, with both values; None if none does.

    >>> first_difference({"target": ["y"]}, {"target": ("z",)})
    ('target', ['y'], ['z'])
    """
    plain = json.loads(json.dumps(expected))
    return next(((key, saved.get(key), value) for key, value in plain.items() if saved.get(key) != value), None)


def other_configuration(directory: Path, key: str, saved: object, expected: object) -> str:
    """Return the message about a checkpoint that was learned with another configuration, without *key*."""
    return (
        f"the checkpoints under {directory} were learned with {saved}, but the configuration now says {expected}; "
        "change it back, or use another data_dir"
    )


def require_sound(directory: Path, number: int) -> None:
    """Compare every file of checkpoint *number* with its checksum. Without a summary, only the index is required.

    Raises
    ------
    StateDamagedError
        if a file is missing or is not what was written; it names the first such file.
    """
    if not _index(directory, number).exists():
        raise StateDamagedError(f"ckpt-{number}.index is missing")
    summary = read_summary(directory, number)
    for name, expected in (summary["files"] if summary is not None else {}).items():
        path = directory / name
        if not path.exists():
            raise StateDamagedError(f"{name} is missing")
        if (size_bytes := path.stat().st_size) != expected["bytes"]:
            raise StateDamagedError(f"{name} has {size_bytes} bytes, not the {expected['bytes']} that were written")
        if describe(path) != expected:
            raise StateDamagedError(f"{name} is not what was written (its SHA-256 differs)")


def damage(directory: Path, number: int) -> str:
    """Return the error of `require_sound` as text; empty if the checkpoint is sound."""
    try:
        require_sound(directory, number)
    except (StateDamagedError, OSError) as error:
        return str(error)
    return ""


def size_bytes(directory: Path, number: int) -> int:
    """Return the total size of the files of checkpoint *number*, in bytes."""
    return sum(path.stat().st_size for path in _files(directory, number))
