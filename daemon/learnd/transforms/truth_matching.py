"""The first half of late truths: which record a truth belongs to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from learnd.core.reasons import TruthOutcome
from learnd.core.types import Batch, Samples, State, TopicPartition, Transformed
from learnd.transforms.waiting_table import WaitingTable

_BETWEEN = "\x1f"
Truth = tuple[tuple[float, ...], str | None]
"""The targets and the label of a record."""


@dataclass(frozen=True, slots=True)
class Match:
    """A truth that has come for a record: the number of its answer, and the record that brought the truth."""

    number: int
    origin: TopicPartition
    offset: int
    truth: Truth


class TruthMatcher:
    """Matches truths with records by key and identifier, or by key and event time; before all other transforms.

    A record without a target gets the number of its answer. A record that only brings a truth, or brings it again,
    leaves the batch here; `matches` and `forgotten` tell `TruthJoin` what it meant. Each truth is used once.

    Time is the event time of the records, never the clock. With truths in the same topics, each partition has its own
    time, and the state after a partition does not depend on how it was cut into batches. With a topic of truths, a
    record waits by the time of that topic, and a truth by the time of the records; the order in which the two topics
    are polled then decides the order of learning, and a full table.

    Parameters
    ----------
    topic : the topic of truths; None: they are in the topics of the records
    has_keys : keys name machines; otherwise they name partitions, which differ between two topics
    """

    def __init__(self, *, by_time: bool, within_s: float, size: int, topic: str | None, has_keys: bool) -> None:
        self._by_time = by_time
        self._topic = topic
        self._keyed = has_keys or topic is None
        self._asked = WaitingTable[int](within_s=within_s, size=size, load=int)
        self._early = WaitingTable[Truth](within_s=within_s, size=size, load=_loaded)
        self._done = WaitingTable[Truth](within_s=within_s, size=size, load=_loaded)
        self._clocks: dict[str, float] = {}
        """The largest event time of each partition."""
        self._next = 1
        self.matches: list[Match] = []
        """The matches of the newest batch, in order."""
        self.forgotten: list[int] = []
        """The answers whose truth was given up in the newest batch."""
        self._outcomes: Counter[TruthOutcome] = Counter()

    def __call__(self, batch: Batch) -> Transformed:
        self.matches, self.forgotten, self._outcomes = [], [], Counter()
        samples = batch.samples
        count = len(samples)
        known = np.ones(count, np.bool_) if samples.has_target is None else samples.has_target.copy()
        bare = known & np.isnan(samples.x).all(axis=1)
        names = self._names(samples)
        y, answers, stays = samples.y.copy(), np.zeros(count, np.int64), np.ones(count, np.bool_)
        labels = None if samples.labels is None else samples.labels.copy()
        for row, name in enumerate(names):
            origin, time_s = samples.origins[row], float(samples.times_s[row])
            place = self._advance(origin, time_s, bare=bool(bare[row]))
            if known[row]:
                match = Match(0, origin, int(samples.offsets[row]), _truth(samples, row))
                stays[row] = self._take_truth(name, place, time_s, match, bare=bool(bare[row]))
                continue
            early = self._early.pop(name)
            if early is not None:
                y[row], known[row] = early[0], True
                if labels is not None:
                    labels[row] = early[1]
                self._finish(name, place, time_s, early)
            elif self._asked.get(name) is None and self._done.get(name) is None:
                answers[row] = self._ask(name, place, time_s)
        kept = replace(samples, y=y, labels=labels, has_target=known, answers=answers)
        return Transformed(kept if stays.all() else kept.take(stays), truths=self._outcomes)

    def _names(self, samples: Samples) -> list[str]:
        """Return a text for each row that is the same for a record and its truth."""
        keys = samples.keys.tolist() if self._keyed else [""] * len(samples)
        ids = map(repr, samples.times_s.tolist()) if self._by_time or samples.ids is None else samples.ids.tolist()
        return [f"{key}{_BETWEEN}{name}" for key, name in zip(keys, ids, strict=True)]

    def _advance(self, origin: TopicPartition, time_s: float, *, bare: bool) -> str:
        """Follow event time, drop what has waited too long, and return the place of the row in the tables."""
        partition = f"{origin.topic}/{origin.partition}"
        if self._topic is None:
            if not bare:  # a truth may have no event time of its own
                self._clocks[partition] = max(self._clocks.get(partition, -np.inf), time_s)
                clock_s = self._clocks[partition]
                self._expire(partition, asked_s=clock_s, early_s=clock_s)
            return partition
        self._clocks[partition] = max(self._clocks.get(partition, -np.inf), time_s)
        of_truths, of_records = self._slowest(truths=True), self._slowest(truths=False)
        self._expire("", asked_s=of_truths, early_s=of_records)
        return ""

    def _slowest(self, *, truths: bool) -> float:
        """Return the event time up to which all partitions of truths, or of records, have come."""
        mine = [s for partition, s in self._clocks.items() if (partition.rpartition("/")[0] == self._topic) == truths]
        return min(mine, default=-np.inf)

    def _expire(self, place: str, *, asked_s: float, early_s: float) -> None:
        for number in self._asked.expire(place, asked_s):
            self.forgotten.append(number)
            self._outcomes[TruthOutcome.EXPIRED] += 1
        for _ in self._early.expire(place, early_s):
            self._outcomes[TruthOutcome.UNMATCHED] += 1
        for _ in self._done.expire(place, asked_s):
            pass

    def _ask(self, name: str, place: str, time_s: float) -> int:
        """Let a record wait for its truth; return the number of its answer."""
        number, self._next = self._next, self._next + 1
        for dropped in self._asked.add(name, place, time_s, number):
            self.forgotten.append(dropped)
            self._outcomes[TruthOutcome.EVICTED] += 1
        return number

    def _take_truth(self, name: str, place: str, time_s: float, match: Match, *, bare: bool) -> bool:
        """Find the record of a truth; return whether the row stays, to be learned as a whole."""
        truth = match.truth
        number = self._asked.pop(name)
        if number is not None:
            self.matches.append(replace(match, number=number))
            self._finish(name, place, time_s, truth)
            return False
        if (before := self._done.get(name)) is not None:
            self._repeat(self._done, name, before, truth)
            return False
        waiting = self._early.get(name)
        if bare and waiting is None:
            since_s = time_s if self._topic is not None else self._clocks.get(place, -np.inf)
            for _ in self._early.add(name, place, since_s, truth):
                self._outcomes[TruthOutcome.EVICTED] += 1
            return False
        if waiting is not None:
            self._repeat(self._early, name, waiting, truth)
        if bare:
            return False
        self._early.pop(name)
        self._remember(name, place, time_s, truth)
        return True

    def _finish(self, name: str, place: str, time_s: float, truth: Truth) -> None:
        self._outcomes[TruthOutcome.MATCHED] += 1
        self._remember(name, place, time_s, truth)

    def _remember(self, name: str, place: str, time_s: float, truth: Truth) -> None:
        """Remember a truth, to recognise a repeated one."""
        since_s = time_s if self._topic is not None else self._clocks.get(place, -np.inf)
        for _ in self._done.add(name, place, since_s, truth):
            pass

    def _repeat(self, table: WaitingTable[Truth], name: str, before: Truth, truth: Truth) -> None:
        """Count a truth that has come before; a waiting one takes the new value."""
        self._outcomes[TruthOutcome.DUPLICATE if truth == before else TruthOutcome.CORRECTED] += 1
        table.replace(name, truth)

    def state(self) -> State:
        tables = self._tables()
        return {
            "next": self._next,
            "clocks": [[place, clock_s] for place, clock_s in self._clocks.items()],
            **{name: table.state() for name, table in tables.items()},
        }

    def restore(self, state: State) -> None:
        self._next = int(state["next"])
        self._clocks = {place: float(clock_s) for place, clock_s in state["clocks"]}
        for name, table in self._tables().items():
            table.restore(state[name])

    def _tables(self) -> Mapping[str, WaitingTable[Any]]:
        return {"asked": self._asked, "early": self._early, "done": self._done}


def _truth(samples: Samples, row: int) -> Truth:
    return tuple(samples.y[row].tolist()), None if samples.labels is None else samples.labels[row]


def _loaded(value: Sequence[Any]) -> Truth:
    """Return the truth that a checkpoint holds as lists."""
    return tuple(value[0]), value[1]
