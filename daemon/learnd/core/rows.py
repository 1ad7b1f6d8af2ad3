"""Rows that were learned, as columns, with what was predicted for them."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from learnd.core.types import Float32Array, Float64Array, Int32Array, State, StepResult


@dataclass(frozen=True, slots=True)
class LearnedRows:
    """Rows in the order in which they were learned. See `learnd.core.types.Samples` for the columns.

    Attributes
    ----------
    predictions : (n, outputs), made before each row was learned
    """

    x: Float64Array
    y: Float64Array
    predictions: Float64Array
    weights: Float32Array
    slots: Int32Array
    upstream: Float64Array

    def __len__(self) -> int:
        return len(self.x)

    @staticmethod
    def of(result: StepResult) -> "LearnedRows":
        """Return the learned rows of *result*."""
        samples, learned = result.samples, result.learned
        count = len(samples)
        return LearnedRows(
            samples.x[learned],
            samples.y[learned],
            result.predictions[learned],
            (np.ones(count, np.float32) if samples.weights is None else samples.weights)[learned],
            (np.zeros(count, np.int32) if samples.slots is None else samples.slots)[learned],
            (np.empty((count, 0)) if samples.upstream is None else samples.upstream)[learned],
        )

    def take(self, rows: slice) -> "LearnedRows":
        """Return some of the rows."""
        return LearnedRows(*(getattr(self, name)[rows] for name in _COLUMNS))


_COLUMNS = tuple(column.name for column in fields(LearnedRows))


class NewestRows:
    """The newest rows that were learned, at most *size* of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: list[LearnedRows] = []
        self._count = 0

    def observe(self, result: StepResult) -> None:
        """Append the learned rows of *result*."""
        if not self._size:
            return
        rows = LearnedRows.of(result)
        if len(rows):
            self._parts.append(rows)
            self._count += len(rows)
        if self._count > 2 * self._size:
            self._trim()

    def newest(self, count: int) -> LearnedRows | None:
        """Return the newest *count* rows; None if there are fewer."""
        self._trim()
        if not self._parts or self._count < count:
            return None
        return self._parts[0].take(slice(self._count - count, None))

    def _trim(self) -> None:
        if not self._parts:
            return
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in self._parts])[-self._size :] for name in _COLUMNS
        }
        self._parts = [LearnedRows(**columns)]
        self._count = len(self._parts[0])

    def state(self) -> State:
        self._trim()
        return {name: getattr(self._parts[0], name) for name in _COLUMNS} if self._parts else {}

    def restore(self, state: State) -> None:
        self._parts = [LearnedRows(**state)] if state else []
        self._count = len(self._parts[0]) if state else 0
