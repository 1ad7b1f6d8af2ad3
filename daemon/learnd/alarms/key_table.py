"""Places for the keys that were seen most recently."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from learnd.core.types import Int64Array, State


class Run(NamedTuple):
    """A run of rows in which no key loses its place.

    Attributes
    ----------
    rows : the rows
    slots : (rows,), the place of each row's key
    evicted : the key that lost its place before this run, and the place; None: there was a free one
    """

    rows: slice
    slots: Int64Array
    evicted: tuple[str, int] | None


class KeyTable:
    """The place of each key, from 0 to *max_keys* - 1. A new key takes over the place of the one unseen for longest."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self._slots: OrderedDict[str, int] = OrderedDict()
        """The longest unseen first."""

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, key: str) -> int | None:
        """Return the place of *key*, if it has one, without counting that as seen."""
        return self._slots.get(key)

    def runs(self, keys: Sequence[str]) -> Iterator[Run]:
        """Yield all rows of *keys* in order.

        >>> [(run.slots.tolist(), run.evicted) for run in KeyTable(2).runs(["a", "b", "a", "c"])]
        [([0, 1, 0], None), ([1], ('b', 1))]
        """
        start = 0
        evicted: tuple[str, int] | None = None
        slots: list[int] = []
        last: str | None = None
        for row, key in enumerate(keys):
            if key != last:
                slot = self._slots.pop(key, None)
                if slot is None and len(self._slots) < self._max_keys:
                    slot = len(self._slots)
                elif slot is None:
                    if slots:
                        yield Run(slice(start, row), np.array(slots, np.int64), evicted)
                    start, slots = row, []
                    evicted = self._slots.popitem(last=False)
                    slot = evicted[1]
                self._slots[key] = slot
                last = key
            slots.append(self._slots[key])
        if slots:
            yield Run(slice(start, len(keys)), np.array(slots, np.int64), evicted)

    def state(self) -> State:
        return {"keys": list(self._slots), "slots": list(self._slots.values())}

    def restore(self, state: State) -> None:
        self._slots = OrderedDict(zip(state["keys"], state["slots"], strict=True))
