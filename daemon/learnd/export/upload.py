"""Copies published exports to object storage through fsspec. There ``latest`` is a text file, and is written last."""

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from learnd.core import crash_points
from learnd.core.errors import ConfigError, ExportError, Problem
from learnd.core.schedule import Clock
from learnd.export import manifest, tf_serving
from learnd.export.settings import UploadSettings
from learnd.export.versions import LATEST

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SECRET_NAME = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|SAS|CONNECTION_STRING")
_MESSAGE_CHARACTERS = 300


class Store(Protocol):
    """The members of an fsspec file system that an upload uses."""

    def invalidate_cache(self) -> None: ...

    def ls(self, path: str, /, *, detail: bool) -> Sequence[str]: ...

    def cat_file(self, path: str, /) -> bytes: ...

    def pipe_file(self, path: str, value: bytes, /) -> object: ...

    def put_file(self, local: str, remote: str, /) -> object: ...

    def mv(self, source: str, target: str, /) -> object: ...

    def size(self, path: str, /) -> int | None: ...


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The outcome of one upload; ``error`` is empty if the store's ``latest`` now names the version."""

    number: int
    """0: nothing was to be uploaded; looking at the store failed."""
    duration_s: float
    error: str = ""


class Uploader:
    """Copies the newest export to the store, on its own thread, so that a store that hangs delays nothing else.

    A version in the store is complete once it has its manifest, which is written after all its other files. Then
    ``latest`` moves to it. If several versions arrive during an upload, only the newest of them is uploaded next. A
    failed upload is repaired by the next one, or by the next start.

    Raises
    ------
    ConfigError
        if the package for this kind of store is not installed.
    """

    def __init__(self, settings: UploadSettings, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._local = _is_local(settings.url)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next: Path | None = None
        self._current: Path | None = None
        self._busy = False
        self._outcomes: deque[Uploaded] = deque()
        self._highest = 0

    def begin(self, folder: Path | None) -> None:
        """Upload the version in *folder* after the upload in progress, unless a newer one arrives first.

        None: only look which numbers the store has.
        """
        with self._lock:
            self._next = folder if folder is not None else self._next
            if not self._busy:
                self._busy = True
                self._thread = threading.Thread(target=self._run, name="learnd-upload", daemon=True)
                self._thread.start()

    def needed(self) -> list[int]:
        """Return the versions that are being uploaded, or are next; they must not be pruned."""
        with self._lock:
            return [int(folder.name) for folder in (self._current, self._next) if folder is not None]

    def highest(self) -> int:
        """Return the highest number seen in the store; 0 before the first look."""
        return self._highest

    def wait(self, timeout_s: float) -> bool:
        """Wait until no upload is in progress; return False if that takes longer than *timeout_s*."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self._busy

    def outcome(self) -> Uploaded | None:
        """Remove and return the oldest outcome; None if there is none."""
        return self._outcomes.popleft() if self._outcomes else None

    def _run(self) -> None:
        more = True
        while more:
            with self._lock:
                folder = self._current = self._next
                self._next = None
            started_s = self._clock()
            error, worth_reporting = "", folder is not None
            try:
                store, root = self._store()
                pointed = self._look(store, root)
                if folder is not None:
                    worth_reporting = self._upload(folder, store, root, pointed)
            except Exception as failure:
                error, worth_reporting = self._message(failure), True
            with self._lock:
                if worth_reporting:
                    number = int(folder.name) if folder is not None else 0
                    self._outcomes.append(Uploaded(number, self._clock() - started_s, error))
                self._current = None
                more = self._busy = self._next is not None

    def _upload(self, folder: Path, store: Store, root: str, pointed: int) -> bool:
        """Upload the version in *folder* and move ``latest`` to it; return whether anything was left to do."""
        number = int(folder.name)
        local = (folder / manifest.FILE_NAME).read_bytes()
        remote = _content(store, f"{root}/{number}/{manifest.FILE_NAME}")
        # A prefix is allowed: a crash may have cut our own manifest off.
        if remote is not None and not local.startswith(remote):
            raise ExportError(
                f"{self._settings.url} holds another export {number}; the next export gets a higher number"
            )
        if self._highest > number:
            raise ExportError(
                f"{self._settings.url} holds {self._highest}, which is newer than {number}; the next export gets a "
                "higher number (two daemons need two places)"
            )
        if remote != local:
            _copy(store, folder, f"{root}/{number}")
        if pointed == number:
            return remote != local
        crash_points.reached("upload.before-pointer")
        self._point(store, f"{root}/{LATEST}", f"{number}\n".encode())
        return True

    def _look(self, store: Store, root: str) -> int:
        """Return the number in the store's ``latest`` (0 without one), and note the highest number in the store."""
        store.invalidate_cache()
        text = (_content(store, f"{root}/{LATEST}") or b"").strip()
        pointed = int(text) if re.fullmatch(b"[1-9][0-9]*", text) else 0
        try:
            names = [str(path).rstrip("/").rpartition("/")[2] for path in store.ls(root, detail=False)]
        except FileNotFoundError:
            names = []
        self._highest = max([self._highest, pointed, *(int(n) for n in names if re.fullmatch("[1-9][0-9]*", n))])
        return pointed

    def _point(self, store: Store, pointer: str, text: bytes) -> None:
        if not self._local:
            store.pipe_file(pointer, text)  # an object store shows either the old object or the new one
            return
        temporary = f"{pointer}.new"
        store.pipe_file(temporary, text)
        store.mv(temporary, pointer)

    def _store(self) -> tuple[Store, str]:
        import fsspec  # noqa: PLC0415 - an extra

        options: dict[str, str | int | float | bool] = {
            name: value.get_secret_value() for name, value in self._settings.options.items()
        }
        if self._local:
            options.setdefault("auto_mkdir", True)
        store, root = fsspec.core.url_to_fs(self._settings.url, **options)
        return store, str(root).rstrip("/")

    def _message(self, error: Exception) -> str:
        """Return the first line of *error*, without any secret of the options or of the environment."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else ""
        for secret in _secrets(value.get_secret_value() for value in self._settings.options.values()):
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        kind = "" if isinstance(error, ExportError) else f"{type(error).__name__}: "
        return f"{kind}{text}"[:_MESSAGE_CHARACTERS]


def _is_local(url: str) -> bool:
    """Return whether *url* is a folder on this machine.

    Raises
    ------
    ConfigError
        if the package for this kind of store is not installed, or fsspec does not know the kind.
    """
    key, protocol = "export.upload.url", url.partition("://")[0]
    try:
        import fsspec  # noqa: PLC0415 - an extra

        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = _EXTRAS.get(protocol, "upload")
        raise ConfigError(
            Problem(key, f"{protocol} needs a package ({error}): pip install 'learnd[{extra}]'")
        ) from None
    except ValueError:
        known = "s3, gs, az, file, or any other that fsspec supports"
        raise ConfigError(Problem(key, f"{protocol} is not a file system that fsspec knows; use {known}")) from None
    return protocol in ("file", "local")


def _copy(store: Store, folder: Path, target: str) -> None:
    """Copy every file of the version, the manifest last, and compare the size of each copy.

    Raises
    ------
    ExportError
        if a copy has another size than its original.
    """
    names = tf_serving.names(folder, [path.name for path in folder.iterdir() if path.is_symlink()])
    last = [manifest.SIGNATURE_NAME, manifest.FILE_NAME]
    for name in sorted(names, key=lambda name: last.index(name) if name in last else -1):
        if name == manifest.FILE_NAME:
            crash_points.reached("upload.before-manifest")
        store.put_file(str(folder / name), f"{target}/{name}")
        local_bytes, remote_bytes = (folder / name).stat().st_size, store.size(f"{target}/{name}")
        if local_bytes != remote_bytes:
            raise ExportError(
                f"{target}/{name} has {remote_bytes} bytes, not {local_bytes}; it is uploaded again with the next "
                "export"
            )


def _content(store: Store, path: str) -> bytes | None:
    """Return the content of *path*; None if it does not exist."""
    try:
        return bytes(store.cat_file(path))
    except FileNotFoundError:
        return None


def _secrets(options: Iterable[object]) -> list[str]:
    """Return texts that no message may contain, the longest first, so that no part of a longer one survives.

    They are the options of the store, and the environment variables whose names suggest a secret.
    """
    secrets = {value for value in options if isinstance(value, str)}
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name.upper()):
            # A connection string holds its key among other things: "AccountName=x;AccountKey=y".
            secrets |= {value, *(part.partition("=")[2] for part in value.split(";"))}
    return sorted((value for value in secrets if len(value) >= 6), key=len, reverse=True)
