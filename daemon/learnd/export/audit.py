"""Check of an export against its manifest, to the last byte, and of the manifest against its signature."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from learnd.core.errors import UsageError
from learnd.export import manifest, tf_serving
from learnd.export.manifest_schema import FORMAT_VERSION, Manifest
from learnd.export.signing import Verifier


@dataclass(frozen=True, slots=True)
class Audit:
    """The result of a check, file by file; ``sound`` sums it up."""

    missing: tuple[str, ...]
    changed: tuple[str, ...]
    additional: tuple[str, ...]
    manifest: str
    """Empty if the manifest fits its schema; otherwise what is wrong with it."""
    signature: str
    """good | not signed | not checked | missing | wrong | of another key"""
    signature_required: bool
    """A public key was given, so only a good signature is accepted."""

    @property
    def sound(self) -> bool:
        """True if no file differs and, if a public key was given, its owner signed the manifest."""
        tampered = self.missing or self.changed or self.additional or self.manifest
        accepted = ("good",) if self.signature_required else ("good", "not signed", "not checked")
        return not tampered and self.signature in accepted

    def findings(self) -> str:
        """Return in words everything that is wrong; empty for a sound export."""
        texts = [f"{kind}: {', '.join(names)}" for kind, names in self._differences().items() if names]
        texts += [f"{manifest.FILE_NAME}: {self.manifest}"] if self.manifest else []
        return "; ".join([*texts, f"signature: {self.signature}"]) if not self.sound else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-serialisable values."""
        lists = {kind: list(names) for kind, names in self._differences().items()}
        return {"sound": self.sound, **lists, "manifest": self.manifest or "good", "signature": self.signature}

    def _differences(self) -> dict[str, tuple[str, ...]]:
        return {"missing": self.missing, "changed": self.changed, "additional": self.additional}


def audit(folder: Path, public_key: Path | None = None) -> Audit:
    """Compare the export in *folder* with its manifest; with *public_key*, also check the signature.

    Raises
    ------
    UsageError
        if *folder* is not an export, or *public_key* not a key.
    """
    if not (folder / manifest.FILE_NAME).is_file():
        raise UsageError(
            f"{folder} is not an export (it has no {manifest.FILE_NAME}); --verify checks one export, such as "
            "exports/latest"
        )
    verifier = Verifier(public_key) if public_key is not None else None
    text = (folder / manifest.FILE_NAME).read_bytes()
    document, problem = _parse(text)
    listed_files, links = (_mapping(document, key) for key in ("files", "links"))
    hashes = manifest.hash_files(folder, durable=False)
    names = _names(folder)

    def is_link(name: str) -> bool:
        """Return whether *name* is a link in the manifest, or an identical copy of its target.

        Tools that follow links while they copy turn them into such copies.
        """
        target = tf_serving.link_target(name, links)
        if target is None:
            return False
        path = folder / name
        return str(path.readlink()) == target if path.is_symlink() else hashes.get(name) == listed_files.get(target, {})

    return Audit(
        missing=tuple(sorted(listed_files.keys() - names)),
        changed=tuple(sorted(name for name in listed_files.keys() & names if hashes.get(name) != listed_files[name])),
        additional=tuple(sorted(name for name in names - listed_files.keys() if not is_link(name))),
        manifest=problem,
        signature=_signature(folder, text, document, verifier),
        signature_required=verifier is not None,
    )


def _mapping(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key, {})
    return value if isinstance(value, dict) else {}


def _names(folder: Path) -> set[str]:
    """Return the path of everything in *folder* that is not a folder, including links and pipes."""
    paths = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}
    return paths - {manifest.FILE_NAME, manifest.SIGNATURE_NAME}


def _parse(text: bytes) -> tuple[dict[str, Any], str]:
    """Return the manifest, and what is wrong with it (empty if nothing is)."""
    try:
        document = json.loads(text)
    except ValueError as error:
        return {}, f"is not JSON ({error})"
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        return {}, "lists no files"
    if document.get("format_version") != FORMAT_VERSION:
        return document, ""  # written by another version of learnd; only its hashes can be checked
    try:
        Manifest.model_validate(document)
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
    key_id = key.get("id") if isinstance(key, dict) else None
    return "wrong" if key_id == verifier.key_id else "of another key"
