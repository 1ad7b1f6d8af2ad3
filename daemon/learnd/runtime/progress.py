"""How far the stream was learned, and the newest inputs: the loop's own part of the checkpoint."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import (
    Batch,
    Float32Array,
    Offsets,
    Position,
    Positions,
    PrequentialScores,
    State,
    StepResult,
    TopicPartition,
)

PROBE_ROWS, PROBE_BYTES = 512, 1 << 20
"""Recent inputs in a snapshot, fewer if they are large: exports are checked on the newest of them, and quantised ones
are fitted to the others."""


@dataclass(slots=True)
class Progress:
    """Where the stream and the model are: saved with every checkpoint."""

    positions: Positions = field(default_factory=dict)
    records: int = 0
    samples: int = 0
    """Samples that the model has learned, ever."""
    updates: int = 0
    first_time_s: float = math.inf
    last_time_s: float = -math.inf
    exports_before: int = 0
    """The number of the newest export when this model began: exports up to it are another model's."""

    def begin(self, started: Positions) -> None:
        """Take over where reading *started*, for every partition that is not known yet.

        A position is state too: a partition that brings nothing before the first stop must not begin again elsewhere.
        """
        merged = dict(started)
        for partition, known in self.positions.items():
            topic_id = known.topic_id or started.get(partition, known).topic_id
            merged[partition] = known._replace(topic_id=topic_id)
        self.positions = merged

    def advance(self, batch: Batch, result: StepResult) -> None:
        """Take one learned batch into account."""
        self.positions = {**self.positions, **batch.positions}
        self.records += batch.record_count
        self.samples += int(result.learned.sum())
        self.updates += result.updates
        if len(result.samples):
            self.first_time_s = min(self.first_time_s, float(result.samples.times_s.min()))
            self.last_time_s = max(self.last_time_s, float(result.samples.times_s.max()))

    def state(self) -> State:
        state = {name: getattr(self, name) for name in _NUMBERS}
        return {"positions": positions_to_state(self.positions), **state}

    def restore(self, state: State) -> None:
        self.positions = positions_from_state(state["positions"])
        for name in _NUMBERS:
            setattr(self, name, state[name])


_NUMBERS = tuple(column.name for column in fields(Progress) if column.name != "positions")


def positions_to_state(positions: Positions) -> list[list[str | int | None]]:
    """Return positions as plain lists.

    >>> positions_from_state(positions_to_state({TopicPartition("t", 0): Position(7)}))
    {TopicPartition(topic='t', partition=0): Position(offset=7, history=-1, topic_id=None)}
    """
    return [[*partition, *position] for partition, position in sorted(positions.items(), key=lambda item: item[0])]


def positions_from_state(state: Sequence[Sequence[object]]) -> dict[TopicPartition, Position]:
    """Return the inverse of `positions_to_state`."""
    return {TopicPartition(*row[:2]): Position(*row[2:]) for row in state}  # type: ignore[arg-type]  # as written


class ProbeRows:
    """The newest inputs, to compare exports on; in the checkpoint, so that a restart can export at once."""

    def __init__(self) -> None:
        self.rows: list[Float32Array] = []

    def observe(self, result: StepResult) -> None:
        """Keep the last `PROBE_ROWS` rows, or as many as `PROBE_BYTES` hold; at least 32."""
        x = result.samples.x
        if not len(x):
            return
        count = min(PROBE_ROWS, max(32, PROBE_BYTES // x[0].nbytes))
        self.rows = [*self.rows, *x[-count:].copy()][-count:]

    def x(self) -> Float32Array:
        """Return all rows, shape (n, *row_shape)."""
        return np.stack(self.rows)

    def state(self) -> State:
        return {"rows": list(self.rows)}

    def restore(self, state: State) -> None:
        self.rows = list(state["rows"])


@dataclass(slots=True)
class RunStatus:
    """What this process has done so far; not part of the checkpoint."""

    began: Progress = field(default_factory=Progress)
    """Where the model was when this process opened it."""
    scores: PrequentialScores = field(default_factory=PrequentialScores)
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    ready: bool = False
    beat_s: float | None = None
    """When the main loop last completed a turn; None before it began: a start may have much to compile, or to skip."""

    def observe(self, batch: Batch, scores: PrequentialScores) -> None:
        """Count one batch."""
        self.scores = scores
        self.rejected.update(reject.reason for reject in batch.rejects)
        self.skipped.update(batch.skipped)


def readable(offsets: Offsets) -> dict[str, int]:
    """Return offsets as a log shows them.

    >>> readable({TopicPartition("t", 0): 7})
    {'t/0': 7}
    """
    return {f"{p.topic}/{p.partition}": offset for p, offset in offsets.items()}
