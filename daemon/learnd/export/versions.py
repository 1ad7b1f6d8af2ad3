"""The folder of published exports: ascending whole numbers as names, and a link ``latest`` to the newest."""

import fcntl
import json
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from learnd.core import crash_points
from learnd.core.errors import ExportError
from learnd.core.fsync import fsync, make_folder, write_text
from learnd.core.schedule import Clock

log = structlog.get_logger()

LATEST = "latest"
YOUNG_S = 60.0
"""Time that a reader has to read a whole version, from when the version was last the newest or last in ``latest``."""
MOST_YOUNG = 60
"""Largest number of versions that can have been the newest within `YOUNG_S`: an export takes more than a second."""
_HIDDEN = ".building-"
"""Prefix of versions that are being built or removed. No reader's pattern matches it, and a start removes them."""
_LAST_NUMBER = ".last-number"
HOLD = ".hold"
"""File with the number that an operator holds."""
_NEW_POINTER = f".{LATEST}.new"


def numbers(directory: Path) -> list[int]:
    """Return the published numbers in *directory*, ascending; empty if it does not exist.

    >>> numbers(Path("nowhere"))
    []
    """
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))


def pointed(directory: Path) -> int | None:
    """Return the number that ``latest`` in *directory* names; None without one."""
    try:
        name = str((directory / LATEST).readlink())
    except OSError:
        return None
    return int(name) if re.fullmatch("[1-9][0-9]*", name) else None


def read_hold(directory: Path) -> int | None:
    """Return the number that an operator holds in *directory*; None if exports are published automatically."""
    try:
        return int((directory / HOLD).read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        log.warning("hold_damaged", path=str(directory / HOLD))
        return 0


def write_hold(directory: Path, number: int | None) -> None:
    """Hold *number*: the daemon publishes nothing else. None: publish automatically again."""
    if number is None:
        (directory / HOLD).unlink(missing_ok=True)
        fsync(directory)
    else:
        write_text(directory / HOLD, str(number))


def original_of(folder: Path) -> int | None:
    """Return the number of the older export that *folder* repeats; None for a new export."""
    try:
        original = json.loads((folder / "learnd.json").read_text(encoding="utf-8")).get("republished_of")
    except (OSError, ValueError, AttributeError):
        return None
    return original if isinstance(original, int) else None


class Versions:
    """Publishes and prunes versions so that every visible number is a complete export.

    A version is built under a hidden name, flushed, then renamed. Pruning renames it back before it deletes.

    Parameters
    ----------
    keep : number of newest versions to keep
    clock : measures how long ago a reader could last find a version; must never go back
    now : seconds since 1970, the lower bound of new numbers
    """

    def __init__(
        self, directory: Path, *, keep: int, clock: Clock = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self.directory = directory
        self._keep = keep
        self._clock = clock
        self._now = now
        self._opened_s = 0.0
        self._last_visible_s: dict[int, float] = {}
        """When a reader could last find a version as the newest, or by `latest`."""

    def open(self) -> None:
        """Make the folder, remove what a crash left behind, and point ``latest`` at the newest version."""
        make_folder(self.directory)
        for remains in self.directory.glob(f"{_HIDDEN}*"):
            shutil.rmtree(remains, ignore_errors=True)
        (self.directory / _NEW_POINTER).unlink(missing_ok=True)
        self._opened_s = self._clock()
        published = self.numbers()
        if not published and self.latest() is not None:
            (self.directory / LATEST).unlink()
        if published and self.latest() != published[-1]:  # a crash between the two renames
            try:
                self._point(published[-1])
            except ExportError as error:
                log.error("pointer_failed", error=str(error))

    def numbers(self) -> list[int]:
        """Return the published numbers, ascending."""
        return numbers(self.directory)

    def path(self, number: int) -> Path:
        """Return the folder of version *number*."""
        return self.directory / str(number)

    def newest(self) -> Path | None:
        """Return the newest version's folder; None if nothing is published."""
        published = self.numbers()
        return self.path(published[-1]) if published else None

    def latest(self) -> int | None:
        """Return the number that ``latest`` names (the champion); None without one."""
        return pointed(self.directory)

    def take_number(self, *, above: int = 0) -> int:
        """Return a number that was never used, greater than *above*; it is recorded durably before it is returned.

        It is not below the seconds since 1970. A ``data_dir`` restored from a backup does not know the numbers that
        were published after the backup, but the time has advanced since then.
        """
        record = self.directory / _LAST_NUMBER
        with self._locked():
            try:
                last = int(record.read_text(encoding="ascii"))
            except FileNotFoundError:
                last = 0
            except ValueError:
                log.warning("number_record_damaged", path=str(record))
                last = 0
            number = max(last + 1, above + 1, *(newest + 1 for newest in self.numbers()[-1:]), int(self._now()))
            write_text(record, str(number))
        return number

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes, such as ``learnd rollback`` next to a daemon, from taking numbers and publishing."""
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def building(self, number: int) -> Path:
        """Return the hidden folder in which version *number* is built."""
        return self.directory / f"{_HIDDEN}{number}"

    def publish(self, number: int) -> None:
        """Rename the built version to its number, then move ``latest`` to it; both durably, in this order.

        Raises
        ------
        ExportError
            if a higher number was published meanwhile, or if ``latest`` cannot be moved. In the second case the
            version is published under its number all the same.
        """
        building = self.building(number)
        _fsync_folders(building)
        with self._locked():
            self._rename(building, number)

    def _rename(self, building: Path, number: int) -> None:
        newest = max(self.numbers(), default=0)
        if newest > number:
            raise ExportError(f"{newest} was published meanwhile, by another process; the next export is newer")
        latest = self.latest()
        superseded = {*self.numbers()[-1:], *([latest] if latest is not None else [])}
        crash_points.reached("export.before-rename")
        building.rename(self.path(number))
        try:
            crash_points.reached("export.after-rename")
            fsync(self.directory)
            self._point(number)
        finally:
            self._last_visible_s |= dict.fromkeys({number, *superseded}, self._clock())

    def discard(self, number: int) -> None:
        """Delete the files built for *number*, if it was not published."""
        shutil.rmtree(self.building(number), ignore_errors=True)

    def prune(self, *, needed: Collection[int | None] = ()) -> None:
        """Remove old versions, except the newest, the young, the one that ``latest`` names, and those in *needed*.

        The newest version that an operator published again stays too.
        """
        protected = {self.latest(), self._chosen(), *needed}
        beyond = self.numbers()[: -self._keep]
        for number in beyond:
            # A version published before this process started counts as visible until the start: file times prove
            # nothing, because the system's clock may have been set. That holds for at most MOST_YOUNG of them, so that
            # a daemon that restarts again and again does not fill the disk.
            last_visible_s = self._last_visible_s.get(
                number, self._opened_s if number in beyond[-MOST_YOUNG:] else -math.inf
            )
            if number in protected or self._clock() - last_visible_s < YOUNG_S:
                continue
            hidden = self.directory / f"{_HIDDEN}pruned-{number}"
            self.path(number).rename(hidden)
            # Without this, the disk could lose the files before the name, and show a version that does not load.
            fsync(self.directory)
            crash_points.reached("export.half-pruned")
            shutil.rmtree(hidden, ignore_errors=True)
            self._last_visible_s.pop(number, None)

    def _chosen(self) -> int | None:
        """Return the newest version that an operator published again; None if there is none."""
        return next((n for n in reversed(self.numbers()) if original_of(self.path(n)) is not None), None)

    def point(self, number: int) -> None:
        """Point ``latest`` at *number*, which is the newest."""
        with self._locked():
            self._point(number)

    def _point(self, number: int) -> None:
        """Point ``latest`` at *number*, atomically and durably."""
        pointer = self.directory / LATEST
        temporary = self.directory / _NEW_POINTER
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(str(number))
            crash_points.reached("export.before-pointer")
            temporary.replace(pointer)
        except OSError as error:
            raise ExportError(
                f"{pointer} cannot point at {number}, which is published: {error.strerror}; data_dir must be on a file "
                "system with symbolic links, and nothing else may have that name"
            ) from error
        crash_points.reached("export.after-pointer")
        fsync(self.directory)


def _fsync_folders(folder: Path) -> None:
    """Flush the names in *folder* and below it; `manifest.hash_files` has flushed the files themselves."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            fsync(path)
