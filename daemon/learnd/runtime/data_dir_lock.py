"""The lock that allows one daemon per ``data_dir``. The operating system releases it when a process dies."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

from learnd.core.errors import ConfigError, DataDirLockedError


class DataDirLock:
    """A context manager that holds the lock of *data_dir*.

    Raises
    ------
    DataDirLockedError
        if another process holds the lock.
    ConfigError
        if *data_dir* cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._descriptor: int | None = None

    def __enter__(self) -> "DataDirLock":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"data_dir: {self._path.parent} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = self._path.read_text().strip()
            os.close(self._descriptor)
            raise DataDirLockedError(
                f"data_dir {self._path.parent} is in use by process {holder or '?'}; stop it, or choose another one"
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, f"{os.getpid()}\n".encode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
