"""JSON Lines files whose length is part of the state: a restore removes the lines after the checkpoint."""

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec
import structlog

from learnd.core.errors import ConfigError, FileLostError, SaveFailedError
from learnd.core.fsync import fsync, make_folder
from learnd.core.types import State

log = structlog.get_logger()

MAX_WAITING_BYTES = 64 << 20
"""Limit on the lines that wait in memory while the disk refuses them."""


def log_dropped(state: State, section: str) -> None:
    """Log how many records are lost because a topic had not confirmed them when *section* was removed."""
    if pending := state.get("pending"):
        note = f"the topic had not confirmed these records, and {section} is no longer configured"
        log.error("deliveries_dropped", records=len(pending), note=note)


class LinesFile:
    """A file that lines are appended to. ``flush`` makes them durable; ``restore`` removes those after the state.

    While the disk is full, lines wait in memory and every ``flush`` fails. They are written in order once there is
    room. One thread may append while another one flushes.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path = path
        self._key = key
        self._file: IO[bytes] | None = None
        self._unwritten = b""
        self._sync_error: FileLostError | None = None
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode

    def open(self) -> None:
        """Open the file for appending; create it and its folder if they are missing.

        Raises
        ------
        ConfigError
            if it cannot be written, or is not a regular file.
        """
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(f"{self._key}: {self._path} is not a regular file; name another path, or a topic")
        try:
            make_folder(self._path.parent)
            # Unbuffered, because a write then returns how many bytes were written.
            self._file = self._path.open("ab", buffering=0)
            fsync(self._path.parent)
        except OSError as error:
            raise ConfigError(f"{self._key}: {self._path} cannot be written: {error.strerror}") from error

    def append(self, values: Iterable[object]) -> None:
        """Append one line per value. A full disk is not an error here; the lines then wait in memory.

        Raises
        ------
        SaveFailedError
            if more than `MAX_WAITING_BYTES` are waiting.
        """
        encode = self._encode
        text = b"".join([encode(value) + b"\n" for value in values])
        with self._lock:
            self._unwritten += text
            with contextlib.suppress(OSError):  # the next flush reports it
                self._write()
            if len(self._unwritten) > MAX_WAITING_BYTES:
                raise SaveFailedError(
                    f"{self._key}: {len(self._unwritten) >> 20} MiB of lines cannot be written to {self._path}; "
                    "make room on its disk, then start again: learnd resumes from the last checkpoint"
                )

    def _write(self) -> None:
        assert self._file is not None
        while self._unwritten:
            self._unwritten = self._unwritten[self._file.write(self._unwritten) :]

    def flush(self) -> None:
        """Return once all lines are durable.

        Raises
        ------
        OSError
            if they cannot be written now. Nothing is lost, and the next flush tries again.
        FileLostError
            if they were written but fsync failed. The kernel drops such pages, so a second fsync would report success.
        """
        with self._lock:
            if self._sync_error is not None:
                raise self._sync_error
            if self._file is None:
                return
            self._write()
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self._sync_error = FileLostError(
                    f"{self._key}: {self._path} could not be made durable ({error.strerror}), so lines written after "
                    "the last checkpoint may be lost; repair the disk, then start again: learnd resumes from there"
                )
                raise self._sync_error from error

    def pending(self) -> int:
        """Return the number of lines that wait in memory."""
        return self._unwritten.count(b"\n")

    def state(self) -> State:
        """Return the path, and the length in bytes with all lines that were appended."""
        assert self._file is not None
        with self._lock:
            return {"path": str(self._path), "bytes": self._file.tell() + len(self._unwritten)}

    def restore(self, state: State) -> None:
        """Truncate the file to its length in *state*, if that is the state of this file.

        A file with another path is left as it is: the configuration has named it since. So is a file that is shorter,
        which somebody rotated or emptied. `state` then differs from the restored one.
        """
        assert self._file is not None
        size_bytes = state.get("bytes")
        if size_bytes is None or not self._is_same_path(str(state.get("path"))):
            return
        if size_bytes < self._path.stat().st_size:
            self._file.truncate(size_bytes)
            self._file.seek(0, os.SEEK_END)

    def _is_same_path(self, path: str) -> bool:
        return path == str(self._path) or Path(path).resolve() == self._path.resolve()

    def close(self) -> None:
        """Flush if possible, then close. Unwritten lines are in no checkpoint, so the next start repeats them."""
        if self._file is not None:
            with contextlib.suppress(OSError, FileLostError):
                self.flush()
            self._file.close()
            self._file = None
