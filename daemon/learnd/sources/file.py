"""Lines of a file as records: offset n is line n of the data, from 0, a header not counted."""

import csv
import gzip
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, cast

import structlog

from learnd.core.errors import ConfigError, DataLossError
from learnd.core.layout import TextLayout
from learnd.core.types import Offsets, Position, Positions, Records, TopicPartition
from learnd.sources.settings import FileSettings, SourceContext

log = structlog.get_logger()

_BOM = b"\xef\xbb\xbf"
_UNREADABLE = (OSError, EOFError, zlib.error)
"""What a torn or foreign .gz file raises while it is read."""
_WAYS_OUT = "give this one another name (it is learned from its beginning then), or start afresh with another data_dir"
Moment = Callable[[bytes], float | None]
"""The event time of a line in seconds, None where it has none."""


def read_header(settings: FileSettings) -> list[str]:
    """The column names in the first line of a CSV file.

    Raises
    ------
    ConfigError
        if the file cannot be read or is empty.
    """
    with _open(settings.path) as file:
        try:
            line = file.readline().decode("utf-8-sig", "replace").strip("\r\n")
        except _UNREADABLE as error:
            raise ConfigError(f"source.path: {settings.path} cannot be read: {error}") from error
    if not line:
        raise ConfigError(f"source.path: {settings.path} is empty; its first line must name the columns")
    return [name.strip() for name in next(csv.reader([line], delimiter=settings.separator(), skipinitialspace=True))]


class FileSource:
    """One partition: the lines of a file, flat out or in event time. Blank lines are skipped but counted.

    A line longer than *max_line_bytes* is cut there, so that memory stays bounded; the decoder then rejects it.
    """

    def __init__(
        self,
        settings: FileSettings,
        *,
        max_line_bytes: int = 1 << 20,
        moment: Moment | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._partition = TopicPartition(settings.path.name, 0)
        self._max_line_bytes = max_line_bytes
        self._moment = moment
        self._clock = clock
        self._sleep = sleep
        self._file: IO[bytes] | None = None
        self._offset = 0
        self._history = self._checksum = self._line_checksum = 0
        self._ended = True
        self._exhausted = False
        self._ahead: bytes | None = None
        self._anchor: tuple[float, float] | None = None

    @classmethod
    def from_settings(cls, settings: FileSettings, context: SourceContext) -> "FileSource":
        """Return the configured source; it needs event times only to replay them."""
        moment = context.event_time_s if settings.speed is not None else None
        return cls(settings, max_line_bytes=context.max_record_bytes, moment=moment)

    @staticmethod
    def layout(settings: FileSettings) -> TextLayout:
        """Return the layout of text records; read the file's header line, if it has one."""
        has_names = settings.resolved_format() == "csv" and settings.header
        return TextLayout(read_header(settings) if has_names else None, settings.separator())

    def open(self, positions: Positions) -> None:
        self._file = _open(self._settings.path)
        self._offset = self._history = self._checksum = 0
        if self._settings.resolved_format() == "csv" and self._settings.header and self._line() is not None:
            self._history = self._checksum = self._line_checksum
        start = positions.get(self._partition, Position(0))
        while self._offset < start.offset:
            if self._line() is None:
                raise DataLossError(
                    f"{self._settings.path} has {self._offset} lines, but the checkpoint continues at line "
                    f"{start.offset}; bring the longer file back, or {_WAYS_OUT}"
                )
            self._pass()
        if start.history not in (-1, self._history):
            raise DataLossError(
                f"{self._settings.path}: the header or the first {start.offset} lines are no longer those that were "
                f"learned, and learning would continue after them; bring that file back, or {_WAYS_OUT}"
            )

    def _pass(self) -> None:
        """Take the line that was read last."""
        self._offset += 1
        # Of all lines but the newest: that one may have been read while somebody was still writing it.
        self._history = self._checksum
        self._checksum = zlib.crc32(self._line_checksum.to_bytes(4, "big"), self._checksum)

    def _line(self) -> bytes | None:
        assert self._file is not None
        try:
            line = self._file.readline(self._max_line_bytes + 2)
            if not line:
                return None
            rest, self._line_checksum = line, zlib.crc32(line)
            while not rest.endswith(b"\n") and (rest := self._file.readline(1 << 16)):
                self._line_checksum = zlib.crc32(rest, self._line_checksum)
            self._ended = line.endswith(b"\n") or rest.endswith(b"\n")
        except _UNREADABLE as error:
            raise DataLossError(
                f"source.path: {self._settings.path} is damaged after line {self._offset}: {error}; what stands before "
                "that was learned up to the last checkpoint. Bring a whole file back"
            ) from error
        return line.rstrip(b"\r\n")

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        first = self._offset
        offsets: list[int] = []
        values: list[bytes] = []
        while len(values) < max_records:
            line = self._ahead if self._ahead is not None else self._line()
            self._ahead = None
            if line is None:
                self._exhausted = True
                break
            if line and not self._due(line, 0.0 if values else timeout_s):
                self._ahead = line
                break
            if line:
                offsets.append(self._offset)
                values.append(line)
            self._pass()
            if line and not self._ended:
                note = "if somebody was still writing it, what is added to it will not be read"
                log.warning("last_line_unfinished", path=str(self._settings.path), line=self._offset, note=note)
        if self._offset == first:
            return []
        none = [None] * len(values)
        times_ms = [0] * len(values)
        return [Records(self._partition, offsets, values, none, times_ms, Position(self._offset, self._history))]

    def _due(self, line: bytes, timeout_s: float) -> bool:
        """Whether it is time for *line*, after waiting no longer than *timeout_s* for it."""
        speed = self._settings.speed
        if speed is None or self._moment is None or (event_s := self._moment(line)) is None:
            return True
        if self._anchor is None:
            self._anchor = (self._clock(), event_s)
        wait_s = self._anchor[0] + (event_s - self._anchor[1]) / speed - self._clock()
        if wait_s > 0 and timeout_s > 0:
            self._sleep(min(wait_s, timeout_s))
        return wait_s <= timeout_s

    def ends(self) -> Offsets:
        return {}

    def positions(self) -> Positions:
        return {self._partition: Position(self._offset, self._history)}

    def lags(self) -> Mapping[TopicPartition, int]:
        return {}

    def connected(self) -> bool:
        return True

    def exhausted(self) -> bool:
        return self._exhausted

    def acknowledge(self, offsets: Offsets) -> None:
        """Nobody to tell."""

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _open(path: Path) -> IO[bytes]:
    """At the first byte behind a byte order mark."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"source.path: {path} is no regular file; a start must be able to read it from the beginning")
    try:
        if path.suffix == ".gz":
            return _behind_mark(cast(IO[bytes], gzip.open(path, "rb")))
        return _behind_mark(path.open("rb"))
    except OSError as error:
        raise ConfigError(f"source.path: {path} cannot be read: {error.strerror}") from error


def _behind_mark(file: IO[bytes]) -> IO[bytes]:
    try:
        if file.read(len(_BOM)) != _BOM:
            file.seek(0)
    except _UNREADABLE:
        file.seek(0)  # whoever reads it next tells
    return file
