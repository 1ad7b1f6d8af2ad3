"""JSON Lines files whose length is part of the state: after a crash, lines past the checkpoint are taken back."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import msgspec

from learnd.errors import ConfigError
from learnd.types import State


class LinesFile:
    """Appends lines; ``flush`` makes them durable; ``restore`` cuts what came after the state.

    The thread that appends and the thread that flushes may differ.
    """

    def __init__(self, path: Path, *, key: str) -> None:
        self._path = path
        self._key = key
        self._file: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._encode = msgspec.json.Encoder().encode

    def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("ab")
        except OSError as error:
            raise ConfigError(f"{self._key}: {self._path} cannot be written: {error.strerror}") from error

    def append(self, values: Iterable[object]) -> None:
        assert self._file is not None
        encode = self._encode
        text = b"".join([encode(value) + b"\n" for value in values])
        with self._lock:
            self._file.write(text)

    def flush(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.flush()
                os.fsync(self._file.fileno())

    def state(self) -> State:
        assert self._file is not None
        with self._lock:
            return {"bytes": self._file.tell()}

    def restore(self, state: State) -> None:
        assert self._file is not None
        size_bytes = state.get("bytes")
        # A file that somebody rotated or emptied is shorter than the state says, and left alone.
        if size_bytes is not None and size_bytes < self._path.stat().st_size:
            self._file.truncate(size_bytes)
            self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        if self._file is not None:
            self.flush()
            self._file.close()
            self._file = None
