"""The progress of learning, and the newest inputs: the loop's own part of the checkpoint."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from learnd.core.reasons import RejectReason, SkipReason, TruthOutcome
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
"""Maximum number, and maximum bytes, of recent inputs in a snapshot. Exports are checked on the newest of them;
quantised ones are calibrated on the others."""


@dataclass(slots=True)
class Progress:
    """Positions in the stream, and counts of what was learned. Part of every checkpoint."""

    positions: Positions = field(default_factory=dict)
    records: int = 0
    samples: int = 0
    """Samples learned since the model began."""
    updates: int = 0
    first_time_s: float = math.inf
    last_time_s: float = -math.inf
    exports_before: int = 0
    """The number of the newest export when this model began. Exports up to it belong to another model."""

    @property
    def usable(self) -> bool:
        """True if a sample was learned or answered since the model began; otherwise there is nothing to lose."""
        return self.samples > 0 or self.last_time_s > -math.inf

    def begin(self, started: Positions) -> None:
        """Add the positions at which reading *started*, for partitions that have none yet.

        A start position must be saved even if no record arrives before the first stop: after a restart the partition
        must begin at the same position.
        """
        merged = dict(started)
        for partition, known in self.positions.items():
            topic_id = known.topic_id or started.get(partition, known).topic_id
            merged[partition] = known._replace(topic_id=topic_id)
        self.positions = merged

    def advance(self, batch: Batch, result: StepResult) -> None:
        """Add one learned batch."""
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
    """The newest inputs, on which exports are checked. Part of the checkpoint, so that a restart can export at once."""

    def __init__(self) -> None:
        self.rows: list[Float32Array] = []

    def observe(self, result: StepResult) -> None:
        """Keep the last `PROBE_ROWS` rows, or as many as fit into `PROBE_BYTES`, but at least 32."""
        x = result.samples.x
        x = x[~np.isnan(x).reshape(len(x), -1).any(axis=1)] if np.isnan(x).any() else x
        if not len(x):
            return
        count = min(PROBE_ROWS, max(32, PROBE_BYTES // x[0].nbytes))
        self.rows = [*self.rows, *x[-count:].astype(np.float32)][-count:]

    def x(self) -> Float32Array:
        """Return all rows, shape (n, *row_shape)."""
        return np.stack(self.rows).astype(np.float32)

    def state(self) -> State:
        return {"rows": list(self.rows)}

    def restore(self, state: State) -> None:
        self.rows = list(state["rows"])


@dataclass(slots=True)
class RunStatus:
    """The counts and the state of this process. Not part of the checkpoint."""

    began: Progress = field(default_factory=Progress)
    """The progress of the model when this process opened it."""
    scores: PrequentialScores = field(default_factory=PrequentialScores)
    rejected: Counter[RejectReason] = field(default_factory=Counter)
    skipped: Counter[SkipReason] = field(default_factory=Counter)
    truths: Counter[TruthOutcome] = field(default_factory=Counter)
    first_rejects: dict[RejectReason, str] = field(default_factory=dict)
    """The detail of the first reject of each reason."""
    ready: bool = False
    beat_s: float | None = None
    """Time of the main loop's last completed iteration, by `time.monotonic`; None before the first. Until then a health
    check must wait: compiling, and skipping a file's lines, take time."""

    def observe(self, batch: Batch, scores: PrequentialScores) -> None:
        """Count one batch."""
        self.scores = scores
        self.rejected.update(reject.reason for reject in batch.rejects)
        for reject in batch.rejects:
            self.first_rejects.setdefault(reject.reason, reject.detail)
        self.skipped.update(batch.skipped)
        self.truths.update(batch.truths)


def readable(offsets: Offsets) -> dict[str, int]:
    """Return offsets in the form for logs.

    >>> readable({TopicPartition("t", 0): 7})
    {'t/0': 7}
    """
    return {f"{p.topic}/{p.partition}": offset for p, offset in offsets.items()}
