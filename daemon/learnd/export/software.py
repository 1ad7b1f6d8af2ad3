"""The software that made an export: versions of the libraries, and hashes of the code."""

import hashlib
import platform
from collections.abc import Iterable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import learnd

LIBRARIES = ("tensorflow", "keras", "numpy", "ai-edge-litert")
"""Libraries that write the files, or decide what is in them."""
_OPTIONAL = ("tf2onnx", "onnx", "onnxruntime")


def versions() -> dict[str, str]:
    """Return the versions of learnd, Python and every library that an export depends on."""
    return {
        "learnd": learnd.__version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
        **{name: metadata.version(name) for name in _OPTIONAL if find_spec(name) is not None},
    }


def code_hashes(addresses: Iterable[str]) -> dict[str, str]:
    """Return by package a SHA-256 over its Python files: for learnd, and for the package of each of *addresses*.

    An address is ``package.module:name``. Two exports with the same hashes were made by the same code, whatever version
    it claims to be.

    >>> sorted(code_hashes(["json.decoder:JSONDecoder"]))
    ['json', 'learnd']
    """
    packages = ["learnd", *sorted({address.partition(":")[0].partition(".")[0] for address in addresses})]
    return {package: _hash(files) for package in packages if (files := _files(package))}


def _files(package: str) -> list[tuple[str, Path]]:
    """Return the Python files of *package*, each with its path inside the package; empty if it has none."""
    spec = find_spec(package)
    if spec is None:
        return []
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    if folders:
        return sorted((p.relative_to(f).as_posix(), p) for f in folders for p in f.rglob("*.py"))
    return [(Path(spec.origin).name, Path(spec.origin))] if spec.origin and Path(spec.origin).is_file() else []


def _hash(files: Iterable[tuple[str, Path]]) -> str:
    digest = hashlib.sha256()
    for name, path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{content}  {name}\n".encode())
    return digest.hexdigest()
