"""The values that flow, in the order in which they flow. All are frozen; arrays in them are not written to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
ObjectArray = npt.NDArray[np.object_]
State = dict[str, Any]
"""What a component needs to go on: numbers, strings, bytes, arrays, and lists and dicts of them."""


class TopicPartition(NamedTuple):
    """One ordered sequence of records. A file is partition 0 of a topic that bears its name."""

    topic: str
    partition: int


Offsets = Mapping[TopicPartition, int]
"""The *next* offset to read, per partition."""
Histories = Mapping[TopicPartition, int]
"""Tells what stood before that offset from whatever may have taken its place: the epoch of the leader that wrote the
newest record (KIP-320), or a checksum of a file's lines; -1: not known."""


@dataclass(frozen=True, slots=True)
class Records:
    """A run of records of one partition, as columns: bytes as the source gave them, undecoded."""

    origin: TopicPartition
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    next_offset: int
    rejects: "tuple[Reject, ...]" = ()
    """What the source itself could not read, in this run."""
    unreadable: int = 0
    """Offsets that those rejects stand for."""
    lost: int = 0
    """Offsets before this run that were wanted and are no longer there."""
    topic_id: str | None = None
    """Set where from here on the topic is another one of the same name."""
    history: int = -1
    """See `Histories`, for ``next_offset``."""

    def __len__(self) -> int:
        return len(self.offsets)

    def reject(self, i: int, reason: str, detail: str) -> "Reject":
        """The i-th record as a reject, whole."""
        return Reject(
            self.origin,
            self.offsets[i],
            reason,
            detail[:DETAIL_CHARACTERS],
            self.values[i],
            self.keys[i],
            self.timestamps_ms[i],
        )


DETAIL_CHARACTERS = 500
"""Of a reject's detail; it may quote what a record says of itself."""


UNREADABLE = "unreadable"
"""The reason of a reject that stands for a whole batch, which the source could not read."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be learned from, with the reason; it goes to the dead letters, whole."""

    origin: TopicPartition
    offset: int
    reason: str
    detail: str
    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = -1


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded and accepted records as columns of equal length *n*.

    Attributes
    ----------
    x : float32, shape (n, features), or (n, window, features) once windows were cut
    y : float32, shape (n, targets); targets may be 0
    times_s : float64, shape (n,), seconds since 1970 UTC
    keys : object (str), shape (n,)
    origins : object (TopicPartition), shape (n,)
    offsets : int64, shape (n,)
    weights : float32, shape (n,), how much each sample counts; None: all count 1
    labels : object (str), shape (n,), the class of each sample until `y` holds its number; None: no classes
    blocks : object (Records), shape (n,), where each sample's own record is, until the rules of the features have
        judged it; None: nothing after the decoder rejects anything
    """

    x: Float32Array
    y: Float32Array
    times_s: Float64Array
    keys: ObjectArray
    origins: ObjectArray
    offsets: Int64Array
    weights: Float32Array | None = None
    labels: ObjectArray | None = None
    blocks: ObjectArray | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, rows: slice | npt.NDArray[Any]) -> "Samples":
        """The chosen rows, in the given order."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        taken: Any = {name: None if column is None else column[rows] for name, column in columns.items()}
        return Samples(**taken)

    @staticmethod
    def concat(parts: "Sequence[Samples]") -> "Samples":
        """The rows of all *parts* (at least one), in order; where only some have weights, those of the others are 1."""
        filled = [part for part in parts if len(part)] or parts[:1]
        if len(filled) == 1:
            return filled[0]
        if any(part.weights is not None for part in filled):
            filled = [part if part.weights is not None else replace(part, weights=_ones(part)) for part in filled]
        columns = {name: [getattr(part, name) for part in filled] for name in _COLUMNS}
        joined: Any = {name: None if c[0] is None else np.concatenate(c) for name, c in columns.items()}
        return Samples(**joined)


_COLUMNS = tuple(column.name for column in fields(Samples))


def _ones(samples: Samples) -> Float32Array:
    return np.ones(len(samples), np.float32)


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that one poll brought: samples, rejects, and where each partition goes on afterwards."""

    samples: Samples
    rejects: tuple[Reject, ...]
    next_offsets: Offsets
    record_count: int
    byte_count: int
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Good records that make no sample, by reason (the first readings of a window, a repeated time)."""
    replaced: Mapping[str, int] = field(default_factory=dict)
    """Readings of faulty sensors for which another value stands in, by reason."""
    unreadable: int = 0
    """Offsets that the source could not read."""
    lost: int = 0
    """Offsets that were wanted and are no longer there."""
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """Topics that are new ones of the same name from here on."""
    histories: Histories = field(default_factory=dict)
    """Of each of ``next_offsets``."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What learning one batch gave. Row i of every array belongs to row i of ``samples``.

    Attributes
    ----------
    samples : the samples that were learned now (in micro-batches these can lag behind the batch)
    predictions : float32, shape (n, outputs), in the target's own units, made before the sample was learned
    losses : float32, shape (n,), of the live weights (unless configured: squared error in standard deviations, or
        cross-entropy in nats)
    averaged_losses : float32, shape (n,), the same of the averaged weights
    updates : optimizer steps taken
    duration_s : seconds spent in the compiled calls
    """

    samples: Samples
    predictions: Float32Array
    losses: Float32Array
    averaged_losses: Float32Array
    updates: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class PrequentialScores:
    """How well the model does: means over the most recent samples (``nan`` before the first).

    The absolute error is in the target's units; for classes it is the share of wrong ones.
    """

    samples: int
    loss: float
    averaged_loss: float
    absolute_error: float
    mean_loss: float
    """Mean over every sample since the very first."""


FrozenLosses = Callable[[Float32Array, Float32Array], Float32Array]
"""From raw rows and their targets to the losses, (n,), of weights that never change."""


@dataclass(frozen=True, slots=True)
class Published:
    """How the weights of an export did on samples that came after it: their mean loss over so many of them."""

    number: int
    loss: float
    samples: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable copy of the served state, with what it was learned from."""

    weights: tuple[npt.NDArray[Any], ...]
    """The averaged weights, then whatever else the served model needs (`Network.served_state`)."""
    probe_inputs: Float32Array
    """Recent real inputs, shape (m, *row_shape): an export must answer to them as the live model does."""
    samples: int
    updates: int
    offsets: Offsets
    first_time_s: float
    last_time_s: float
    signal: PrequentialScores
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the model's outputs."""
    learning: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """What else an update reads and writes, by the names that a checkpoint gives it: slots, moments, counts."""
    published: Published | None = None
    """How the export before it does, where that is known."""
