"""The transform that gathers records with one value each (name, value) into rows."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import Batch, Float64Array, State, Transformed
from learnd.transforms.rejects import RejectedRows


class Column(Protocol):
    """One number of a row, with its limits; see `learnd.decoders.fields.Field`."""

    @property
    def name(self) -> str: ...

    @property
    def min(self) -> float | None: ...

    @property
    def max(self) -> float | None: ...

    @property
    def missing(self) -> float | None: ...

    def shown(self, value: object) -> str: ...


@dataclass(slots=True)
class _Row:
    """The newest row of one key."""

    values: Float64Array
    """The values that have arrived for it, shape (columns,); nan: none yet."""
    last: Float64Array
    """The last value of each name, whichever row it came in; nan: none yet."""
    moment: Float64Array
    """The time of its newest record, and the seasonal inputs of that time."""
    slot: float = -math.inf
    """The time of the row, or the number of its interval."""
    done: bool = True
    """True: it was given away, so further values of its time are late."""


@dataclass(slots=True)
class _Rows:
    """The rows that one batch completes."""

    numbers: list[Float64Array]
    """The columns of each row."""
    moments: list[Float64Array]
    """The time and the seasonal inputs of each."""
    at: list[int]
    """The record that completed each."""
    skipped: Counter[SkipReason]
    rejects: RejectedRows


class Gather:
    """Rows of the values of one key and time.

    A sample has the time and the seasonal inputs of the newest record in it, and the offset of the record that
    completes it, which may be the first one of the next row.

    A row is complete once all names have a value, or once a record of the key has a later time. What is then missing is
    filled by *gaps*: as a missing reading of a record (``missing``), or with the key's last value of that name
    (``hold``). A row whose missing values nothing stands for makes no sample, and is counted. The last value of a name
    counts. Records of other names are counted, and those of a row that was completed before.

    Incomplete rows are in the state, so the result does not depend on how the stream was cut into batches.

    Parameters
    ----------
    features, targets : the columns of a row; the samples that come have the value in the first column of x, before
        the seasonal inputs, and its name as their label
    every_s : length of the intervals whose values belong together; None: only equal times do
    targets_optional : a row without its target becomes a sample without one
    """

    def __init__(
        self,
        features: Sequence[Column],
        targets: Sequence[Column],
        *,
        gaps: Literal["missing", "hold"],
        every_s: float | None,
        targets_optional: bool,
        max_keys: int,
    ) -> None:
        self._columns = (*features, *targets)
        self._position = {column.name: i for i, column in enumerate(self._columns)}
        self._features = len(features)
        self._hold = gaps == "hold"
        self._every_s = every_s
        self._targets_optional = targets_optional
        self._max_keys = max_keys
        self._rows: dict[str, _Row] = {}

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        made = _Rows([], [], [], Counter(), RejectedRows(batch.records))
        names = samples.labels if samples.labels is not None else ()
        moments = np.concatenate([samples.times_s[:, None], samples.x[:, 1:]], axis=1)
        columns = zip(names, samples.keys, moments, samples.x[:, 0].tolist(), strict=True)
        for i, (name, key, moment, value) in enumerate(columns):
            position = self._position.get(name)
            if position is None:
                made.skipped[SkipReason.OTHER_NAME] += 1
            elif (detail := self._out_of_range(self._columns[position], value)) is not None:
                made.rejects.add(samples, i, RejectReason.OUT_OF_RANGE, detail)
            else:
                self._add(key, moment, position, value, i, made)
        rows = np.array(made.numbers, np.float64).reshape(len(made.at), len(self._columns))
        of_rows = np.array(made.moments, np.float64).reshape(len(made.at), moments.shape[1])
        y = rows[:, self._features :]
        present = np.logical_not(np.isnan(y).any(axis=1)) if self._targets_optional else None
        gathered = replace(
            samples.take(np.array(made.at, np.int64)),
            x=np.concatenate([rows[:, : self._features], of_rows[:, 1:]], axis=1),
            times_s=of_rows[:, 0].copy(),
            y=y,
            labels=None,
            has_target=None if present is None or present.all() else present,
        )
        return Transformed(gathered, made.rejects.all(), made.skipped)

    def _out_of_range(self, column: Column, value: float) -> str | None:
        if column.min is not None and value < column.min:
            return f"{column.name} is {column.shown(value)}, below min {column.min:g}"
        if column.max is not None and value > column.max:
            return f"{column.name} is {column.shown(value)}, above max {column.max:g}"
        return None

    def _add(self, key: str, moment: Float64Array, position: int, value: float, i: int, made: _Rows) -> None:
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= self._max_keys:
                made.skipped[SkipReason.TOO_MANY_KEYS] += 1
                return
            nothing = np.full(len(self._columns), np.nan)
            row = self._rows[key] = _Row(nothing, nothing.copy(), moment)
        time_s = float(moment[0])
        slot = time_s if self._every_s is None else math.floor(time_s / self._every_s)
        if slot < row.slot or (slot == row.slot and row.done):
            made.skipped[SkipReason.DUPLICATE_TIME] += 1
            return
        completes = False
        if slot > row.slot:
            completes = not row.done and self._give(row, i, made)
            row.values, row.slot, row.done = np.full(len(self._columns), np.nan), slot, False
        row.values[position] = row.last[position] = value
        row.moment = moment.copy()  # a view would keep the whole batch in memory
        if not np.isnan(row.values).any():
            completes = self._give(row, i, made)
            row.done = True
        if not completes:
            made.skipped[SkipReason.ROW_FILLING] += 1

    def _give(self, row: _Row, i: int, made: _Rows) -> bool:
        """Add a row to those that are made, unless something is missing; return whether it was added."""
        values = row.values.copy()
        if self._hold:
            values = np.where(np.isnan(values), row.last, values)
        for position in np.flatnonzero(np.isnan(values)).tolist():
            missing = self._columns[position].missing
            if position < self._features and missing is not None:
                values[position] = missing
            elif position < self._features or not self._targets_optional:
                made.skipped[SkipReason.ROW_INCOMPLETE] += 1
                return False
        if np.isnan(values[: self._features]).all():
            made.skipped[SkipReason.ROW_INCOMPLETE] += 1
            return False
        made.numbers.append(values)
        made.moments.append(row.moment)
        made.at.append(i)
        return True

    def state(self) -> State:
        rows = list(self._rows.values())
        shape = (len(rows), len(self._columns))
        return {
            "keys": list(self._rows),
            "values": np.array([row.values for row in rows], np.float64).reshape(shape),
            "last": np.array([row.last for row in rows], np.float64).reshape(shape),
            "moment": np.array([row.moment for row in rows], np.float64).reshape(len(rows), -1 if rows else 1),
            "slot": np.array([row.slot for row in rows], np.float64),
            "done": np.array([row.done for row in rows], np.int64),
        }

    def restore(self, state: State) -> None:
        columns = zip(*(state[name] for name in ("keys", "values", "last", "moment", "slot", "done")), strict=True)
        self._rows = {
            key: _Row(np.array(values), np.array(last), np.array(moment), float(slot), bool(done))
            for key, values, last, moment, slot, done in columns
        }
