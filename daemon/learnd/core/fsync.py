"""Making things survive a loss of power: fsync(2) of files and of the folders that name them."""

import os
from pathlib import Path


def fsync(path: Path) -> None:
    """Make the content of a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make *path* and what is missing above it, each name durable: a synced file in a lost folder is lost."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace *path* by *text* at once and durably: after a crash it holds the old text or the new one."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    fsync(temporary)
    temporary.rename(path)
    fsync(path.parent)
