"""Entries that wait for a partner: bounded by number and by event time, in the order of arrival."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from learnd.core.types import State

Value = TypeVar("Value")


class _Entry(NamedTuple, Generic[Value]):
    time_s: float
    value: Value


class WaitingTable(Generic[Value]):
    """Entries by name, in one queue for each place, such as a partition.

    An entry expires when it is the oldest of its queue, and the clock of its place has passed its time by more than
    *within_s*. Beyond *size* entries the oldest of the longest queue is dropped. Both depend on the order of calls
    only, not on how they are grouped.

    Parameters
    ----------
    load : makes a value of what a checkpoint holds of it

    >>> table = WaitingTable[str](within_s=10.0, size=2, load=str)
    >>> list(table.add("a", "p", 0.0, "A")), list(table.add("b", "p", 5.0, "B")), list(table.add("c", "p", 6.0, "C"))
    ([], [], ['A'])
    >>> list(table.expire("p", 15.5)), table.pop("b"), table.pop("c")
    (['B'], None, 'C')
    """

    def __init__(self, *, within_s: float, size: int, load: Callable[[Any], Value]) -> None:
        self._load = load
        self._within_s = within_s
        self._size = size
        self._queues: dict[str, OrderedDict[str, _Entry[Value]]] = {}
        self._place_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._place_of)

    def get(self, name: str) -> Value | None:
        """Return the value of *name*, or None."""
        place = self._place_of.get(name)
        return None if place is None else self._queues[place][name].value

    def add(self, name: str, place: str, time_s: float, value: Value) -> Iterator[Value]:
        """Add a new entry; yield the values that are dropped for it. A time of -inf begins at the next clock."""
        self._queues.setdefault(place, OrderedDict())[name] = _Entry(time_s, value)
        self._place_of[name] = place
        while len(self._place_of) > self._size:
            longest = max(self._queues.values(), key=len)
            dropped, entry = longest.popitem(last=False)
            del self._place_of[dropped]
            yield entry.value

    def replace(self, name: str, value: Value) -> None:
        """Replace the value of *name*, which keeps its place and time."""
        queue = self._queues[self._place_of[name]]
        queue[name] = queue[name]._replace(value=value)

    def pop(self, name: str) -> Value | None:
        """Remove *name* and return its value, or None."""
        place = self._place_of.pop(name, None)
        return None if place is None else self._queues[place].pop(name).value

    def expire(self, place: str, clock_s: float) -> Iterator[Value]:
        """Yield the values that have expired, and remove them."""
        queue = self._queues.get(place)
        while queue:
            name = next(iter(queue))
            entry = queue[name]
            if entry.time_s == -np.inf:
                queue[name] = entry._replace(time_s=clock_s)
                return
            if entry.time_s + self._within_s >= clock_s:
                return
            del queue[name], self._place_of[name]
            yield entry.value

    def state(self) -> State:
        entries = [(place, name, entry) for place, queue in self._queues.items() for name, entry in queue.items()]
        return {
            "places": [place for place, _, _ in entries],
            "names": [name for _, name, _ in entries],
            "times_s": np.array([entry.time_s for _, _, entry in entries], np.float64),
            "values": [entry.value for _, _, entry in entries],
            "queues": list(self._queues),
        }

    def restore(self, state: State) -> None:
        self._queues = {place: OrderedDict() for place in state["queues"]}
        self._place_of = {}
        columns = (state["places"], state["names"], state["times_s"].tolist(), state["values"])
        for place, name, time_s, value in zip(*columns, strict=True):
            self._queues[place][name] = _Entry(time_s, self._load(value))
            self._place_of[name] = place
