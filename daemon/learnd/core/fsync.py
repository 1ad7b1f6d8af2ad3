"""Durable files: fsync(2) of files, and of the folders that hold their names."""

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make the folder *path* and its missing parents, and make each name durable.

    A synced file would be lost with a folder whose name is not durable.
    """
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace the content of *path* by *text*, atomically and durably: a crash leaves the old text or the new one."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    fsync(temporary)
    temporary.rename(path)
    fsync(path.parent)
