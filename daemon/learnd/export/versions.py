"""The folder of published exports: ascending whole numbers as names, and ``latest`` for those who do not list."""

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
"""Whoever found a version as the newest, or by ``latest``, may take so long from then on to read all of it."""
MOST_YOUNG = 60
"""Versions that can have been the newest within that time: an export takes more than a second."""
_UNSEEN = ".building-"
"""Begins every name that is half made or half removed; no reader's pattern matches it, and a start sweeps it."""
_LAST_NUMBER = ".last-number"
_NEW_POINTER = f".{LATEST}.new"


def numbers(directory: Path) -> list[int]:
    """The published numbers in *directory*, ascending; empty if it does not exist.

    >>> numbers(Path("nowhere"))
    []
    """
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if re.fullmatch("[1-9][0-9]*", path.name))


class Versions:
    """Every name that is ever seen here is a whole export: made elsewhere, synced, then renamed; removed likewise.

    Parameters
    ----------
    keep : the newest so many stay
    clock : measures how long ago somebody could last find a version; never goes back
    now : seconds since 1970, the floor of new numbers
    """

    def __init__(
        self, directory: Path, *, keep: int, clock: Clock = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._keep = keep
        self._clock = clock
        self._now = now
        self._opened_s = 0.0
        self._found_s: dict[int, float] = {}
        """When a version could last be found as the newest, or by `latest`."""

    def open(self) -> None:
        """Make the folder, sweep what a crash left behind, and point at the newest version."""
        make_folder(self._directory)
        for left in self._directory.glob(f"{_UNSEEN}*"):
            shutil.rmtree(left, ignore_errors=True)
        (self._directory / _NEW_POINTER).unlink(missing_ok=True)
        self._opened_s = self._clock()
        found = self.numbers()
        if not found and self.latest() is not None:
            (self._directory / LATEST).unlink()
        if found and self.latest() != found[-1]:  # the crash came between the two names
            try:
                self._point(found[-1])
            except ExportError as error:
                log.error("pointer_failed", error=str(error))

    def numbers(self) -> list[int]:
        """The published numbers, ascending."""
        return numbers(self._directory)

    def path(self, number: int) -> Path:
        """Where version *number* is."""
        return self._directory / str(number)

    def newest(self) -> Path | None:
        """The newest version's folder; None where nothing is published."""
        found = self.numbers()
        return self.path(found[-1]) if found else None

    def latest(self) -> int | None:
        """The number that the pointer names: the champion; None without one."""
        try:
            name = str((self._directory / LATEST).readlink())
        except OSError:
            return None
        return int(name) if re.fullmatch("[1-9][0-9]*", name) else None

    def take_number(self, *, above: int = 0) -> int:
        """A number that was never used, durable before it is; greater than *above*.

        Not below the seconds since 1970: a ``data_dir`` that comes out of a backup knows nothing of the numbers that
        were published after the backup was made, and time alone has gone on since then.
        """
        record = self._directory / _LAST_NUMBER
        try:
            last = int(record.read_text(encoding="ascii"))
        except FileNotFoundError:
            last = 0
        except ValueError:
            log.warning("number_record_damaged", path=str(record))
            last = 0
        number = max(last + 1, above + 1, *(found + 1 for found in self.numbers()[-1:]), int(self._now()))
        write_text(record, str(number))
        return number

    def building(self, number: int) -> Path:
        """Where version *number* is made, unseen."""
        return self._directory / f"{_UNSEEN}{number}"

    def publish(self, number: int) -> None:
        """Make what was built appear under its number, then under ``latest``; durable in this order.

        Raises
        ------
        ExportError
            if ``latest`` cannot be moved; the version is out under its number all the same.
        """
        building = self.building(number)
        _fsync_folders(building)
        before = self.numbers()[-1:] + [found for found in [self.latest()] if found is not None]
        crash_points.reached("export.before-rename")
        building.rename(self.path(number))
        try:
            crash_points.reached("export.after-rename")
            fsync(self._directory)
            self._point(number)
        finally:
            self._found_s |= dict.fromkeys({number, *before}, self._clock())

    def discard(self, number: int) -> None:
        """Take away what was built of *number* and not published."""
        shutil.rmtree(self.building(number), ignore_errors=True)

    def prune(self, *, needed: Collection[int | None] = ()) -> None:
        """Remove all but the newest, the young, the one that ``latest`` names, and those *needed*."""
        spared = {self.latest(), *needed}
        beyond = self.numbers()[: -self._keep]
        for number in beyond:
            # Those from before this process may have been found until it began (the system's time could have been set,
            # and tells nothing); but no more of them: a daemon that ends again and again must not fill the disk.
            found_s = self._found_s.get(number, self._opened_s if number in beyond[-MOST_YOUNG:] else -math.inf)
            if number in spared or self._clock() - found_s < YOUNG_S:
                continue
            doomed = self._directory / f"{_UNSEEN}pruned-{number}"
            self.path(number).rename(doomed)
            # Else the loss of its files could be on the disk before the loss of its name: a version that does not load.
            fsync(self._directory)
            crash_points.reached("export.half-pruned")
            shutil.rmtree(doomed, ignore_errors=True)
            self._found_s.pop(number, None)

    def _point(self, number: int) -> None:
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
    """Make the names in *folder* and below durable; the files themselves were flushed as they were hashed."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            fsync(path)
