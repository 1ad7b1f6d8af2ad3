"""JSON Lines files whose length is part of the state: after a crash, lines past the checkpoint are taken back."""

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
"""What a disk does not take waits in memory for the next attempt, but not without end."""


def tell_dropped(state: State, section: str) -> None:
    """Say what a topic had not taken yet when *section* was taken out of the configuration."""
    if pending := state.get("pending"):
        note = f"the topic had not taken them yet, and {section} is no longer configured"
        log.error("deliveries_dropped", records=len(pending), note=note)


class LinesFile:
    """Appends lines; ``flush`` makes them durable; ``restore`` cuts what came after the state.

    While the disk is full, lines wait in memory, and every ``flush`` fails; once there is room they follow in order.
    The thread that appends and the thread that flushes may differ.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path = path
        self._key = key
        self._file: IO[bytes] | None = None
        self._waiting = b""
        self._lost: FileLostError | None = None
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode

    def open(self) -> None:
        if self._path.exists() and not self._path.is_file():
            raise ConfigError(f"{self._key}: {self._path} is no file that keeps lines; name one, or a topic")
        try:
            make_folder(self._path.parent)
            # Without Python's buffer: a write that failed halfway says how far it came.
            self._file = self._path.open("ab", buffering=0)
            fsync(self._path.parent)
        except OSError as error:
            raise ConfigError(f"{self._key}: {self._path} cannot be written: {error.strerror}") from error

    def append(self, values: Iterable[object]) -> None:
        """Take lines; never fails for a disk that is full just now.

        Raises
        ------
        SaveFailedError
            if more than `MAX_WAITING_BYTES` wait for it.
        """
        encode = self._encode
        text = b"".join([encode(value) + b"\n" for value in values])
        with self._lock:
            self._waiting += text
            with contextlib.suppress(OSError):  # the next flush tells
                self._write()
            if len(self._waiting) > MAX_WAITING_BYTES:
                raise SaveFailedError(
                    f"{self._key}: {len(self._waiting) >> 20} MiB of lines wait for {self._path}, which takes no more; "
                    "make room on its disk, then start again: it goes on from the last checkpoint"
                )

    def _write(self) -> None:
        assert self._file is not None
        while self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def flush(self) -> None:
        """Return once all lines are durable.

        Raises
        ------
        OSError
            if the disk does not take them now; nothing is lost, and the next flush tries again.
        FileLostError
            if it took them and then failed: the kernel forgets such lines, and a second fsync would call them safe.
        """
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if self._file is None:
                return
            self._write()
            try:
                os.fsync(self._file.fileno())
            except OSError as error:
                self._lost = FileLostError(
                    f"{self._key}: {self._path} could not be made durable ({error.strerror}), and what it holds since "
                    "the last checkpoint is not known; mend the disk, then start again: it is taken up from there"
                )
                raise self._lost from error

    def state(self) -> State:
        assert self._file is not None
        with self._lock:
            return {"path": str(self._path), "bytes": self._file.tell() + len(self._waiting)}

    def restore(self, state: State) -> None:
        """Cut what came after *state*, if it is that of this file.

        Another one, whose name the configuration has had since, keeps all it holds; so does one that is shorter, which
        somebody rotated or emptied. `state` then differs from what was restored.
        """
        assert self._file is not None
        size_bytes = state.get("bytes")
        if size_bytes is None or not self._is_ours(str(state.get("path"))):
            return
        if size_bytes < self._path.stat().st_size:
            self._file.truncate(size_bytes)
            self._file.seek(0, os.SEEK_END)

    def _is_ours(self, path: str) -> bool:
        return path == str(self._path) or Path(path).resolve() == self._path.resolve()

    def close(self) -> None:
        """Let go. What the disk does not take now is in no checkpoint either: the next start makes it again."""
        if self._file is not None:
            with contextlib.suppress(OSError, FileLostError):
                self.flush()
            self._file.close()
            self._file = None
