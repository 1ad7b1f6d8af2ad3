"""The weights of the newest export, next to the exports, so that the gate can evaluate it after a restart too."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learnd.core.tensors import Array
from learnd.core.types import Float32Array

FILE_NAME = ".champion.npz"


@dataclass(frozen=True, slots=True)
class Champion:
    """The newest export: its number, its weights in the order of `Network.served_state`, and a recent raw input."""

    number: int
    weights: tuple[Array, ...]
    example: Float32Array


def write_champion(directory: Path, number: int, weights: Sequence[Array], example: Float32Array) -> None:
    """Write the weights of export *number*, in place of those of an older one."""
    temporary = directory / f"{FILE_NAME}.new"
    arrays = {f"weight_{i}": weight for i, weight in enumerate(weights)}
    with temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, number=np.array(number), example=example, **arrays)
    temporary.replace(directory / FILE_NAME)


def read_champion(directory: Path) -> Champion | None:
    """Return the newest export whose weights were written; None if there is none, or if the file is damaged."""
    try:
        with np.load(directory / FILE_NAME, allow_pickle=False) as arrays:
            count = sum(name.startswith("weight_") for name in arrays)
            weights = tuple(arrays[f"weight_{i}"] for i in range(count))
            return Champion(int(arrays["number"]), weights, arrays["example"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
