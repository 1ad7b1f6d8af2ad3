"""Arrays with one part per key, which grow with the number of keys."""

from typing import Any, TypeVar

import numpy as np

from learnd.core.types import State

_Arrays = TypeVar("_Arrays", bound=tuple[Any, ...])


def leaves(arrays: tuple[Any, ...]) -> list[np.ndarray[Any, Any]]:
    """Return the arrays in a named tuple of arrays and of such named tuples, in order."""
    found: list[np.ndarray[Any, Any]] = []
    for item in arrays:
        found.extend(leaves(item) if isinstance(item, tuple) else [item])
    return found


def _rebuilt(like: _Arrays, flat: list[np.ndarray[Any, Any]]) -> _Arrays:
    items = [_rebuilt(item, flat) if isinstance(item, tuple) else flat.pop(0) for item in like]
    return type(like)(*items)


class SlotArrays:
    """A named tuple of arrays whose leading axis holds the same number of rows for each slot.

    Parameters
    ----------
    fresh : the arrays of one slot that has seen nothing
    """

    def __init__(self, fresh: tuple[Any, ...]) -> None:
        self._fresh = fresh
        self._slots = 1
        self.arrays: Any = _rebuilt(fresh, [array.copy() for array in leaves(fresh)])

    def reserve(self, slots: int) -> None:
        """Make room for *slots* slots; the number at least doubles when it grows."""
        if slots <= self._slots:
            return
        added = max(slots, 2 * self._slots) - self._slots
        flat = [
            np.concatenate([array, np.tile(fresh, (added, *[1] * (fresh.ndim - 1)))])
            for array, fresh in zip(leaves(self.arrays), leaves(self._fresh), strict=True)
        ]
        self.arrays = _rebuilt(self._fresh, flat)
        self._slots += added

    def clear(self, slot: int) -> None:
        """Clear everything about *slot*."""
        for array, fresh in zip(leaves(self.arrays), leaves(self._fresh), strict=True):
            array[slot * len(fresh) : (slot + 1) * len(fresh)] = fresh

    def state(self, slots: int) -> State:
        """Return copies of the arrays of the first *slots* slots."""
        pairs = zip(leaves(self.arrays), leaves(self._fresh), strict=True)
        return {"arrays": [array[: slots * len(fresh)].copy() for array, fresh in pairs]}

    def fits(self, state: State, slots: int) -> bool:
        """Return whether *state* holds the arrays of *slots* slots of this form."""
        arrays, fresh = state["arrays"], leaves(self._fresh)
        return len(arrays) == len(fresh) and all(
            array.shape == (slots * len(one), *one.shape[1:]) and array.dtype == one.dtype
            for array, one in zip(arrays, fresh, strict=True)
        )

    def restore(self, state: State, slots: int) -> None:
        """Take over *state*, which was saved with *slots* slots."""
        self._slots = 1
        self.arrays = _rebuilt(self._fresh, [array.copy() for array in leaves(self._fresh)])
        self.reserve(slots)
        for array, saved in zip(leaves(self.arrays), state["arrays"], strict=True):
            array[: len(saved)] = saved
