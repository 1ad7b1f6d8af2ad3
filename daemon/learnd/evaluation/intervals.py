"""Prediction intervals with the configured coverage, whatever the learner, also while the stream changes.

Adaptive conformal inference (Gibbs and Candès, 2021) in the form of quantile tracking (Angelopoulos, Candès and
Tibshirani, 2023): each end of an interval moves outwards after a truth beyond it, and inwards by less after any other.
The average coverage then comes out as configured for any stream, because what is missed widens the interval. The ends
are measured from the recent mean of the errors, in units of their recent size. Both follow a change at once.
"""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from learnd.core.types import Bounds, Float64Array, IntervalOffsets, State, StepResult

BLOCK = 32
"""Number of samples after which the ends move; fewer at the start. A step takes 30 µs, or 1 µs per sample."""
STEP = 0.05
"""Step of an end per missed truth, as a share of its first distance. Smaller steps follow a change too slowly; with
larger ones intervals become wider, because their width fluctuates."""
HALF_LIFE_SAMPLES = 100.0
"""Half-life of the size of the errors."""
_LARGEST = 1e12
"""Largest error, which also replaces nan."""
_FARTHEST = 100.0
"""Largest distance of an end, in first distances."""
_OUTLIER = 10.0
"""A larger error counts as this many times the size of the errors."""
_GROWTH = 100.0
"""The same where half of a block are larger, as when a machine wakes up: this many times as much."""
_YOUNG = 320
"""Number of samples during which a block of errors ten times nearer to each other than the size begins again: an absurd
first truth would take 1300 samples to be forgotten."""
_FEW = 8
"""Smallest such block: two errors are near each other by chance."""
_MEAN_OF_NORMAL = math.sqrt(2.0 / math.pi)
"""The mean absolute value of a standard normal distribution."""


class ConformalIntervals:
    """The intervals around live and averaged predictions, output by output. Part of the checkpoint.

    The interval of a sample depends on samples before it only. It does not depend on how the stream was cut.

    Parameters
    ----------
    coverage : share of truths that lie within the interval, for each output
    outputs : number of values in one prediction
    """

    def __init__(self, coverage: float, outputs: int) -> None:
        self._coverage = coverage
        self._outputs = outputs
        self._distance = NormalDist().inv_cdf(0.5 + coverage / 2.0) / _MEAN_OF_NORMAL
        shape = (2, outputs)
        self._waiting = np.zeros((2, BLOCK, *shape))
        """Errors of the samples of the block that is being filled: how far each truth is below the prediction, and how
        far above; for live and averaged predictions."""
        self._filled = 0
        self._samples = 0
        """Number of samples in complete blocks."""
        self._centre = np.zeros(shape)
        """Recent mean error: where the middle of the truths lies, seen from the predictions."""
        self._size = np.zeros(shape)
        """Recent mean distance of an error from the centre."""
        self._ends = np.full((2, *shape), self._distance)
        """Distances of the lower and of the upper end from the centre, in sizes."""

    def __call__(self, result: StepResult) -> StepResult:
        """Return *result* with an interval for each of its predictions, then learn from its truths.

        Bounds are nan before the first truth.
        """
        count = len(result.samples)
        if not count:
            return result
        predictions = np.stack([result.predictions, result.averaged_predictions], axis=1)
        known = result.samples.has_target
        rows = np.arange(count) if known is None else np.flatnonzero(known)
        above = result.samples.y[:, None] - predictions
        above = _bounded(above if known is None else above[rows])
        bounds = np.empty((2, *predictions.shape))
        first, start = 0, 0
        while first < count:
            needed = self._block() - self._filled
            complete = len(rows) - start >= needed
            stop = start + needed if complete else len(rows)
            last = int(rows[stop - 1]) + 1 if complete else count
            bounds[:, first:last] = self._offsets()[:, None]
            filled = self._filled + stop - start
            self._waiting[1, self._filled : filled] = above[start:stop]
            self._filled = filled
            if complete:
                self._learn()
            first, start = last, stop
        bounds += predictions
        lower, upper = bounds
        return replace(result, bounds=Bounds(lower[:, 0], upper[:, 0], lower[:, 1], upper[:, 1]))

    def _block(self) -> int:
        """Return the number of samples of the present block: 1, 1, 2, 4, 8, 16, then `BLOCK`."""
        return min(BLOCK, max(1, self._samples))

    def _offsets(self) -> Float64Array:
        """Return what to add to a prediction for both ends, shape (2, 2, outputs); nan before the first truth."""
        if not self._samples:
            return np.full_like(self._ends, np.nan)
        offsets: Float64Array = self._ends * self._size
        np.negative(offsets[0], out=offsets[0])
        offsets += self._centre
        return offsets

    def _learn(self) -> None:
        """Move the ends and the size by the errors of one complete block."""
        count = self._filled
        errors = self._waiting[:, :count]
        errors[1] -= self._centre
        np.negative(errors[1], out=errors[0])
        if self._samples:
            missed = np.add.reduce(errors > (self._ends * self._size)[:, None], axis=1)
            # A prediction that never had an error tells nothing about the ends.
            step = (STEP * self._distance) * (self._size > 0.0)
            self._ends += step * (missed - count * (1.0 - self._coverage) / 2.0)
            limit = _FARTHEST * self._distance
            np.minimum(self._ends, limit, out=self._ends)
            np.maximum(self._ends, -limit, out=self._ends)
            crossing = self._ends[0] + self._ends[1]
            if (crossing < 0.0).any():
                self._ends -= np.minimum(crossing, 0.0) / 2.0
        self._observe(errors[1])
        self._samples += count
        self._filled = 0

    def _observe(self, errors: Float64Array) -> None:
        """Update centre and size with one block of errors from the centre. One absurd truth has a bounded influence.

        Where half of the errors are outliers, the ends begin again: they had only followed a size that was too small.
        """
        count, size, distances = len(errors), self._size, np.abs(errors)
        limit = np.where(size > 0.0, _OUTLIER * size, _LARGEST)
        outliers = np.add.reduce(distances > limit, axis=0)
        if outliers.any():
            new_size = 2 * outliers > count
            limit = np.where(new_size, _GROWTH * limit, limit)
            errors, distances = np.maximum(np.minimum(errors, limit), -limit), np.minimum(distances, limit)
            np.copyto(self._ends, self._distance, where=new_size)
        share = max(1.0 - 0.5 ** (count / HALF_LIFE_SAMPLES), count / (self._samples + count))
        if self._samples:  # one error has no mean: without this the second sample would have an interval without width
            self._centre += share * np.add.reduce(errors, axis=0) / count
        size += share * (np.add.reduce(distances, axis=0) / count - size)
        if _FEW <= self._samples <= _YOUNG:
            self._begin_again(errors - share * np.add.reduce(errors, axis=0) / count)

    def _begin_again(self, errors: Float64Array) -> None:
        """Take centre and size from one block of errors from the centre, where these are far nearer to each other."""
        mean = np.add.reduce(errors, axis=0) / len(errors)
        span = np.maximum.reduce(errors, axis=0) - np.minimum.reduce(errors, axis=0)
        replaced = (span > 0.0) & (span < self._size / _OUTLIER)
        if replaced.any():
            near = np.add.reduce(np.abs(errors - mean), axis=0) / len(errors)
            self._centre += np.where(replaced, mean, 0.0)
            np.copyto(self._size, near, where=replaced)
            np.copyto(self._ends, self._distance, where=replaced)

    def offsets(self) -> IntervalOffsets | None:
        """Return the distances of the present interval around averaged predictions; None before the first truth."""
        if not self._samples:
            return None
        lower, upper = self._offsets()[:, 1]
        return IntervalOffsets(self._coverage, lower, upper, self._samples + self._filled)

    def state(self) -> State:
        return {
            "coverage": self._coverage,
            "waiting": self._waiting[1, : self._filled].copy(),
            "samples": self._samples,
            "centre": self._centre.copy(),
            "size": self._size.copy(),
            "ends": self._ends.copy(),
        }

    def restore(self, state: State) -> None:
        """Restore the intervals. If the configured coverage has changed, the ends begin again."""
        if not state:
            return
        self._filled, self._samples = len(state["waiting"]), int(state["samples"])
        self._waiting[1, : self._filled] = state["waiting"]
        self._centre, self._size = np.array(state["centre"]), np.array(state["size"])
        if state["coverage"] == self._coverage:
            self._ends = np.array(state["ends"])


class NoIntervals:
    """No prediction intervals."""

    def __call__(self, result: StepResult) -> StepResult:
        return result

    def offsets(self) -> IntervalOffsets | None:
        return None

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """Do nothing: the intervals of an earlier run are dropped."""


def _bounded(errors: Float64Array) -> Float64Array:
    """Return *errors* within plus and minus `_LARGEST`, which also replaces nan."""
    inside: Float64Array = np.where(np.abs(errors) < _LARGEST, errors, np.where(errors < 0, -_LARGEST, _LARGEST))
    return inside
