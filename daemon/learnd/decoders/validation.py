"""The common part of all decoders: the configured fields, and the checks that turn rows into samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from learnd.core.reasons import RejectReason
from learnd.core.times import FIRST_S, LAST_S, UNITS_S, TimeReader
from learnd.core.types import BoolArray, Float64Array, Int64Array, ObjectArray, Records, Reject, Samples
from learnd.decoders.fields import Field, Fields
from learnd.decoders.settings import RECORD_KEY

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LABEL_CHARACTERS = 256
_KEY_CHARACTERS = 1024
"""Maximum length of a key. Keys stay in memory and in checkpoints: `max_keys` keys of a megabyte would take 100 GB."""


Bad = dict[int, tuple[RejectReason, str]]
"""Bad records by their index in the run, each with its first reason and the detail."""


class BadRecord(Exception):  # noqa: N818 - control flow inside a decoder, not an error
    """The reason to reject one record. Raised and caught inside a decoder."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def time_s(value: float | str, unit: str) -> float:
    """Return seconds since 1970 from an ISO 8601 text (UTC unless it names a zone), or from a number in *unit*.

    >>> time_s("2013-12-02 21:15:00", "s"), time_s(1386018900000, "ms")
    (1386018900.0, 1386018900.0)
    """
    return _time_s(value, TimeReader(unit))


def _time_s(value: float | str, reader: TimeReader) -> float:
    try:
        return reader.seconds(value)
    except ValueError as error:
        raise BadRecord(RejectReason.BAD_TIME, str(error)) from None


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded, unchecked rows. Each has the index of its record in the run."""

    numbers: Float64Array
    times: Sequence[float | str] | None
    keys: Sequence[str] | None
    index: Sequence[int]
    clocks: Sequence[Sequence[float | str]] = ()
    """For each of `Fields.clocks`, the times of all rows."""
    labels: Sequence[str | None] | None = None
    """Class labels. None stands for a missing label, if `Fields.targets_optional` allows it."""


def decode_records(
    records: Records,
    fields: Fields,
    fast: Callable[[Sequence[bytes]], Rows],
    slow: Callable[[bytes], Rows],
) -> tuple[Samples, list[Reject]]:
    """Return the samples and the rejects of a run of records.

    All records are decoded together by *fast*, which may raise any exception. If it does, they are decoded one by one
    by *slow*, which raises `BadRecord`.
    """
    rejects: list[Reject] = []
    rows = _decode_together(records, fields, fast)
    if rows is None:
        rows = _decode_one_by_one(records, fields, slow, rejects)
    return _accept(records, rows, fields, rejects), rejects


def _decode_together(records: Records, fields: Fields, fast: Callable[[Sequence[bytes]], Rows]) -> Rows | None:
    values = records.values
    try:
        sizes = list(map(len, values))  # type: ignore[arg-type]  # a tombstone raises TypeError: slow path
        if sizes and max(sizes) > fields.max_bytes:
            return None
        return fast(values)  # type: ignore[arg-type]
    except Exception:
        return None


def _decode_one_by_one(records: Records, fields: Fields, slow: Callable[[bytes], Rows], rejects: list[Reject]) -> Rows:
    numbers: list[Float64Array] = []
    times: list[float | str] = []
    keys: list[str] = []
    labels: list[str | None] = []
    clocks: list[list[float | str]] = [[] for _ in fields.clocks]
    index: list[int] = []
    for i, value in enumerate(records.values):
        try:
            if value is None:
                raise BadRecord(RejectReason.TOMBSTONE, "the record has no value")
            if len(value) > fields.max_bytes:
                detail = f"{len(value)} bytes, decode.max_bytes is {fields.max_bytes}"
                raise BadRecord(RejectReason.OVERSIZED, detail)
            row = slow(value)
        except BadRecord as error:
            rejects.append(records.reject(i, error.reason, error.detail))
            continue
        numbers.append(row.numbers)
        times.extend(row.times or ())
        keys.extend(row.keys or ())
        labels.extend(row.labels or ())
        for column, values in zip(clocks, row.clocks, strict=True):
            column.extend(values)
        index.extend([i] * len(row.numbers))
    stacked = np.concatenate(numbers) if numbers else np.empty((0, len(fields.numbers)))
    return Rows(
        stacked, times if fields.time else None, keys if keys else None, index, clocks, labels if fields.label else None
    )


def _accept(records: Records, rows: Rows, fields: Fields, rejects: list[Reject]) -> Samples:
    index = np.asarray(rows.index, dtype=np.int64)
    numbers = rows.numbers
    bad: Bad = {}
    numbers = _fill_missing(numbers, index, fields, bad)
    _check_finite(numbers, index, fields, bad)
    _check_ranges(numbers, index, fields, bad)
    has_target = _has_target(numbers, rows, fields)
    times = _times(records, rows, index, fields, bad)
    _check_ahead(records, times, index, fields, bad)
    keys = _keys(records, rows, index, fields, bad)
    labels = _labels(rows, index, fields, bad)
    elapsed = _elapsed(rows, times, index, fields, bad)
    if bad:
        rejects.extend(records.reject(i, *bad[i]) for i in sorted(bad))
        rejects.sort(key=lambda r: r.offset)
        good = ~np.isin(index, list(bad))
        numbers, times, keys, index = numbers[good], times[good], keys[good], index[good]
        labels = None if labels is None else labels[good]
        elapsed = elapsed[good]
        has_target = None if has_target is None else has_target[good]
    origins = np.empty(len(index), dtype=object)
    origins.fill(records.origin)
    first, last = len(fields.features), len(fields.features) + len(fields.targets)
    offsets = np.asarray(records.offsets, dtype=np.int64)[index]
    weights = numbers[:, last].astype(np.float32) if fields.weight is not None else None
    stopped = numbers[:, fields.stop_column] != 0.0 if fields.stop is not None else None
    targets = numbers[:, first:last]
    features = np.concatenate([numbers[:, :first], elapsed], axis=1) if fields.seasons else numbers[:, :first]
    # The last columns; a copy, because a view would keep all columns in memory.
    upstream = numbers[:, -len(fields.upstream) :].copy() if fields.upstream else None
    return Samples(
        features,
        targets,
        times,
        keys,
        origins,
        offsets,
        weights,
        labels,
        has_target,
        planned_stop=stopped,
        upstream=upstream,
    )


def _has_target(numbers: Float64Array, rows: Rows, fields: Fields) -> BoolArray | None:
    """Return a mask of the rows with a target, shape (n,); None if every row has one."""
    if not fields.targets_optional:
        return None
    if rows.labels is not None:
        present = np.array([label is not None for label in rows.labels], np.bool_)
    else:
        first = len(fields.features)
        present = np.logical_not(np.isnan(numbers[:, first : first + len(fields.targets)]).any(axis=1))
    return None if present.all() else present


def _fill_missing(numbers: Float64Array, index: Int64Array, fields: Fields, bad: Bad) -> Float64Array:
    """Return *numbers* with the stand-ins of their fields for NaN and for numbers that mean a missing value."""
    fixed = [None if field.missing is None or field.has_gaps else field.missing for field in fields.features]
    if any(number is not None for number in fixed) and (gaps := np.isnan(numbers[:, : len(fixed)])).any():
        numbers = numbers.copy()
        for column, stand_in in enumerate(fixed):
            if stand_in is not None:
                numbers[gaps[:, column], column] = stand_in
    if not fields.missing_numbers:
        return numbers
    others = {fields.weight, fields.stop}
    columns = [column for column, field in enumerate(fields.numbers) if field not in others]
    found = np.isin(numbers[:, columns], fields.missing_numbers)
    if not found.any():
        return numbers
    numbers = numbers.copy()
    for row, place in zip(*np.nonzero(found), strict=True):
        column = columns[place]
        field = fields.numbers[column]
        stand_in = np.nan if fields.targets_optional and field in fields.targets else field.missing
        if stand_in is None:
            detail = f"{field.name} is {field.shown(numbers[row, column])}, one of decode.missing_values"
            bad.setdefault(int(index[row]), (RejectReason.MISSING_FIELD, detail))
        else:
            numbers[row, column] = stand_in
    return numbers


def _check_finite(numbers: Float64Array, index: Int64Array, fields: Fields, bad: Bad) -> None:
    # nan fails this comparison too. A number beyond float32 would reach the model as infinity.
    fits = np.abs(numbers) <= _FLOAT32_MAX
    if fields.targets_optional:
        first = len(fields.features)
        targets = slice(first, first + len(fields.targets))
        fits[:, targets] |= np.isnan(numbers[:, targets])
    if fields.upstream:
        fits[:, -len(fields.upstream) :] = True  # a forecast that is no number counts as missing
    gaps = [column for column, field in enumerate(fields.features) if field.has_gaps]
    if gaps and not fits.all():
        fits[:, gaps] |= np.isnan(numbers[:, gaps])
        empty = np.isnan(numbers[:, : len(fields.features)]).all(axis=1)
        for row in np.flatnonzero(empty):
            bad.setdefault(int(index[row]), (RejectReason.MISSING_FIELD, "no feature has a value"))
    if fits.all():
        return
    for row, column in zip(*np.nonzero(~fits), strict=True):
        field = fields.numbers[column]
        detail = f"{field.name} is {field.shown(float(numbers[row, column]))}"
        if np.isnan(numbers[row, column]):
            detail += missing_hint(field, fields)
        bad.setdefault(int(index[row]), (RejectReason.NOT_FINITE, detail))


def missing_hint(field: Field, fields: Fields) -> str:
    """Return the option that accepts a record without a value of this field."""
    if field in fields.features:
        return f"; set features.{field.name}.missing to a number or mean"
    if field in fields.targets:
        return "; decode.missing_target: predict accepts it without learning from it"
    return ""


def _check_ranges(numbers: Float64Array, index: Int64Array, fields: Fields, bad: Bad) -> None:
    for column, field in enumerate(fields.numbers):
        for bound, outside, word in (
            (field.min, np.less, "below min"),
            (field.max, np.greater, "above max"),
        ):
            if bound is None:
                continue
            for row in np.nonzero(outside(numbers[:, column], bound))[0]:
                detail = f"{field.name} is {field.shown(float(numbers[row, column]))}, {word} {bound:g}"
                bad.setdefault(int(index[row]), (RejectReason.OUT_OF_RANGE, detail))


def _times(
    records: Records,
    rows: Rows,
    index: Int64Array,
    fields: Fields,
    bad: Bad,
) -> Float64Array:
    if rows.times is None:
        return _own_times(records, index, bad)
    return _seconds(rows.times, fields.time, index, fields, bad)


def _elapsed(rows: Rows, times: Float64Array, index: Int64Array, fields: Fields, bad: Bad) -> Float64Array:
    """Return the columns of the seasonal inputs, shape (n, seasons)."""
    elapsed = np.empty((len(times), len(fields.seasons)))
    if not fields.seasons:
        return elapsed
    clocks: dict[str | None, Float64Array] = {None: times}
    for name, values in zip(fields.clocks, rows.clocks, strict=True):
        clocks[name] = _seconds(values, name, index, fields, bad)
    for column, part in enumerate(fields.seasons):
        elapsed[:, column] = np.mod(clocks[part.time] - part.origin_s, part.period_s)
    return elapsed


def _seconds(
    values: Sequence[float | str], name: str | None, index: Int64Array, fields: Fields, bad: Bad
) -> Float64Array:
    """Return the times *values* of the field *name* in seconds; add records with a bad one to *bad*."""
    reader = fields.time_reader
    if not reader.formats and all(type(value) is float or type(value) is int for value in values):
        try:
            times = np.asarray(values, dtype=np.float64) * UNITS_S[reader.unit]
            if ((times >= reader.first_s) & (times <= reader.last_s)).all():
                return times
        except OverflowError:
            pass
    result = np.zeros(len(index))
    for row, value in enumerate(values):
        try:
            result[row] = _time_s(value, reader)
        except BadRecord as error:
            bad.setdefault(int(index[row]), (error.reason, f"{name}: {error.detail}"))
    return result


def _own_times(records: Records, index: Int64Array, bad: Bad) -> Float64Array:
    """Return the records' own times in seconds. Producers can set them to any value, so they are checked."""
    times: Float64Array = np.asarray(records.timestamps_ms, dtype=np.float64)[index] * 1e-3
    # nan, the time of a record that has none, fails this comparison too.
    for row in np.nonzero(~((times >= FIRST_S) & (times <= LAST_S)))[0]:
        i = int(index[row])
        detail = f"the record's own time, {records.timestamps_ms[i]} ms, is outside the years 1 to 9999"
        bad.setdefault(i, (RejectReason.BAD_TIME, detail))
    return times


def _check_ahead(records: Records, times: Float64Array, index: Int64Array, fields: Fields, bad: Bad) -> None:
    """Add records with an event time too far ahead of their own time to *bad*.

    Records without a time of their own pass. The clock is not used: a replay must give the same result.
    """
    if fields.max_ahead_s is None or fields.time is None:
        return
    own_s = np.asarray(records.timestamps_ms, dtype=np.float64)[index] * 1e-3
    for row in np.nonzero((own_s > 0) & (times > own_s + fields.max_ahead_s))[0]:
        detail = (
            f"{fields.time} is {times[row] - own_s[row]:.0f} s ahead of the record's own time, "
            f"decode.max_ahead_s is {fields.max_ahead_s:g}"
        )
        bad.setdefault(int(index[row]), (RejectReason.AHEAD_OF_TIME, detail))


def _keys(records: Records, rows: Rows, index: Int64Array, fields: Fields, bad: Bad) -> ObjectArray:
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
                bad.setdefault(int(index[row]), (RejectReason.OVERSIZED, detail))
    return keys


def _labels(rows: Rows, index: Int64Array, fields: Fields, bad: Bad) -> ObjectArray | None:
    if rows.labels is None:
        return None
    for row, label in enumerate(rows.labels):
        if label is None:
            continue
        if len(label) > _LABEL_CHARACTERS:
            detail = f"{fields.label} has {len(label)} characters; a class has at most {_LABEL_CHARACTERS}"
            bad.setdefault(int(index[row]), (RejectReason.WRONG_TYPE, detail))
        elif fields.labels is not None and label not in fields.labels:
            bad.setdefault(
                int(index[row]), (RejectReason.UNKNOWN_LABEL, f"{fields.label} is {label[:64]!r}, not in task.classes")
            )
    labels = np.empty(len(rows.labels), dtype=object)
    labels[:] = rows.labels
    return labels
