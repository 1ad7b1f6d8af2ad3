"""The values that flow between components, in flow order. All are frozen, and their arrays are never written to."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from learnd.core.alarms import Alarms
from learnd.core.reasons import RejectReason, SkipReason, TruthOutcome

Float32Array = npt.NDArray[np.float32]
Int32Array = npt.NDArray[np.int32]
Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Int64Array = npt.NDArray[np.int64]
KEY_SLOTS = 4096
"""Number of keys whose last values a learner keeps; see `Samples.slots`."""
NamedArrays = Mapping[str, Float32Array]
"""Arrays by the name of their input or output."""
ObjectArray = npt.NDArray[np.object_]
State = dict[str, Any]
"""The state of a component in a checkpoint: numbers, strings, bytes, arrays, and lists and dicts of them."""


class TopicPartition(NamedTuple):
    """One ordered sequence of records. A file is partition 0 of a topic with the file's name."""

    topic: str
    partition: int


class Position(NamedTuple):
    """The place in a partition from which reading continues.

    Attributes
    ----------
    offset : the *next* offset to read
    history : identifies the records before *offset*, to detect a log or file that was truncated or replaced: the epoch
        of the leader that wrote the newest record (KIP-320), or a checksum of a file's lines; -1: unknown
    topic_id : distinguishes the topic from another one of the same name; None: unknown
    """

    offset: int
    history: int = -1
    topic_id: str | None = None


Positions = Mapping[TopicPartition, Position]
"""The position at which reading continues, per partition."""
Offsets = Mapping[TopicPartition, int]
"""The *next* offset to read, per partition. For acknowledgements, ends and logs, which need nothing else."""


def offsets_of(positions: Positions) -> dict[TopicPartition, int]:
    """Return only the offsets of *positions*.

    >>> offsets_of({TopicPartition("t", 0): Position(7, history=3)})
    {TopicPartition(topic='t', partition=0): 7}
    """
    return {partition: position.offset for partition, position in positions.items()}


@dataclass(frozen=True, slots=True)
class Records:
    """A run of undecoded records of one partition, as columns of bytes."""

    origin: TopicPartition
    offsets: Sequence[int]
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    next: Position
    """The position after this run, at which reading continues. A run without records moves the position too."""
    rejects: "tuple[Reject, ...]" = ()
    """Offsets of this run that the source itself could not read."""
    unreadable: int = 0
    """The number of offsets that `rejects` cover."""
    lost: int = 0
    """The number of offsets before this run that were due and no longer exist."""

    def __len__(self) -> int:
        return len(self.offsets)

    def reject(self, i: int, reason: RejectReason, detail: str) -> "Reject":
        """Return the whole i-th record as a reject."""
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
"""Maximum length of a reject's detail, which may quote the record."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be learned from, with the reason. It goes to the dead letters as a whole."""

    origin: TopicPartition
    offset: int
    reason: RejectReason
    detail: str
    value: bytes | None
    key: bytes | None = None
    timestamp_ms: int = -1


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded and accepted records as columns of equal length *n*.

    Attributes
    ----------
    x : float64, shape (n, features), or (n, window, features) after `learnd.transforms.windows`
    y : float64, shape (n, targets); targets may be 0
    times_s : float64, shape (n,), seconds since 1970 UTC
    keys : object (str), shape (n,)
    origins : object (TopicPartition), shape (n,)
    offsets : int64, shape (n,)
    weights : float32, shape (n,), how much each sample counts; None: all count 1
    labels : object (str), shape (n,), the class of each sample until `y` holds its number; None: no classes
    has_target : bool, shape (n,); False: the target is unknown, so the sample is predicted and not learned, and its
        row of `y` has no meaning; None: all samples have a target
    slots : int32, shape (n,), the place of each sample's key among those whose last values a learner keeps; None: there
        is one key
    planned_stop : bool, shape (n,); True: the machine stands still as planned, so its readings are neither learned nor
        watched; None: no sample
    watched : float64, shape (n, 4, readings), what the alarms know of each sample before it is learned; None: nothing
    upstream : float64, shape (n, columns), forecasts of the target that were made upstream; nan: missing; None: none
    record_keys : object (bytes or None), shape (n,), the Kafka keys of the records; None: there are none
    ids : object (str), shape (n,), the identifiers by which truths find their records; None: truths do not come later
    answers : int64, shape (n,), the numbers of answers whose truth comes later. A sample without a target is the answer
        of that number; one with a target evaluates it. 0: neither; None: all are 0
    repeated : bool, shape (n,); True: another sample stands for the same readings, so alarms do not watch this one
    """

    x: Float64Array
    y: Float64Array
    times_s: Float64Array
    keys: ObjectArray
    origins: ObjectArray
    offsets: Int64Array
    weights: Float32Array | None = None
    labels: ObjectArray | None = None
    has_target: BoolArray | None = None
    slots: Int32Array | None = None
    planned_stop: BoolArray | None = None
    watched: Float64Array | None = None
    upstream: Float64Array | None = None
    record_keys: ObjectArray | None = None
    ids: ObjectArray | None = None
    answers: Int64Array | None = None
    repeated: BoolArray | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    def take(self, rows: slice | npt.NDArray[Any]) -> "Samples":
        """Return the samples of *rows*, in that order."""
        columns: dict[str, Any] = {name: getattr(self, name) for name in _COLUMNS}
        selected: dict[str, Any] = {name: None if column is None else column[rows] for name, column in columns.items()}
        return Samples(**selected)

    @staticmethod
    def concat(parts: "Sequence[Samples]") -> "Samples":
        """Return the rows of all *parts* (at least one), in order.

        If only some parts have weights, the rows of the other parts weigh 1. If only some parts have `has_target`, the
        rows of the other parts have a target; the same holds for `slots` and `watched`, which are then
        0, and for the other optional columns, which are then 0, False or None.
        """
        filled = [part for part in parts if len(part)] or parts[:1]
        if len(filled) == 1:
            return filled[0]
        for name, fill in _FILLS.items():
            if any(getattr(part, name) is not None for part in filled):
                filled = [
                    part if getattr(part, name) is not None else replace(part, **{name: fill(len(part))})
                    for part in filled
                ]
        watched = next((part.watched for part in filled if part.watched is not None), None)
        if watched is not None:  # by those parts that came after alarms were switched on
            filled = [
                part if part.watched is not None else replace(part, watched=np.zeros((len(part), *watched.shape[1:])))
                for part in filled
            ]
        columns = {name: [getattr(part, name) for part in filled] for name in _COLUMNS}
        joined: dict[str, Any] = {name: None if c[0] is None else np.concatenate(c) for name, c in columns.items()}
        return Samples(**joined)


def _ones(count: int) -> Float32Array:
    return np.ones(count, np.float32)


def _all_true(count: int) -> BoolArray:
    return np.ones(count, np.bool_)


def _zeros(count: int) -> Int32Array:
    return np.zeros(count, np.int32)


def _all_false(count: int) -> BoolArray:
    return np.zeros(count, np.bool_)


def _no_numbers(count: int) -> Int64Array:
    return np.zeros(count, np.int64)


def _all_none(count: int) -> ObjectArray:
    return np.full(count, None, object)


_FILLS: Mapping[str, Callable[[int], npt.NDArray[Any]]] = {
    "weights": _ones,
    "has_target": _all_true,
    "slots": _zeros,
    "planned_stop": _all_false,
    "record_keys": _all_none,
    "ids": _all_none,
    "answers": _no_numbers,
    "repeated": _all_false,
}
_COLUMNS = tuple(column.name for column in fields(Samples))


@dataclass(frozen=True, slots=True)
class Transformed:
    """The result of a transform for one batch."""

    samples: Samples
    rejects: "tuple[Reject, ...]" = ()
    skipped: Mapping[SkipReason, int] = field(default_factory=dict)
    """Number of good records that make no sample, by reason."""
    replaced: Mapping[RejectReason, int] = field(default_factory=dict)
    """Number of faulty readings that another value replaces, by fault."""
    truths: Mapping[TruthOutcome, int] = field(default_factory=dict)
    """Number of truths that came later than their records, by what became of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The result of one poll: samples, rejects, and the position after it in each partition."""

    samples: Samples
    rejects: tuple[Reject, ...]
    positions: Positions
    record_count: int
    byte_count: int
    records: Sequence[Records] = ()
    """The undecoded records, if a transform may reject one; otherwise empty, to free their memory."""
    skipped: Mapping[SkipReason, int] = field(default_factory=dict)
    """Number of good records that make no sample, by reason (the first readings of a window, a repeated time)."""
    replaced: Mapping[RejectReason, int] = field(default_factory=dict)
    """Number of faulty readings that another value replaces, by fault."""
    truths: Mapping[TruthOutcome, int] = field(default_factory=dict)
    """Number of truths that came later than their records, by what became of them."""
    unreadable: int = 0
    """Number of offsets that the source could not read."""
    lost: int = 0
    """Number of offsets that were due and no longer exist."""

    def with_(self, result: Transformed) -> "Batch":
        """Return this batch with the samples of *result*, its rejects and its counts added to those so far.

        Rejects are sorted by partition and offset: a file of them must not depend on how batches were cut.
        """
        rejects = self.rejects
        if result.rejects:
            order = {origin: i for i, origin in enumerate(self.positions)}
            combined = [*self.rejects, *result.rejects]
            rejects = tuple(sorted(combined, key=lambda reject: (order.get(reject.origin, 0), reject.offset)))
        return replace(
            self,
            samples=result.samples,
            rejects=rejects,
            skipped=_sum(self.skipped, result.skipped),
            replaced=_sum(self.replaced, result.replaced),
            truths=_sum(self.truths, result.truths) if result.truths else self.truths,
        )


_Reason = TypeVar("_Reason", bound=StrEnum)


def _sum(left: Mapping[_Reason, int], right: Mapping[_Reason, int]) -> dict[_Reason, int]:
    """Return the sums of the counts, without zeros."""
    return dict(+(Counter(left) + Counter(right)))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Prediction intervals, one per prediction: float64 arrays of shape (n, outputs), in raw units; nan: unknown yet.

    Attributes
    ----------
    lower, upper : around the predictions
    averaged_lower, averaged_upper : around the predictions of the averaged weights
    """

    lower: Float64Array
    upper: Float64Array
    averaged_lower: Float64Array
    averaged_upper: Float64Array

    def take(self, rows: slice | BoolArray) -> "Bounds":
        """Return the intervals of *rows*."""
        return Bounds(self.lower[rows], self.upper[rows], self.averaged_lower[rows], self.averaged_upper[rows])


@dataclass(frozen=True, slots=True)
class IntervalOffsets:
    """The distances of a prediction interval from the prediction, in raw units, as of one moment.

    Attributes
    ----------
    coverage : share of truths that shall lie within the interval
    lower, upper : shape (outputs,), to add to a prediction of the averaged weights
    samples : number of truths that they come from
    """

    coverage: float
    lower: Float64Array
    upper: Float64Array
    samples: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """The result of learning one batch. Row i of every array belongs to row i of ``samples``.

    Attributes
    ----------
    samples : the samples that were predicted now (in micro-batches these can lag behind the batch)
    predictions : float64, shape (n, outputs), in the target's own units, made before the sample was learned
    losses : float32, shape (n,), of the live weights (unless configured: squared error in standard deviations, or
        cross-entropy in nats); nan without a target
    averaged_losses : float32, shape (n,), the same of the averaged weights
    residuals : float32, shape (n, outputs), target minus prediction on the scale of the loss: standard deviations, or
        probabilities; nan without a target
    learned : bool, shape (n,); False: the sample was predicted only, because it was held or has no target
    updates : updates taken
    duration_s : seconds spent in the compiled calls
    averaged_predictions : as `predictions`, of the averaged weights
    bounds : the intervals of the predictions; None: there are none
    alarms : the alarms of the samples; None: there are none yet, or they are switched off
    versions : int64, shape (n,), the number of samples that the weights behind each prediction had learned; None: not
        counted yet
    answered : object (str), shape (n,), the position of the record whose answer a row evaluates, None for other rows;
        None: all truths come with their records
    """

    samples: Samples
    predictions: Float64Array
    losses: Float32Array
    averaged_losses: Float32Array
    residuals: Float32Array
    learned: BoolArray
    updates: int
    duration_s: float
    averaged_predictions: Float64Array
    bounds: Bounds | None = None
    alarms: Alarms | None = None
    versions: Int64Array | None = None
    answered: ObjectArray | None = None

    def with_target(self) -> BoolArray:
        """Return a mask of the rows whose losses can be computed, shape (n,)."""
        known = self.samples.has_target
        return np.ones(len(self.samples), np.bool_) if known is None else known


@dataclass(frozen=True, slots=True)
class PrequentialScores:
    """Prequential evaluation: means over the most recent samples (nan before the first).

    Attributes
    ----------
    samples : samples that were evaluated: predicted before they were learned, with a known target
    loss, averaged_loss : of the live and of the averaged weights
    absolute_error : in the target's units; the share of wrong answers for classes
    mean_loss : the mean over all samples since the model began
    """

    samples: int = 0
    loss: float = math.nan
    averaged_loss: float = math.nan
    absolute_error: float = math.nan
    mean_loss: float = math.nan
