"""What every decoder shares: the fields that are wanted, and the checks that turn rows into samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from learnd.core.types import Float64Array, Records, Reject, Samples
from learnd.decoders.settings import RECORD_KEY

TOMBSTONE, OVERSIZED, BAD_UTF8, UNPARSABLE = "tombstone", "oversized", "bad_utf8", "unparsable"
MISSING_FIELD, WRONG_TYPE, NOT_FINITE, OUT_OF_RANGE = (
    "missing_field",
    "wrong_type",
    "not_finite",
    "out_of_range",
)
BAD_TIME, AHEAD_OF_TIME, UNKNOWN_LABEL = "bad_time", "ahead_of_time", "unknown_label"
REASONS = (
    TOMBSTONE,
    OVERSIZED,
    BAD_UTF8,
    UNPARSABLE,
    MISSING_FIELD,
    WRONG_TYPE,
    NOT_FINITE,
    OUT_OF_RANGE,
    BAD_TIME,
    AHEAD_OF_TIME,
    UNKNOWN_LABEL,
)
"""Every reason for which a record is rejected: the values of the metric's label."""

_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
# The years 1 to 9999; beyond them lies a number of another unit than the configured one.
_FIRST_S, _LAST_S = -62_135_596_800.0, 253_402_300_799.0
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LABEL_CHARACTERS = 256
_KEY_CHARACTERS = 1024
"""A key stays in memory and in every checkpoint: at a megabyte each, `max_keys` of them would be 100 GB."""
_MAX_WEIGHT = 1e6
"""A finite 3e38, times a gradient, is infinite, and one such sample would turn every weight of the model into nan."""


class BadRecord(Exception):  # noqa: N818 - a verdict on one record that travels a few lines, not an error
    """Raised inside a decoder for one record, with a reason from `REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Field:
    """One number to take from a record."""

    name: str
    min: float | None = None
    max: float | None = None
    missing: float | None = None


@dataclass(frozen=True, slots=True)
class Fields:
    """Everything to take from a record: features, targets and weight, and where its time, key and label stand."""

    features: tuple[Field, ...]
    targets: tuple[Field, ...]
    time: str | None
    time_unit: str
    key: str | None
    max_bytes: int
    weight: Field | None = None
    """How much the sample counts."""
    label: str | None = None
    """The field with the class."""
    labels: frozenset[str] | None = None
    """The classes that there are; None: any text may be one."""
    max_ahead_s: float | None = None
    """How far an event time may be ahead of the record's own; None: any."""
    keep_blocks: bool = False
    """Whether samples tell where their records are: something after the decoder may reject them."""

    @property
    def numbers(self) -> tuple[Field, ...]:
        """The numbers of a record, in the order in which decoders give them."""
        return self.features + self.targets + ((self.weight,) if self.weight is not None else ())


def time_s(value: Any, unit: str) -> float:
    """Seconds since 1970 of an ISO 8601 string (UTC where it names no zone) or of a number of *unit*.

    >>> time_s("2013-12-02 21:15:00", "s"), time_s(1386018900000, "ms")
    (1386018900.0, 1386018900.0)
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        else:
            seconds = float(value) * _UNITS_S[unit]
        if _FIRST_S <= seconds <= _LAST_S:
            return seconds
    except (ValueError, OverflowError, TypeError):
        pass
    raise BadRecord(
        BAD_TIME, f"{str(value)[:64]!r} is neither ISO 8601 nor a number within the years 1 to 9999"
    ) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded rows that are not checked yet, each with the index of its record."""

    numbers: Float64Array
    times: Sequence[Any] | None
    keys: Sequence[str] | None
    index: Sequence[int]
    labels: Sequence[str] | None = None


def decode_records(
    records: Records,
    fields: Fields,
    fast: Callable[[Sequence[bytes]], Rows],
    slow: Callable[[bytes], Rows],
) -> tuple[Samples, list[Reject]]:
    """Samples and rejects of a run of records: all at once where every record is good, else one by one.

    *fast* takes every value and may raise anything at all; *slow* takes one and raises `BadRecord`.
    """
    rejects: list[Reject] = []
    rows = _all_at_once(records, fields, fast)
    if rows is None:
        rows = _one_by_one(records, fields, slow, rejects)
    return _accept(records, rows, fields, rejects), rejects


def _all_at_once(records: Records, fields: Fields, fast: Callable[[Sequence[bytes]], Rows]) -> Rows | None:
    values = records.values
    try:
        sizes = list(map(len, values))  # type: ignore[arg-type]  # a tombstone's TypeError leads to the slow path
        if sizes and max(sizes) > fields.max_bytes:
            return None
        return fast(values)  # type: ignore[arg-type]
    except Exception:
        return None


def _one_by_one(records: Records, fields: Fields, slow: Callable[[bytes], Rows], rejects: list[Reject]) -> Rows:
    numbers: list[Float64Array] = []
    times: list[Any] = []
    keys: list[str] = []
    labels: list[str] = []
    index: list[int] = []
    for i, value in enumerate(records.values):
        try:
            if value is None:
                raise BadRecord(TOMBSTONE, "the record has no value")
            if len(value) > fields.max_bytes:
                detail = f"{len(value)} bytes, decode.max_bytes is {fields.max_bytes}"
                raise BadRecord(OVERSIZED, detail)
            row = slow(value)
        except BadRecord as bad:
            rejects.append(records.reject(i, bad.reason, bad.detail))
            continue
        numbers.append(row.numbers)
        times.extend(row.times or ())
        keys.extend(row.keys or ())
        labels.extend(row.labels or ())
        index.extend([i] * len(row.numbers))
    stacked = np.concatenate(numbers) if numbers else np.empty((0, len(fields.numbers)))
    return Rows(
        stacked, times if fields.time else None, keys if keys else None, index, labels if fields.label else None
    )


def _accept(records: Records, rows: Rows, fields: Fields, rejects: list[Reject]) -> Samples:
    index = np.asarray(rows.index, dtype=np.int64)
    numbers = rows.numbers
    bad: dict[int, tuple[str, str]] = {}
    _check_finite(numbers, index, fields, bad)
    _check_ranges(numbers, index, fields, bad)
    times = _times(records, rows, index, fields, bad)
    _check_ahead(records, times, index, fields, bad)
    keys = _keys(records, rows, index, fields, bad)
    labels = _labels(rows, index, fields, bad)
    if bad:
        rejects.extend(records.reject(i, *bad[i]) for i in sorted(bad))
        rejects.sort(key=lambda r: r.offset)
        kept = ~np.isin(index, list(bad))
        numbers, times, keys, index = numbers[kept], times[kept], keys[kept], index[kept]
        labels = None if labels is None else labels[kept]
    single = numbers.astype(np.float32)
    origins = np.empty(len(index), dtype=object)
    origins.fill(records.origin)
    first, last = len(fields.features), len(fields.features) + len(fields.targets)
    offsets = np.asarray(records.offsets, dtype=np.int64)[index]
    weights = single[:, last] if fields.weight is not None else None
    blocks = None
    if fields.keep_blocks:
        blocks = np.empty(len(index), dtype=object)
        blocks.fill(records)
    return Samples(single[:, :first], single[:, first:last], times, keys, origins, offsets, weights, labels, blocks)


def _check_finite(
    numbers: Float64Array, index: np.ndarray[Any, Any], fields: Fields, bad: dict[int, tuple[str, str]]
) -> None:
    # Written so that nan fails it; beyond float32 a number would become infinity on its way to the model.
    fits = np.abs(numbers) <= _FLOAT32_MAX
    if fits.all():
        return
    for row, column in zip(*np.nonzero(~fits), strict=True):
        detail = f"{fields.numbers[column].name} is {numbers[row, column]}"
        bad.setdefault(int(index[row]), (NOT_FINITE, detail))


def _check_ranges(
    numbers: Float64Array, index: np.ndarray[Any, Any], fields: Fields, bad: dict[int, tuple[str, str]]
) -> None:
    for column, field in enumerate(fields.numbers):
        for bound, outside, word in (
            (field.min, np.less, "below min"),
            (field.max, np.greater, "above max"),
        ):
            if bound is None:
                continue
            for row in np.nonzero(outside(numbers[:, column], bound))[0]:
                detail = f"{field.name} is {numbers[row, column]:g}, {word} {bound:g}"
                bad.setdefault(int(index[row]), (OUT_OF_RANGE, detail))


def _times(
    records: Records,
    rows: Rows,
    index: np.ndarray[Any, Any],
    fields: Fields,
    bad: dict[int, tuple[str, str]],
) -> Float64Array:
    if rows.times is None:
        return _own_times(records, index, bad)
    unit = _UNITS_S[fields.time_unit]
    if all(type(value) is float or type(value) is int for value in rows.times):
        try:
            times = np.asarray(rows.times, dtype=np.float64) * unit
            if ((times >= _FIRST_S) & (times <= _LAST_S)).all():
                return times
        except OverflowError:
            pass
    result = np.zeros(len(index))
    for row, value in enumerate(rows.times):
        try:
            result[row] = time_s(value, fields.time_unit)
        except BadRecord as error:
            bad.setdefault(int(index[row]), (error.reason, f"{fields.time}: {error.detail}"))
    return result


def _own_times(records: Records, index: np.ndarray[Any, Any], bad: dict[int, tuple[str, str]]) -> Float64Array:
    """The records' own times, which any producer can set to anything."""
    times: Float64Array = np.asarray(records.timestamps_ms, dtype=np.float64)[index] * 1e-3
    # Written so that nan, which a record without a time gives, fails it.
    for row in np.nonzero(~((times >= _FIRST_S) & (times <= _LAST_S)))[0]:
        i = int(index[row])
        bad.setdefault(i, (BAD_TIME, f"the record's own time, {records.timestamps_ms[i]} ms, is beyond 1 to 9999"))
    return times


def _check_ahead(
    records: Records, times: Float64Array, index: np.ndarray[Any, Any], fields: Fields, bad: dict[int, tuple[str, str]]
) -> None:
    """Event times are compared with the records' own (where they have one), never with a clock: a replay must agree."""
    if fields.max_ahead_s is None or fields.time is None:
        return
    own_s = np.asarray(records.timestamps_ms, dtype=np.float64)[index] * 1e-3
    for row in np.nonzero((own_s > 0) & (times > own_s + fields.max_ahead_s))[0]:
        detail = (
            f"{fields.time} is {times[row] - own_s[row]:.0f} s ahead of the record's own time, "
            f"decode.max_ahead_s is {fields.max_ahead_s:g}"
        )
        bad.setdefault(int(index[row]), (AHEAD_OF_TIME, detail))


def _keys(
    records: Records, rows: Rows, index: np.ndarray[Any, Any], fields: Fields, bad: dict[int, tuple[str, str]]
) -> np.ndarray[Any, np.dtype[np.object_]]:
    keys = np.empty(len(index), dtype=object)
    if rows.keys is not None:
        keys[:] = rows.keys
    elif fields.key == RECORD_KEY:
        texts = [(key or b"").decode("utf-8", "replace") for key in records.keys]
        keys[:] = [texts[i] for i in index]
    else:
        keys.fill(f"{records.origin.topic}/{records.origin.partition}")
        return keys
    if len(keys) and max(map(len, keys)) > _KEY_CHARACTERS:
        for row, key in enumerate(keys):
            if len(key) > _KEY_CHARACTERS:
                detail = f"{fields.key} has {len(key)} characters; a key has at most {_KEY_CHARACTERS}"
                bad.setdefault(int(index[row]), (OVERSIZED, detail))
    return keys


def _labels(
    rows: Rows, index: np.ndarray[Any, Any], fields: Fields, bad: dict[int, tuple[str, str]]
) -> np.ndarray[Any, np.dtype[np.object_]] | None:
    if rows.labels is None:
        return None
    for row, label in enumerate(rows.labels):
        if len(label) > _LABEL_CHARACTERS:
            detail = f"{fields.label} has {len(label)} characters; a class has at most {_LABEL_CHARACTERS}"
            bad.setdefault(int(index[row]), (WRONG_TYPE, detail))
        elif fields.labels is not None and label not in fields.labels:
            bad.setdefault(int(index[row]), (UNKNOWN_LABEL, f"{fields.label} is {label[:64]!r}, not in task.classes"))
    labels = np.empty(len(rows.labels), dtype=object)
    labels[:] = rows.labels
    return labels


def label_text(value: str | bool | float) -> str:
    """A class as text: ``3``, ``3.0`` and ``"3"`` are the same class.

    >>> label_text("ok"), label_text(True), label_text(3.0)
    ('ok', 'true', '3')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _feature(name: str, options: Any) -> Field:
    """A range is checked here, unless another value shall stand in for what is outside (`learnd.transforms.rules`)."""
    if options.on_fault == "reject":
        return Field(name, options.min, options.max, options.missing)
    return Field(name, missing=options.missing)


def fields_from(
    features: Mapping[str, Any],
    targets: Sequence[str],
    settings: Any,
    *,
    weight: str | None = None,
    classes: Sequence[str] | None = None,
    classify: bool = False,
    keep_blocks: bool = False,
) -> Fields:
    """The fields that the configuration asks for; with *classify* the only target is a class (one of *classes*)."""
    return Fields(
        tuple(_feature(name, options) for name, options in features.items()),
        () if classify else tuple(Field(name) for name in targets),
        settings.time,
        settings.time_unit,
        settings.key,
        settings.max_bytes,
        Field(weight, min=0.0, max=_MAX_WEIGHT) if weight is not None else None,
        targets[0] if classify else None,
        frozenset(classes) if classify and classes is not None else None,
        settings.max_ahead_s,
        keep_blocks,
    )
