"""The folder of published exports: ascending whole numbers as names, and a link ``latest`` to the newest."""

import math
import re
import shutil
import time
from collections.abc import Callable, Collection
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
_NEW_POINTER = f".{LATEST}.new"


def numbers(directory: Path) -> list[int]:
    """Return the published numbers in *directory*, ascending; empty if it does not exist.

    >>> numbers(Path("nowhere"))
    []
    """
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))


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
        self._directory = directory
        self._keep = keep
        self._clock = clock
        self._now = now
        self._opened_s = 0.0
        self._last_visible_s: dict[int, float] = {}
        """When a reader could last find a version as the newest, or by `latest`."""

    def open(self) -> None:
        """Make the folder, remove what a crash left behind, and point ``latest`` at the newest version."""
        make_folder(self._directory)
        for remains in self._directory.glob(f"{_HIDDEN}*"):
            shutil.rmtree(remains, ignore_errors=True)
        (self._directory / _NEW_POINTER).unlink(missing_ok=True)
        self._opened_s = self._clock()
        published = self.numbers()
        if not published and self.latest() is not None:
            (self._directory / LATEST).unlink()
        if published and self.latest() != published[-1]:  # a crash between the two renames
            try:
                self._point(published[-1])
            except ExportError as error:
                log.error("pointer_failed", error=str(error))

    def numbers(self) -> list[int]:
        """Return the published numbers, ascending."""
        return numbers(self._directory)

    def path(self, number: int) -> Path:
        """Return the folder of version *number*."""
        return self._directory / str(number)

    def newest(self) -> Path | None:
        """Return the newest version's folder; None if nothing is published."""
        published = self.numbers()
        return self.path(published[-1]) if published else None

    def latest(self) -> int | None:
        """Return the number that ``latest`` names (the champion); None without one."""
        try:
            name = str((self._directory / LATEST).readlink())
        except OSError:
            return None
        return int(name) if re.fullmatch("[1-9][0-9]*", name) else None

    def take_number(self, *, above: int = 0) -> int:
        """Return a number that was never used, greater than *above*; it is recorded durably before it is returned.

        It is not below the seconds since 1970. A ``data_dir`` restored from a backup does not know the numbers that
        were published after the backup, but the time has advanced since then.
        """
        record = self._directory / _LAST_NUMBER
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

    def building(self, number: int) -> Path:
        """Return the hidden folder in which version *number* is built."""
        return self._directory / f"{_HIDDEN}{number}"

    def publish(self, number: int) -> None:
        """Rename the built version to its number, then move ``latest`` to it; both durably, in this order.

        Raises
        ------
        ExportError
            if ``latest`` cannot be moved. The version is published under its number in spite of that.
        """
        building = self.building(number)
        _fsync_folders(building)
        latest = self.latest()
        superseded = {*self.numbers()[-1:], *([latest] if latest is not None else [])}
        crash_points.reached("export.before-rename")
        building.rename(self.path(number))
        try:
            crash_points.reached("export.after-rename")
            fsync(self._directory)
            self._point(number)
        finally:
            self._last_visible_s |= dict.fromkeys({number, *superseded}, self._clock())

    def discard(self, number: int) -> None:
        """Delete the files built for *number*, if it was not published."""
        shutil.rmtree(self.building(number), ignore_errors=True)

    def prune(self, *, needed: Collection[int | None] = ()) -> None:
        """Remove old versions, except the newest, the young, the one that ``latest`` names, and those in *needed*."""
        protected = {self.latest(), *needed}
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
            hidden = self._directory / f"{_HIDDEN}pruned-{number}"
            self.path(number).rename(hidden)
            # Without this, the disk could lose the files before the name, and show a version that does not load.
            fsync(self._directory)
            crash_points.reached("export.half-pruned")
            shutil.rmtree(hidden, ignore_errors=True)
            self._last_visible_s.pop(number, None)

    def _point(self, number: int) -> None:
        """Point ``latest`` at *number*, atomically and durably."""
        pointer = self._directory / LATEST
        temporary = self._directory / _NEW_POINTER
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
        fsync(self._directory)


def _fsync_folders(folder: Path) -> None:
    """Flush the names in *folder* and below it; `manifest.hash_files` has flushed the files themselves."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            fsync(path)
