"""The source for lines of a file. Offset n is line n of the data, from 0; a header line does not count."""

import time
import zlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from learnd.core.errors import ConfigError, DataLossError
from learnd.core.layout import TextLayout
from learnd.core.types import Offsets, Position, Positions, Records, TopicPartition
from learnd.sources.lines import UNREADABLE, Lines, names_in
from learnd.sources.settings import FileSettings, SourceContext

log = structlog.get_logger()

_HEADER_BYTES = 1 << 20
"""Maximum length of a header line."""
_WAYS_OUT = "give this file another name (then it is learned from its beginning), or start over with another data_dir"
EventTime = Callable[[bytes], float | None]
"""A function from a line to its event time in seconds, None if it has none."""


def read_header(settings: FileSettings) -> TextLayout:
    """Return the layout of a file: its delimiter and, if it has a header line, the names of its columns.

    Raises
    ------
    ConfigError
        if the file cannot be read, is empty, or is not in its encoding.
    """
    lines = Lines(settings, _HEADER_BYTES)
    try:
        preamble = lines.preamble()
    except UNREADABLE as error:
        raise ConfigError(f"source.path: {settings.path} cannot be read: {error}") from error
    finally:
        lines.close()
    if settings.delimiter is None and preamble.delimiter != settings.usual_delimiter():
        log.info("delimiter_found", path=str(settings.path), delimiter=preamble.delimiter, option="source.delimiter")
    if preamble.header is None:
        return TextLayout(None, preamble.delimiter)
    place = f"line {preamble.number} of {settings.path}"
    names = names_in(preamble.header, preamble.delimiter, place)
    return TextLayout(names, preamble.delimiter, preamble.header, place)


class FileSource:
    """Lines of a file, as one partition: as fast as possible, or in event time.

    Blank lines and comments are skipped, but have an offset. A line longer than *max_line_bytes* is cut there, so that
    memory stays bounded; the decoder then rejects it. Lines come as UTF-8, whatever the encoding of the file.
    """

    def __init__(
        self,
        settings: FileSettings,
        *,
        max_line_bytes: int = 1 << 20,
        event_time_s: EventTime | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._partition = TopicPartition(settings.path.name, 0)
        self._max_line_bytes = max_line_bytes
        self._event_time_s = event_time_s
        self._clock = clock
        self._sleep = sleep
        self._lines: Lines | None = None
        self._offset = 0
        self._history = self._checksum = 0
        self._exhausted = False
        self._ahead: bytes | None = None
        self._anchor: tuple[float, float] | None = None

    @classmethod
    def from_settings(cls, settings: FileSettings, context: SourceContext) -> "FileSource":
        """Return the configured source. It uses event times only for a replay in event time."""
        event_time_s = context.event_time_s if settings.speed is not None else None
        return cls(settings, max_line_bytes=context.max_record_bytes, event_time_s=event_time_s)

    @staticmethod
    def layout(settings: FileSettings) -> TextLayout:
        """Return the layout of text records, by the first lines of the file."""
        return read_header(settings)

    def open(self, positions: Positions) -> None:
        self.close()
        self._ahead = None
        lines = self._lines = Lines(self._settings, self._max_line_bytes)
        self._offset = 0
        try:
            self._history = self._checksum = lines.preamble().checksum
        except UNREADABLE as error:
            raise self._damage(error) from error
        start = positions.get(self._partition, Position(0))
        while self._offset < start.offset:
            if self._line(lines) is None:
                raise DataLossError(
                    f"{self._settings.path} has {self._offset} lines, but the checkpoint continues at line "
                    f"{start.offset}; restore the longer file, or {_WAYS_OUT}"
                )
            self._advance(lines)
        if start.history not in (-1, self._history):
            raise DataLossError(
                f"{self._settings.path}: the header or the first {start.offset} lines are no longer those that were "
                f"learned, and learning would continue after them; restore that file, or {_WAYS_OUT}"
            )

    def _advance(self, lines: Lines) -> None:
        """Move the offset past the line that was read last."""
        self._offset += 1
        # The checksum covers all lines but the newest, which may have been incomplete when it was read.
        self._history = self._checksum
        self._checksum = zlib.crc32(lines.checksum.to_bytes(4, "big"), self._checksum)

    def _line(self, lines: Lines) -> bytes | None:
        """Read the next line, and return it without its line end; None at the end of the file."""
        try:
            return lines.read()
        except UNREADABLE as error:
            raise self._damage(error) from error

    def _damage(self, error: Exception) -> DataLossError:
        return DataLossError(
            f"source.path: {self._settings.path} is damaged after line {self._offset}: {error}; the lines before "
            "it were learned up to the last checkpoint. Restore an intact file"
        )

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        assert self._lines is not None, "poll needs open"
        first, lines, replays = self._offset, self._lines, self._settings.speed is not None
        offsets: list[int] = []
        values: list[bytes] = []
        while len(values) < max_records:
            line = self._ahead if self._ahead is not None else self._line(lines)
            self._ahead = None
            if line is None:
                self._exhausted = True
                break
            if line and replays and not self._due(line, 0.0 if values else timeout_s):
                self._ahead = line
                break
            if line:
                offsets.append(self._offset)
                values.append(line)
            self._advance(lines)
            if line and not lines.ended:
                note = "if the file is still being written, the rest of this line will not be read"
                log.warning("last_line_unfinished", path=str(self._settings.path), line=self._offset, note=note)
        if self._offset == first:
            return []
        none = [None] * len(values)
        times_ms = [0] * len(values)
        return [Records(self._partition, offsets, values, none, times_ms, Position(self._offset, self._history))]

    def _due(self, line: bytes, timeout_s: float) -> bool:
        """Wait at most *timeout_s* for the event time of *line*; return whether it has come."""
        speed = self._settings.speed
        if speed is None or self._event_time_s is None or (event_s := self._event_time_s(line)) is None:
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
        """Do nothing: a file keeps no offsets."""

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None
