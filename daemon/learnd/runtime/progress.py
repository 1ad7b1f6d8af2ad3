"""How far the stream was learned, and the newest inputs: the loop's own part of the checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from learnd.checkpoint.checkpointer import offsets_from_state, offsets_to_state
from learnd.core.types import Batch, Float32Array, Histories, Offsets, State, StepResult

PROBE_ROWS, PROBE_BYTES = 512, 1 << 20
"""Recent inputs that come with a snapshot, fewer where they are large: exports are judged on the newest of them, and
quantised ones fitted to the others."""


_BY_PARTITION = ("offsets", "histories")


@dataclass(slots=True)
class Progress:
    """Where the stream and the model stand: saved with every checkpoint."""

    offsets: Offsets = field(default_factory=dict)
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """Which topics the offsets belong to: another one of the same name has other records."""
    histories: Histories = field(default_factory=dict)
    """What the offsets are the end of: a log that was cut back and grew again has other records before them."""
    records: int = 0
    samples: int = 0
    updates: int = 0
    first_time_s: float = math.inf
    last_time_s: float = -math.inf
    exports_before: int = 0
    """The newest export when this model began: those up to it are another one's."""

    def advance(self, batch: Batch, result: StepResult) -> None:
        """Take one learned batch into account."""
        self.offsets = {**self.offsets, **batch.next_offsets}
        self.topic_ids = {**self.topic_ids, **batch.topic_ids}
        self.histories = {**self.histories, **batch.histories}
        self.records += batch.record_count
        self.samples += len(result.samples)
        self.updates += result.updates
        if len(result.samples):
            self.first_time_s = min(self.first_time_s, float(result.samples.times_s.min()))
            self.last_time_s = max(self.last_time_s, float(result.samples.times_s.max()))

    def state(self) -> State:
        names = ("topic_ids", "records", "samples", "updates", "first_time_s", "last_time_s", "exports_before")
        by_partition = {name: offsets_to_state(getattr(self, name)) for name in _BY_PARTITION}
        return {**by_partition, **{name: getattr(self, name) for name in names}}

    def restore(self, state: State) -> None:
        for name, value in state.items():
            setattr(self, name, offsets_from_state(value) if name in _BY_PARTITION else value)


class Recent:
    """The newest inputs, to compare exports on; in the checkpoint, so that a restart alone can export."""

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
        """All of them, shape (n, *row_shape)."""
        return np.stack(self.rows)

    def state(self) -> State:
        return {"rows": list(self.rows)}

    def restore(self, state: State) -> None:
        self.rows = list(state["rows"])


def readable(offsets: Offsets) -> dict[str, int]:
    """Offsets as a log shows them."""
    return {f"{p.topic}/{p.partition}": offset for p, offset in offsets.items()}
