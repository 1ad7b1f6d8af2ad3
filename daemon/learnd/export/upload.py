"""Copies published exports to object storage through fsspec. There ``latest`` is a text, and the last to be written."""

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from learnd.core import crash_points
from learnd.core.errors import ConfigError, ExportError, Problem
from learnd.core.schedule import Clock
from learnd.export import manifest, tf_serving
from learnd.export.settings import UploadSettings
from learnd.export.versions import LATEST

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure"}
_SECRET_NAME = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|SAS|CONNECTION_STRING")
_SAID_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Uploaded:
    """The outcome of one upload; ``error`` is empty if the store's ``latest`` names it."""

    number: int
    """0: the store was only looked at, and that failed."""
    duration_s: float
    error: str = ""


class Uploader:
    """Brings the newest export to the store, on a thread of its own: a store that hangs holds nobody up.

    A version is complete there once it has its manifest, which comes after all other files; then ``latest`` moves. Of
    versions that come while one is under way the newest wins. What failed is made up for by the next one, or by the
    next start.

    Raises
    ------
    ConfigError
        if the package that speaks to the store is not installed.
    """

    def __init__(self, settings: UploadSettings, *, clock: Clock = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._local = _require(settings.url)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._next: Path | None = None
        self._current: Path | None = None
        self._busy = False
        self._outcomes: deque[Uploaded] = deque()
        self._highest = 0

    def begin(self, folder: Path | None) -> None:
        """Upload the version in *folder* once no other is under way, unless a newer one comes; None: only look."""
        with self._lock:
            self._next = folder if folder is not None else self._next
            if not self._busy:
                self._busy = True
                self._thread = threading.Thread(target=self._run, name="learnd-upload", daemon=True)
                self._thread.start()

    def needed(self) -> list[int]:
        """The versions that are being read, or will be; they may not be pruned."""
        with self._lock:
            return [int(folder.name) for folder in (self._current, self._next) if folder is not None]

    def highest(self) -> int:
        """The highest number that the store was seen to have; 0 where it was not seen yet."""
        return self._highest

    def wait(self, timeout_s: float) -> bool:
        """Until no upload is under way; False if that takes longer than *timeout_s*."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return not self._busy

    def outcome(self) -> Uploaded | None:
        """The outcome of the oldest upload that was not told yet."""
        return self._outcomes.popleft() if self._outcomes else None

    def _run(self) -> None:
        again = True
        while again:
            with self._lock:
                folder = self._current = self._next
                self._next = None
            started_s = self._clock()
            error, news = "", folder is not None
            try:
                store, root = self._store()
                pointed = self._look(store, root)
                if folder is not None:
                    news = self._upload(folder, store, root, pointed)
            except Exception as failure:
                error, news = self._said(failure), True
            with self._lock:
                if news:
                    number = int(folder.name) if folder is not None else 0
                    self._outcomes.append(Uploaded(number, self._clock() - started_s, error))
                self._current = None
                again = self._busy = self._next is not None

    def _upload(self, folder: Path, store: Any, root: str, pointed: int) -> bool:
        """Whether anything was left to do."""
        number = int(folder.name)
        whole = (folder / manifest.FILE_NAME).read_bytes()
        there = _content(store, f"{root}/{number}/{manifest.FILE_NAME}")
        if there is not None and not whole.startswith(there):  # a crash may have cut ours off
            raise ExportError(f"{self._settings.url} holds another export {number}; the next one gets a higher number")
        if self._highest > number:
            raise ExportError(
                f"{self._settings.url} holds {self._highest}, which is newer than {number}; the next export gets a "
                "higher number (two daemons need two places)"
            )
        if there != whole:
            _copy(store, folder, f"{root}/{number}")
        if pointed == number:
            return there != whole
        crash_points.reached("upload.before-pointer")
        self._point(store, f"{root}/{LATEST}", f"{number}\n".encode())
        return True

    def _look(self, store: Any, root: str) -> int:
        """What ``latest`` says there, 0 if nothing; and note the highest number that was ever there."""
        store.invalidate_cache()
        text = (_content(store, f"{root}/{LATEST}") or b"").strip()
        pointed = int(text) if re.fullmatch(b"[1-9][0-9]*", text) else 0
        try:
            names = [str(path).rstrip("/").rpartition("/")[2] for path in store.ls(root, detail=False)]
        except FileNotFoundError:
            names = []
        self._highest = max([self._highest, pointed, *(int(n) for n in names if re.fullmatch("[1-9][0-9]*", n))])
        return pointed

    def _point(self, store: Any, pointer: str, text: bytes) -> None:
        if not self._local:
            store.pipe_file(pointer, text)  # object stores show the old object or the new one
            return
        temporary = f"{pointer}.new"
        store.pipe_file(temporary, text)
        store.mv(temporary, pointer)

    def _store(self) -> tuple[Any, str]:
        import fsspec  # noqa: PLC0415 - an extra

        options: dict[str, Any] = {name: value.get_secret_value() for name, value in self._settings.options.items()}
        if self._local:
            options.setdefault("auto_mkdir", True)
        store, root = fsspec.core.url_to_fs(self._settings.url, **options)
        return store, str(root).rstrip("/")

    def _said(self, error: Exception) -> str:
        """What *error* says, in one line and without a secret of ours, or of the libraries' environment."""
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = lines[0] if lines else ""
        for secret in _secrets(value.get_secret_value() for value in self._settings.options.values()):
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
        kind = "" if isinstance(error, ExportError) else f"{type(error).__name__}: "
        return f"{kind}{text}"[:_SAID_CHARACTERS]


def _require(url: str) -> bool:
    """Whether *url* is a folder of this machine.

    Raises
    ------
    ConfigError
        if what speaks to it is not installed.
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
        known = "s3, gs, az, file, and whatever else fsspec knows"
        raise ConfigError(Problem(key, f"{protocol} is no file system that fsspec knows; there are {known}")) from None
    return protocol in ("file", "local")


def _copy(store: Any, folder: Path, target: str) -> None:
    """Every file of the version, the manifest last; each is as long there as here."""
    names = tf_serving.names(folder, [path.name for path in folder.iterdir() if path.is_symlink()])
    last = [manifest.SIGNATURE_NAME, manifest.FILE_NAME]
    for name in sorted(names, key=lambda name: last.index(name) if name in last else -1):
        if name == manifest.FILE_NAME:
            crash_points.reached("upload.before-manifest")
        store.put_file(str(folder / name), f"{target}/{name}")
        size, there = (folder / name).stat().st_size, store.size(f"{target}/{name}")
        if size != there:
            raise ExportError(
                f"{target}/{name} has {there} bytes, not {size}; it is uploaded again with the next export"
            )


def _content(store: Any, path: str) -> bytes | None:
    try:
        return bytes(store.cat_file(path))
    except FileNotFoundError:
        return None


def _secrets(options: Iterable[Any]) -> list[str]:
    """Texts that no message may hold, the longest first, so that none survives in part."""
    found = {value for value in options if isinstance(value, str)}
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name.upper()):
            # A connection string holds its key among other things: "AccountName=x;AccountKey=y".
            found |= {value, *(part.partition("=")[2] for part in value.split(";"))}
    return sorted((value for value in found if len(value) >= 6), key=len, reverse=True)
