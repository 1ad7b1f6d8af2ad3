"""Lines of a text file, whatever its encoding and line ends."""

import codecs
import gzip
import io
import re
import zlib
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from learnd.core.delimited import found_delimiter, splitter
from learnd.core.errors import ConfigError
from learnd.sources.settings import FileSettings

UNREADABLE = (OSError, EOFError, zlib.error)
"""Errors from reading a .gz file that is truncated or not a gzip file."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_FOREIGN = (
    (b"\x1f\x8b", "a gzipped file; its name must end in .gz"),
    (b"PK\x03\x04", "a spreadsheet or another archive; save it as CSV"),
    (b"PAR1", "a Parquet file; write it as CSV or JSON Lines"),
    (b"SQLi", "a database; write it as CSV or JSON Lines"),
)
"""First bytes of files that hold no lines, each with what the file is and the way out."""
_BLOCK_BYTES = 1 << 16
_SEARCHED_BYTES = 1 << 20
"""The first line end is looked for in so many bytes."""
_SEPARATOR = re.compile(r'"?sep=(.)"?')
"""The line with which spreadsheets name the delimiter, before the header."""
_DAMAGE = "\ufffd".encode()


@dataclass(frozen=True, slots=True)
class Preamble:
    """The lines before the data.

    Attributes
    ----------
    header : the line with the names of the columns; None: there is none
    number : its number in the file, from 1
    delimiter : as configured, or as found in the first line
    checksum : of all lines before the data; 0: there are none
    """

    header: str | None
    number: int
    delimiter: str
    checksum: int


class Lines:
    """The lines of an open file as UTF-8, without their ends.

    A line longer than *max_line_bytes* is cut there, so that memory stays bounded. What cannot be decoded becomes a
    byte that UTF-8 does not have, so that the decoder rejects the line.
    """

    def __init__(self, settings: FileSettings, max_line_bytes: int) -> None:
        self._settings = settings
        self._max_line_bytes = max_line_bytes
        self._limit = max_line_bytes + 2
        self._comment = None if settings.comment is None else settings.comment.encode()
        self._file, old_ends = _open(settings)
        self.checksum = 0
        """Checksum of the newest line, with its end."""
        self.ended = True
        """False: the newest line is the last one of the file, and has no end."""
        self._checksum: Callable[[bytes, int], int] = _old_checksum if old_ends else zlib.crc32

    def read(self) -> bytes | None:
        """Return the next line; None at the end of the file."""
        line = self._file.readline(self._limit)
        if not line:
            return None
        self.checksum = self._checksum(line, 0)
        self.ended = line.endswith(b"\n")
        while not self.ended and (rest := self._file.readline(1 << 16)):
            self.checksum = self._checksum(rest, self.checksum)
            self.ended = rest.endswith(b"\n")
        line = line.rstrip(b"\r\n")
        if self._comment is not None and line.lstrip().startswith(self._comment):
            return b""  # as a blank line: it has a number, and is no record
        return line

    def preamble(self) -> Preamble:
        """Read the lines before the data.

        Raises
        ------
        ConfigError
            if the header is missing, or cannot be decoded.
        """
        settings = self._settings
        read: list[int] = []

        def next_line() -> bytes | None:
            line = self.read()
            if line is not None:
                read.append(self.checksum)
            return line

        for _ in range(settings.skip_lines):
            next_line()
        delimiter, header = settings.separator(), None
        if settings.has_header:
            line = next_line()
            while line is not None and not line.strip():
                line = next_line()
            header = self._text(line, len(read))
            if match := _SEPARATOR.fullmatch(header):
                delimiter = delimiter or match[1]
                header = self._text(next_line(), len(read))
            delimiter = delimiter or found_delimiter(header)
        number = len(read)
        for _ in range(settings.skip_after_header):
            next_line()
        checksum = read[0] if read else 0
        for one in read[1:]:
            checksum = zlib.crc32(one.to_bytes(4, "big"), checksum)
        return Preamble(header, number, delimiter or self._delimiter_of_data(), checksum)

    def _delimiter_of_data(self) -> str:
        """Return the delimiter of a file without a header, by its first line; the file is opened again for that."""
        if self._settings.resolved_format() != "csv":
            return ","
        lines = Lines(self._settings.model_copy(update={"delimiter": ","}), self._max_line_bytes)
        try:
            lines.preamble()
            line: bytes | None = b""
            while line is not None and not line.strip():
                line = lines.read()
        finally:
            lines.close()
        return found_delimiter((line or b"").decode(errors="replace"))

    def _text(self, line: bytes | None, number: int) -> str:
        path = self._settings.path
        if line is None:
            after = f" after {self._settings.skip_lines} skipped lines" if self._settings.skip_lines else ""
            raise ConfigError(
                f"source.path: {path} is empty{after}; a line must name the columns, or set source.header: false"
            )
        if b"\0" in line:
            raise ConfigError(
                f"source.path: line {number} of {path} has NUL bytes, so it is probably UTF-16 without its mark; set "
                f"source.encoding: utf-16-{'be' if line[:1] == bytes(1) else 'le'}"
            )
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            known = self._settings.encoding or "UTF-8"
            raise ConfigError(
                f"source.path: line {number} of {path} is not {known} (byte {error.start + 1} is "
                f"0x{line[error.start]:02x}); set source.encoding, such as cp1252 (Windows), latin-1 or utf-16"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _old_checksum(part: bytes, start: int) -> int:
    """Return the checksum of a line as it is in the file, so that a line whose end comes later keeps its checksum."""
    return zlib.crc32(part[:-1] + b"\r" if part.endswith(b"\n") else part, start)


def names_in(header: str, delimiter: str, place: str) -> list[str]:
    """Return the names of the columns in a header line.

    Raises
    ------
    ConfigError
        if a quote is not closed.
    """
    try:
        return [name.strip() for name in splitter(delimiter)(header)]
    except ValueError as error:
        raise ConfigError(f"source.path: {place}: {error}; name the columns in decode.columns") from None


def _open(settings: FileSettings) -> tuple[IO[bytes], bool]:
    """Open the file after its byte order mark, as UTF-8; also return whether lines end with a carriage return alone."""
    path = settings.path
    if path.exists() and not path.is_file():
        raise ConfigError(
            f"source.path: {path} is not a regular file; every start must be able to read it from the beginning"
        )
    try:
        file = _decoded(settings)
        try:
            old_ends = _has_old_ends(file, csv=settings.resolved_format() != "jsonl")
        except UNREADABLE:
            old_ends = False  # the next read raises the error again
        file.close()
        file = _decoded(settings)
    except OSError as error:
        raise ConfigError(f"source.path: {path} cannot be read: {error.strerror}") from error
    return (cast(IO[bytes], io.BufferedReader(_OldEnds(file), _BLOCK_BYTES)) if old_ends else file), old_ends


def _decoded(settings: FileSettings) -> IO[bytes]:
    """Return the file after its mark, as UTF-8."""
    file = _raw(settings.path)
    try:
        start = file.read(4)
    except UNREADABLE:
        file.seek(0)
        return file
    for first, what in _FOREIGN:
        if start.startswith(first):
            raise ConfigError(f"source.path: {settings.path} is {what}")
    marked = marked_encoding(start)
    mark = b"" if marked is None else next(mark for mark, name in _MARKS if name == marked)
    named = None if settings.encoding is None else codecs.lookup(settings.encoding).name
    if marked is not None and named is not None and named.replace("_", "-")[:5] != marked[:5]:
        raise ConfigError(
            f"source.encoding: is {settings.encoding}, but {settings.path} begins with the mark of {marked}; remove "
            "the option"
        )
    file.seek(len(mark))
    encoding = marked or named or "utf-8"
    if codecs.lookup(encoding).name == "utf-8":
        return file
    return cast(IO[bytes], io.BufferedReader(_Transcoder(file, encoding), _BLOCK_BYTES))


def marked_encoding(start: bytes) -> str | None:
    """Return the encoding that the byte order mark at the start of a file names; None: there is no mark.

    >>> marked_encoding(b"\\xff\\xfea\\0"), marked_encoding(b"abc")
    ('utf-16-le', None)
    """
    return next((name for mark, name in _MARKS if start.startswith(mark)), None)


def _raw(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _has_old_ends(file: IO[bytes], *, csv: bool) -> bool:
    """Return whether the first line ends with a carriage return that no line feed follows, as on old Macs.

    Only the first line decides, so that a file that grows does not change its mind.
    """
    text = b""
    while b"\n" not in text and len(text) < _SEARCHED_BYTES and (block := file.read(_BLOCK_BYTES)):
        text += block
        if b"\r" in text[:-1]:
            break
    place = text.find(b"\r")
    if place < 0 or b"\n" in text[: place + 2] or place + 1 == len(text):
        return False
    line = text[:place]
    return line.count(b'"') % 2 == 0 if csv else line.rstrip().endswith(b"}")


class _Reread(io.RawIOBase):
    """A file that gives another file's bytes in another form."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            block = self._file.read(_BLOCK_BYTES)
            self._ended = not block
            self._ready = self._converted(block)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    @abstractmethod
    def _converted(self, block: bytes) -> bytes:
        """Return what becomes of *block*; an empty one is the end of the file."""

    def close(self) -> None:
        self._file.close()
        super().close()


class _Transcoder(_Reread):
    """A file's text as UTF-8."""

    def __init__(self, file: IO[bytes], encoding: str) -> None:
        super().__init__(file)
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")

    def _converted(self, block: bytes) -> bytes:
        text = self._decoder.decode(block, final=self._ended)
        # A character that stands for damage must not become part of a name: 0xff is no UTF-8, so the line is rejected.
        return text.encode("utf-8", "surrogatepass").replace(_DAMAGE, b"\xff")


class _OldEnds(_Reread):
    """A file's lines with line feeds instead of carriage returns."""

    def _converted(self, block: bytes) -> bytes:
        return block.replace(b"\r", b"\n")
