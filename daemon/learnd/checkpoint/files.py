"""The files of checkpoints: how one comes and goes as a whole, and whether it is still what was written.

Checkpoint 7 is ``ckpt-7.index`` and ``ckpt-7.data-*``, in TensorFlow's format, and ``ckpt-7.json``, its summary:
offsets, counts, time, and the SHA-256 of the others and of itself. It exists once its index stands in the directory.
While the folder ``.partial-7`` is there and that index is not, 7 is half made or half removed, and `sweep` takes it
away: so a crash is never taken for damage, nor damage for a crash.
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
_NAME = re.compile(r"ckpt-(\d+)\.(index|json|data-.*)$")
_PARTIAL = ".partial-"


def prefix(directory: Path, number: int) -> Path:
    """What the names of all files of checkpoint *number* begin with."""
    return directory / f"ckpt-{number}"


def numbers(directory: Path) -> list[int]:
    """Checkpoints of which anything is there, ascending; damaged ones too, but none that is half made or removed."""
    found = {int(match[1]) for path in directory.iterdir() if (match := _NAME.match(path.name))}
    return sorted(found - set(_unfinished(directory)))


def _unfinished(directory: Path) -> list[int]:
    marked = [int(path.name.removeprefix(_PARTIAL)) for path in directory.glob(f"{_PARTIAL}*")]
    return [number for number in marked if not _index(directory, number).exists()]


def _index(directory: Path, number: int) -> Path:
    return directory / f"ckpt-{number}.index"


def _summary(directory: Path, number: int) -> Path:
    return directory / f"ckpt-{number}.json"


def _files(directory: Path, number: int) -> list[Path]:
    """The files of one checkpoint, its index last."""
    found = [path for path in directory.glob(f"ckpt-{number}.*") if _NAME.match(path.name)]
    return sorted(found, key=lambda path: (path.suffix == ".index", path.name))


def sweep(directory: Path) -> None:
    """Take away what a crash left half made or half removed."""
    for number in _unfinished(directory):
        for path in _files(directory, number):
            path.unlink()
    for left in directory.glob(f"{_PARTIAL}*"):
        shutil.rmtree(left)


def write(
    directory: Path,
    number: int,
    summary: Mapping[str, Any],
    write_arrays: Callable[[Path], object],
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> int:
    """Make checkpoint *number* appear as a whole, durably, with its checksums; returns its bytes.

    *write_arrays* is given the prefix to write TensorFlow's files to. Whatever it raises, and every failure of the
    disk, leaves no checkpoint of that number, as far as the disk still obeys.
    """
    partial = directory / f"{_PARTIAL}{number}"
    sweep(directory)  # what an earlier failure could not take back fills the disk
    try:
        partial.mkdir()
        write_arrays(prefix(partial, number))
        crash_points.reached("checkpoint.before-checksums")
        files = {path.name: describe(path) for path in _files(partial, number)}
        _seal(_summary(partial, number), {**summary, "saved_at": now().isoformat(), "files": files})
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
    with contextlib.suppress(OSError):  # it is durable already
        partial.rmdir()
    return size_bytes


def _discard(directory: Path, number: int) -> None:
    """Take back a write that failed; what the disk refuses to remove now, `sweep` removes later."""
    with contextlib.suppress(OSError):
        for path in reversed(_files(directory, number)):  # the index first: without it none of the rest may go
            path.unlink()
        shutil.rmtree(directory / f"{_PARTIAL}{number}")


def remove(directory: Path, number: int) -> None:
    """Take checkpoint *number* away; a crash in between leaves it to `sweep`."""
    partial = directory / f"{_PARTIAL}{number}"
    partial.mkdir(exist_ok=True)
    if (index := _index(directory, number)).exists():
        index.rename(partial / index.name)
    crash_points.reached("checkpoint.half-removed")
    for path in _files(directory, number):
        path.unlink()
    shutil.rmtree(partial)


def set_aside(directory: Path, number: int) -> None:
    """Give a damaged checkpoint another name, for people to look at; nothing of ours reads it again."""
    for path in _files(directory, number):
        path.rename(path.with_name(f"{SET_ASIDE}{path.name}"))


def describe(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of one file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _seal(path: Path, document: Mapping[str, Any]) -> None:
    checkpoint = {"format_version": FORMAT_VERSION, **document}
    text = json.dumps({"checkpoint": checkpoint, "sha256": _digest(checkpoint)}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


def _digest(document: Mapping[str, Any]) -> str:
    """
    >>> _digest({"b": 1, "a": [2]}) == _digest({"a": [2], "b": 1})
    True
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_summary(directory: Path, number: int) -> dict[str, Any] | None:
    """What checkpoint *number* says of itself; None for one that an older learnd wrote, without a summary.

    Raises
    ------
    StateDamagedError
        if its summary is not what was written.
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


def require_sound(directory: Path, number: int) -> None:
    """Compare every file of checkpoint *number* with its checksum; one without a summary only has to have an index.

    Raises
    ------
    StateDamagedError
        that names the first file that is missing, or is not what was written.
    """
    if not _index(directory, number).exists():
        raise StateDamagedError(f"ckpt-{number}.index is missing")
    summary = read_summary(directory, number)
    for name, written in (summary["files"] if summary is not None else {}).items():
        path = directory / name
        if not path.exists():
            raise StateDamagedError(f"{name} is missing")
        if (size_bytes := path.stat().st_size) != written["bytes"]:
            raise StateDamagedError(f"{name} has {size_bytes} bytes of the {written['bytes']} that were written")
        if describe(path) != written:
            raise StateDamagedError(f"{name} is not what was written (its SHA-256 is another)")


def damage(directory: Path, number: int) -> str:
    """What `require_sound` finds, as text; empty where all is well."""
    try:
        require_sound(directory, number)
    except (StateDamagedError, OSError) as error:
        return str(error)
    return ""


def size_bytes(directory: Path, number: int) -> int:
    """The size of all files of checkpoint *number*."""
    return sum(path.stat().st_size for path in _files(directory, number))
