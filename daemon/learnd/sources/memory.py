"""Sources in memory: one plays a script, so that recovery tests read like stories; one continues a stream."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from learnd.core.types import Offsets, Position, Positions, Records, TopicPartition, offsets_of


class ScriptedCrash(Exception):  # noqa: N818 - named after the event
    """The error that a `Crash` in the script raises."""


@dataclass(frozen=True, slots=True)
class Crash:
    """An entry at which `poll` raises `ScriptedCrash`, once. A source that is opened again continues after it."""


@dataclass(frozen=True, slots=True)
class Pause:
    """An entry that makes *polls* calls of `poll` return nothing."""

    polls: int = 1


@dataclass(frozen=True, slots=True)
class Item:
    """A record with more than a value."""

    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = 0
    partition: int = 0


Script = Iterable[bytes | Item | Crash | Pause | None]


class MemorySource:
    """Records, crashes and pauses of *script*, in order. Offsets count per partition.

    >>> source = MemorySource([b"a", Pause(), b"b", Crash(), b"c"])
    >>> source.open({})
    >>> [run.values for run in source.poll(10, 0.0)]
    [[b'a']]
    >>> source.poll(10, 0.0), [run.values for run in source.poll(10, 0.0)]
    ([], [[b'b']])
    >>> source.poll(10, 0.0)
    Traceback (most recent call last):
    learnd.sources.memory.ScriptedCrash
    """

    def __init__(self, script: Script, *, topic: str = "memory") -> None:
        self._topic = topic
        self._script = list(script)
        # Counted once, because lags are read after every batch, and a script may have 100 000 records.
        self._ends: dict[TopicPartition, int] = {}
        for item in self._items():
            partition = TopicPartition(self._topic, item.partition)
            self._ends[partition] = self._ends.get(partition, 0) + 1
        self._played: set[int] = set()
        self._next = 0
        self._empty_polls = 0
        self._positions: dict[TopicPartition, int] = {}
        self.acknowledged: list[Offsets] = []
        """The acknowledged offsets, in order, for tests."""

    def open(self, positions: Positions) -> None:
        self._next = 0
        self._empty_polls = 0
        self._positions = dict.fromkeys(self._ends, 0)
        self._start = offsets_of(positions)
        self._positions.update(self._start)
        self._seen: dict[TopicPartition, int] = {}

    def _items(self) -> list[Item]:
        items = [_item(entry) for entry in self._script]
        return [item for item in items if item is not None]

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        if self._empty_polls:
            self._empty_polls -= 1
            return []
        columns: dict[TopicPartition, list[tuple[int, Item]]] = {}
        count = 0
        while self._next < len(self._script) and count < max_records:
            entry = self._script[self._next]
            item = _item(entry)
            if item is None:
                if count:
                    break
                if self._play(entry):
                    return []
                continue
            self._next += 1
            partition = TopicPartition(self._topic, item.partition)
            offset = self._seen.get(partition, 0)
            self._seen[partition] = offset + 1
            if offset >= self._start.get(partition, 0):
                columns.setdefault(partition, []).append((offset, item))
                self._positions[partition] = offset + 1
                count += 1
        return [_run(partition, rows) for partition, rows in columns.items()]

    def _play(self, entry: object) -> bool:
        """Play a `Crash` or a `Pause`; return True if this poll returns nothing."""
        here = self._next
        if isinstance(entry, Crash):
            if here not in self._played:
                self._played.add(here)
                raise ScriptedCrash
            self._next += 1
            return False
        self._next += 1
        if isinstance(entry, Pause) and here not in self._played:
            self._played.add(here)
            self._empty_polls = entry.polls - 1
            return True
        return False

    def ends(self) -> Offsets:
        return dict(self._ends)

    def positions(self) -> Positions:
        return {partition: Position(offset) for partition, offset in self._positions.items()}

    def lags(self) -> Mapping[TopicPartition, int]:
        return {p: end - self._positions[p] for p, end in self._ends.items()}

    def connected(self) -> bool:
        return True

    def exhausted(self) -> bool:
        return self._next >= len(self._script) and self._empty_polls == 0

    def acknowledge(self, offsets: Offsets) -> None:
        self.acknowledged.append(dict(offsets))

    def close(self) -> None:
        """Do nothing; the script can be opened again."""


class NextRecords:
    """Records that continue a stream: the first one gets the offset at which the last run stopped.

    They are partition 0 of *topic*. An iterator is read as far ahead as the reader polls (a few batches), so it may be
    longer than memory. Unlike other sources, this one cannot be read again: it can be opened once.

    >>> source = NextRecords([b"a", b"b"], topic="t")
    >>> source.open({TopicPartition("t", 0): Position(7)})
    >>> [(block.offsets, block.values) for block in source.poll(10, 0.0)]
    [([7, 8], [b'a', b'b'])]
    >>> source.exhausted(), source.positions()[TopicPartition("t", 0)].offset
    (True, 9)
    """

    def __init__(self, values: Iterable[bytes | None], *, topic: str) -> None:
        self._values = iter(values)
        self._partition = TopicPartition(topic, 0)
        self._next = 0
        self._exhausted = False

    def open(self, positions: Positions) -> None:
        self._next = positions.get(self._partition, Position(0)).offset

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        values = list(islice(self._values, max_records))
        self._exhausted = len(values) < max_records
        if not values:
            return []
        first, count = self._next, len(values)
        self._next += count
        offsets, none, times_ms = list(range(first, self._next)), [None] * count, [0] * count
        return [Records(self._partition, offsets, values, none, times_ms, Position(self._next))]

    def ends(self) -> Offsets:
        return {}

    def positions(self) -> Positions:
        return {self._partition: Position(self._next)}

    def lags(self) -> Mapping[TopicPartition, int]:
        return {}

    def connected(self) -> bool:
        return True

    def exhausted(self) -> bool:
        return self._exhausted

    def acknowledge(self, offsets: Offsets) -> None:
        """Do nothing: there is no broker."""

    def close(self) -> None:
        """Do nothing: the iterator belongs to the caller."""


def _item(entry: object) -> Item | None:
    if isinstance(entry, Item):
        return entry
    return None if isinstance(entry, Crash | Pause) else Item(entry)  # type: ignore[arg-type]


def _run(partition: TopicPartition, rows: list[tuple[int, Item]]) -> Records:
    return Records(
        partition,
        [offset for offset, _ in rows],
        [item.value for _, item in rows],
        [item.key for _, item in rows],
        [item.timestamp_ms for _, item in rows],
        Position(rows[-1][0] + 1),
    )
