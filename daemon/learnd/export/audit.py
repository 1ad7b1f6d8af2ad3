"""Whether an export is what its manifest says, to the last byte, and whether the manifest is its maker's."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learnd.core.errors import UsageError
from learnd.export import manifest, tf_serving
from learnd.export.signing import Verifier


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found, file by file; ``sound`` sums it up."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    additional: tuple[str, ...]
    manifest: str
    """Empty if it fits its schema, else what is wrong."""
    signature: str
    """good | not signed | not checked | missing | wrong | of another key"""
    key_wanted: bool

    @property
    def sound(self) -> bool:
        """No file differs, and where a public key was given its holder signed."""
        tampered = self.missing or self.changed or self.additional or self.manifest
        accepted = ("good",) if self.key_wanted else ("good", "not signed", "not checked")
        return not tampered and self.signature in accepted

    def findings(self) -> str:
        """What is wrong, in words; empty where nothing is."""
        said = [f"{what}: {', '.join(names)}" for what, names in self._lists().items() if names]
        said += [f"{manifest.FILE_NAME}: {self.manifest}"] if self.manifest else []
        return "; ".join([*said, f"signature: {self.signature}"]) if not self.sound else ""

    def shown(self) -> dict[str, Any]:
        """For people and programs."""
        lists = {what: list(names) for what, names in self._lists().items()}
        return {"sound": self.sound, **lists, "manifest": self.manifest or "good", "signature": self.signature}

    def _lists(self) -> dict[str, tuple[str, ...]]:
        return {"missing": self.missing, "changed": self.changed, "additional": self.additional}


def audit(folder: Path, public_key: Path | None = None) -> Audit:
    """What differs between the export in *folder* and its manifest; and with *public_key* whether its holder signed.

    Raises
    ------
    UsageError
        if *folder* is no export, or *public_key* no key.
    """
    if not (folder / manifest.FILE_NAME).is_file():
        raise UsageError(f"{folder} is no export (no {manifest.FILE_NAME}); --verify checks one, say exports/latest")
    verifier = Verifier(public_key) if public_key is not None else None
    text = (folder / manifest.FILE_NAME).read_bytes()
    document, wrong = _parsed(text)
    named, links = (_mapping(document, key) for key in ("files", "links"))
    found = manifest.hash_files(folder, durable=False)
    there = _names(folder)

    def another_name(name: str) -> bool:
        """Whether *name* is one of the manifest's links, or what became of it where links were followed."""
        target = tf_serving.stands_for(name, links)
        if target is None:
            return False
        path = folder / name
        return str(path.readlink()) == target if path.is_symlink() else found.get(name) == named.get(target, {})

    return Audit(
        missing=tuple(sorted(named.keys() - there)),
        changed=tuple(sorted(name for name in named.keys() & there if found.get(name) != named[name])),
        additional=tuple(sorted(name for name in there - named.keys() if not another_name(name))),
        manifest=wrong,
        signature=_signature(folder, text, document, verifier),
        key_wanted=verifier is not None,
    )


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key, {})
    return value if isinstance(value, dict) else {}


def _names(folder: Path) -> set[str]:
    """Whatever is in *folder* and no folder itself: links and pipes too."""
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    return paths - {manifest.FILE_NAME, manifest.SIGNATURE_NAME}


def _parsed(text: bytes) -> tuple[dict[str, Any], str]:
    """The manifest, and what is wrong with it."""
    try:
        document = json.loads(text)
    except ValueError as error:
        return {}, f"is not JSON ({error})"
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        return {}, "names no files"
    if document.get("format_version") != manifest.FORMAT_VERSION:
        return document, ""  # of another learnd: the hashes are all that is known of it
    try:
        manifest.Manifest.model_validate(document)
    except ValidationError as error:
        return document, manifest.first_problem(error)
    return document, ""


def _signature(folder: Path, text: bytes, document: dict[str, Any], verifier: Verifier | None) -> str:
    path = folder / manifest.SIGNATURE_NAME
    key = document.get("signing_key")
    if not path.is_file():
        return "missing" if key else "not signed"
    if verifier is None:
        return "not checked"
    if verifier.accepts(path.read_bytes(), text):
        return "good"
    own = key.get("id") if isinstance(key, dict) else None
    return "wrong" if own == verifier.key_id else "of another key"
