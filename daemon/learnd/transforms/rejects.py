"""Rejects of samples that were decoded already: the dead letter needs the record that they came from."""

from bisect import bisect_left
from collections.abc import Sequence

from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples, TopicPartition


class RejectedRows:
    """The rejects of one batch, one per record: the first.

    Parameters
    ----------
    records : the undecoded records of the batch, for whole dead letters; empty: they were not kept
    """

    def __init__(self, records: Sequence[Records]) -> None:
        self._runs: dict[TopicPartition, list[Records]] = {}
        for run in records:
            self._runs.setdefault(run.origin, []).append(run)
        self._rejects: dict[tuple[TopicPartition, int], Reject] = {}

    def add(self, samples: Samples, row: int, reason: RejectReason, detail: str) -> None:
        """Add the reject of the record of one *row* of *samples*, unless it has one."""
        place = (samples.origins[row], int(samples.offsets[row]))
        if place not in self._rejects:
            self._rejects[place] = self._reject(*place, reason, detail)

    def _reject(self, origin: TopicPartition, offset: int, reason: RejectReason, detail: str) -> Reject:
        for run in self._runs.get(origin, ()):
            i = bisect_left(run.offsets, offset)
            if i < len(run) and run.offsets[i] == offset:
                return run.reject(i, reason, detail)
        return Reject(origin, offset, reason, detail, None)

    def all(self) -> tuple[Reject, ...]:
        """Return the rejects, in the order in which they were added."""
        return tuple(self._rejects.values())
