"""Publishes an older export again, under a new number: how an operator rolls back or promotes.

Programs that list the folder take the highest number, and TensorFlow Serving never goes back to a lower one. So what
they run next must have a higher number than everything before. ``latest`` alone could point back; then programs that
follow it would run other weights than programs that list the folder.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnd.core.errors import ExportDamagedError, UsageError
from learnd.core.fsync import fsync
from learnd.export import manifest, model_card, versions
from learnd.export.audit import audit
from learnd.export.manifest_schema import FORMAT_VERSION
from learnd.export.signing import Signer
from learnd.export.versions import Versions


@dataclass(frozen=True, slots=True)
class Republished:
    """The outcome: export *number* has the content of *original*, and is the newest. They are equal if it already was.

    Attributes
    ----------
    passed_over : damaged exports that a rollback did not choose
    """

    number: int
    original: int
    passed_over: tuple[int, ...] = ()


class Republisher:
    """Makes an older export the newest one again. It may run next to the daemon that owns the folder.

    Parameters
    ----------
    directory : the folder of exports
    signing_key_file : the private key for exports that are signed; None: only unsigned exports can be published again
    """

    def __init__(
        self, directory: Path, signing_key_file: Path | None = None, *, now: Callable[[], float] = time.time
    ) -> None:
        self._directory = directory
        self._key = signing_key_file
        self._now = now
        self._versions = Versions(directory, keep=1, now=now)

    def rollback(self, to: int | None = None) -> Republished:
        """Publish export *to* again; None stands for the newest sound export before the content in use.

        Raises
        ------
        UsageError
            if there is no such export.
        ExportDamagedError
            if export *to* is damaged.
        """
        if to is not None:
            return self.promote(to)
        passed_over: list[int] = []
        for number in self._earlier():
            if audit(self._versions.path(number)).sound:
                done = self.promote(number)
                return Republished(done.number, done.original, tuple(passed_over))
            passed_over.append(number)
        damaged = f"; damaged: {', '.join(map(str, passed_over))}" if passed_over else ""
        raise UsageError(f"{self._directory} has no sound export before the one in use{damaged}")

    def promote(self, number: int) -> Republished:
        """Make export *number* the newest: publish it again, or only move ``latest`` if it is the newest already.

        Raises
        ------
        UsageError
            if there is no such export, if another version of learnd wrote it, or if it is signed and there is no key.
        ExportDamagedError
            if its files differ from its manifest.
        ExportError
            if another process published meanwhile.
        """
        published = self._versions.numbers()
        if number not in published:
            listed = ", ".join(map(str, published)) or "none"
            raise UsageError(f"{self._directory} has no export {number}; it has {listed}")
        folder = self._versions.path(number)
        report = audit(folder)
        if not report.sound:
            raise ExportDamagedError(f"{folder} is not what was published: {report.findings()}; choose another export")
        if number == published[-1]:
            if self._versions.latest() != number:
                self._versions.point(number)
            return Republished(number, number)
        return Republished(self._publish(folder), number)

    def _earlier(self) -> Iterator[int]:
        """Yield the exports before the content in use, newest first."""
        published = self._versions.numbers()
        if not published:
            raise UsageError(f"{self._directory} has no exports; nothing was published there yet")
        newest = published[-1]
        used = newest
        while (original := versions.original_of(self._versions.path(used))) is not None and original < used:
            used = original
        yield from (number for number in reversed(published) if number < used)

    def _publish(self, folder: Path) -> int:
        """Publish the content of *folder* under a new number, and return it."""
        document: dict[str, Any] = json.loads((folder / manifest.FILE_NAME).read_text(encoding="utf-8"))
        if document.get("format_version") != FORMAT_VERSION:
            raise UsageError(
                f"{folder} was written by another version of learnd (form {document.get('format_version')} of the "
                f"manifest, not {FORMAT_VERSION}), and cannot be published again by this one"
            )
        signer = self._signer(folder, document)
        number = self._versions.take_number()
        building = self._versions.building(number)
        try:
            shutil.copytree(folder, building, symlinks=True)
            (building / manifest.SIGNATURE_NAME).unlink(missing_ok=True)
            document |= {
                "number": number,
                "created_at": manifest.iso_time(self._now()),
                "republished_of": int(folder.name),
                "parent": manifest.parent(self._versions.newest()),
                "signing_key": {"algorithm": "Ed25519", "id": signer.key_id} if signer is not None else None,
            }
            model_card.write(building, document)
            text = manifest.write(building, {**document, "files": manifest.hash_files(building)})
            if signer is not None:
                path = building / manifest.SIGNATURE_NAME
                path.write_bytes(signer.sign(text))
                fsync(path)
            self._versions.publish(number)
        finally:
            self._versions.discard(number)
        return number

    def _signer(self, folder: Path, document: dict[str, Any]) -> Signer | None:
        if self._key is not None:
            return Signer(self._key)
        if document.get("signing_key"):
            raise UsageError(
                f"{folder} is signed, and a new number needs a new signature: name the configuration, whose "
                "export.signing_key_file has the key, instead of a folder"
            )
        return None
