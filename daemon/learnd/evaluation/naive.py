"""Naive forecasts of numbers: what anyone could predict without a model. A model must beat them to be of use.

Each forecast is made before its sample is known, in order of arrival, like the model's own predictions.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from learnd.core.types import Float64Array, ObjectArray, Samples, State

MAX_KEYS = 100_000
"""Maximum number of keys whose last truth is stored, to bound memory. Further keys have no naive forecast."""
MEAN_SAMPLES = 1000
"""The running mean is that of the last 1000 to 2000 samples, so that it follows a stream that changes."""


class Naive(Protocol):
    """A naive forecast of numbers, whose state is part of the checkpoint."""

    def forecast(self, samples: Samples, truth: Float64Array) -> Float64Array:
        """Return the forecasts of *truth*, shape (n, k), then learn from it; nan where there is no forecast."""
        ...

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class LastTruth:
    """The forecast that a key's target is what it was at the key's previous sample.

    Parameters
    ----------
    outputs : number of values in one truth
    """

    def __init__(self, outputs: int) -> None:
        self._numbers: dict[str, int] = {}
        self._last = np.full((1, outputs), np.nan)

    def forecast(self, samples: Samples, truth: Float64Array) -> Float64Array:
        if len(truth) == 1:
            number = self._number(samples.keys[0])
            if number < 0:
                return np.full_like(truth, np.nan)
            before: Float64Array = self._last[number][None].copy()
            self._last[number] = truth[0]
            return before
        return self._forecast_rows(self._key_numbers(samples.keys), truth)

    def _key_numbers(self, keys: ObjectArray) -> npt.NDArray[np.int64]:
        return np.fromiter((self._number(key) for key in keys), np.int64, len(keys))

    def _number(self, key: str) -> int:
        """Return the row of *key* in the table, -1 if the table is full."""
        number = self._numbers.get(key)
        if number is None:
            number = len(self._numbers)
            if number >= MAX_KEYS:
                return -1
            self._numbers[key] = number
            if number >= len(self._last):
                self._last = np.concatenate([self._last, np.full_like(self._last, np.nan)])
        return number

    def _forecast_rows(self, numbers: npt.NDArray[np.int64], truth: Float64Array) -> Float64Array:
        forecasts = np.full_like(truth, np.nan)
        order = np.argsort(numbers, kind="stable")
        order = order[np.searchsorted(numbers[order], 0) :]  # without the keys that have no row
        if not len(order):
            return forecasts
        ordered, values = numbers[order], truth[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        before = np.concatenate([values[:1], values[:-1]])
        before[starts] = self._last[ordered[starts]]
        forecasts[order] = before
        ends = np.append(starts[1:], len(order)) - 1
        self._last[ordered[ends]] = values[ends]
        return forecasts

    def state(self) -> State:
        return {"keys": list(self._numbers), "last": self._last[: len(self._numbers)].copy()}

    def restore(self, state: State) -> None:
        self._numbers = {key: number for number, key in enumerate(state["keys"])}
        self._last = np.array(state["last"]) if len(state["keys"]) else np.full((1, self._last.shape[1]), np.nan)


class LastReading:
    """The forecast that every next reading equals the last reading of the window. It has no state.

    Parameters
    ----------
    columns : shape (k,), the feature of each evaluated value
    """

    def __init__(self, columns: npt.NDArray[np.int64]) -> None:
        self._columns = columns

    def forecast(self, samples: Samples, truth: Float64Array) -> Float64Array:
        last: Float64Array = samples.x[:, -1, :][:, self._columns].astype(np.float64)
        return last

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """Do nothing."""


class RunningMean:
    """The forecast that each value is its mean over the last 1000 to 2000 samples.

    Parameters
    ----------
    outputs : number of values in one truth
    """

    def __init__(self, outputs: int, *, samples: int = MEAN_SAMPLES) -> None:
        self._size = samples
        self._older = np.zeros(outputs)
        """Sum over the last complete block of samples."""
        self._newer = np.zeros(outputs)
        """Sum over the block that is being filled."""
        self._samples = 0

    def forecast(self, samples: Samples, truth: Float64Array) -> Float64Array:
        parts = []
        start = 0
        while start < len(truth):
            filled = self._samples % self._size
            stop = min(len(truth), start + self._size - filled)
            sums = np.cumsum(np.concatenate([self._newer[None], truth[start:stop]]), axis=0)
            counts = filled + np.arange(stop - start) + (self._size if self._samples >= self._size else 0)
            with np.errstate(invalid="ignore"):  # before the first sample: 0 / 0 is nan
                parts.append((self._older + sums[:-1]) / counts[:, None])
            self._newer = sums[-1]
            self._samples += stop - start
            if not self._samples % self._size:
                self._older, self._newer = self._newer, np.zeros_like(self._newer)
            start = stop
        return np.concatenate(parts) if parts else np.empty_like(truth)

    def state(self) -> State:
        return {"older": self._older.copy(), "newer": self._newer.copy(), "samples": self._samples}

    def restore(self, state: State) -> None:
        self._older, self._newer = np.array(state["older"]), np.array(state["newer"])
        self._samples = int(state["samples"])
