"""Features that are the elements of one array, such as the pixels of an image. Quick to import: no NumPy."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

MOST_ELEMENTS = 65_536
"""Maximum number of elements of an array: each is a column of its own, with its scale."""


class _Shaped(Protocol):
    @property
    def shape(self) -> Sequence[int] | None: ...


def array_of(features: Mapping[str, _Shaped]) -> tuple[str, tuple[int, ...]] | None:
    """Return the name and the shape of the array whose elements *features* are, in order; None if they are not.

    >>> from types import SimpleNamespace
    >>> array_of({f"image[{i}]": SimpleNamespace(shape=[1, 2]) for i in range(2)})
    ('image', (1, 2))
    """
    first, options = next(iter(features.items()))
    name, bracket, _ = first.rpartition("[")
    if options.shape is None or not bracket or len(features) != math.prod(options.shape):
        return None
    return (name, tuple(options.shape)) if all(f"{name}[{i}]" == f for i, f in enumerate(features)) else None
