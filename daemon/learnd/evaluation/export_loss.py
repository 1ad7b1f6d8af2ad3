"""Loss of the newest export on data that arrived after it: the error its users see.

The prequential error is too optimistic for an export: on an autocorrelated stream, weights that keep learning have just
seen the neighbour of the sample that they predict. This holds for averaged weights too. An export does not change.
"""

import math
from typing import NamedTuple

import numpy as np

from learnd.core.quality import Compared, Measure
from learnd.core.snapshot import FrozenLosses, Published
from learnd.core.types import Float32Array, Float64Array, StepResult
from learnd.evaluation.block_sums import BlockSums
from learnd.evaluation.numbers import variance_of, weights_of

ROWS = 64
"""Number of newest rows of each batch to evaluate. Smaller batches are collected until there are as many: one call
takes 0.6 ms regardless of its rows, as long as predicting and learning a single sample."""
_LARGEST = 1e12


class _Waiting(NamedTuple):
    """Rows that are not evaluated yet."""

    x: Float64Array
    y: Float64Array
    averaged_losses: Float32Array
    compared: Compared | None


class FrozenForward:
    """The errors of the newest export over samples that arrived after it. Not part of the checkpoint.

    Parameters
    ----------
    measure : measures errors next to those of the naive forecast; None: only losses are evaluated
    """

    def __init__(self, measure: Measure | None = None) -> None:
        self._measure = measure
        self._number = 0
        self._losses: FrozenLosses | None = None
        self.begin(0, None)

    def begin(self, number: int, losses: FrozenLosses | None) -> None:
        """Start evaluating export *number*; if *losses* is None, it cannot be evaluated."""
        self._number, self._losses = number, losses
        self._waiting: list[_Waiting] = []
        self._total, self._samples = 0.0, 0
        self._pairs = BlockSums((2,))
        """Losses of the export and of the averaged weights."""
        self._errors: BlockSums | None = None
        self._first: Float64Array | None = None

    def observe(self, result: StepResult, compared: Compared | None = None) -> float:
        """Evaluate the newest samples of one batch; return the mean loss so far, nan before the first sample.

        *compared* has the naive errors on those samples of the batch that have a target.
        """
        samples, averaged_losses = result.samples, result.averaged_losses
        if samples.has_target is not None:
            samples, averaged_losses = samples.take(samples.has_target), averaged_losses[samples.has_target]
        if self._losses is not None and len(samples):
            newest = compared.take(slice(-ROWS, None)) if compared is not None else None
            self._waiting.append(_Waiting(samples.x[-ROWS:], samples.y[-ROWS:], averaged_losses[-ROWS:], newest))
            if sum(len(waiting.x) for waiting in self._waiting) >= ROWS:
                self._evaluate(self._losses)
        return self._total / self._samples if self._samples else math.nan

    def _evaluate(self, losses_of: FrozenLosses) -> None:
        waiting, self._waiting = self._waiting, []
        x, y, averaged = (np.concatenate([part[i] for part in waiting]) for i in range(3))
        losses, predictions = losses_of(x, y)
        pairs = _bounded(np.stack([losses, averaged], axis=1))
        self._pairs.add(pairs)
        self._total += sum(pairs[:, 0].tolist())
        self._samples += len(losses)
        parts = [part.compared for part in waiting if part.compared is not None]
        if self._measure is not None and len(parts) == len(waiting):
            self._compare(self._measure, Compared.joined(parts), predictions.astype(np.float64))

    def _compare(self, measure: Measure, compared: Compared, predictions: Float64Array) -> None:
        """Add the errors of *predictions* next to the naive ones, where there are any."""
        truth, known = compared.truth, compared.known[:, None]
        if self._errors is None or self._first is None:
            self._errors, self._first = BlockSums((4 + len(compared.naive_errors), truth.shape[1])), truth[0].copy()
        shifted = truth - self._first
        columns = [
            shifted,
            np.square(shifted),
            np.broadcast_to(known, truth.shape),
            measure.errors(truth, predictions) * known,
            *(np.where(known, errors, 0.0) for errors in compared.naive_errors),
        ]
        self._errors.add(np.stack(columns, axis=1))

    def published(self, *, wait: bool = False) -> Published | None:
        """Return the export and its errors on the samples after it; None before the first one.

        With *wait*, samples that wait for others are left out.
        """
        if self._losses is not None and self._waiting and not wait:
            self._evaluate(self._losses)
        if not self._samples:
            return None
        recent_samples = self._pairs.recent_samples
        recent_loss, averaged_loss = (self._pairs.recent() / recent_samples).tolist()
        return Published(
            self._number,
            self._total / self._samples,
            self._samples,
            *self._recent_errors(),
            recent_loss=recent_loss,
            averaged_loss=averaged_loss,
            recent_samples=recent_samples,
        )

    def _recent_errors(self) -> tuple[float, float]:
        """Return the recent error of the export, and that of the better naive forecast; nan while unknown."""
        if self._errors is None:
            return math.nan, math.nan
        sums = self._errors.recent()
        known = float(sums[2, 0])
        if not known:
            return math.nan, math.nan
        weights = weights_of(variance_of(sums[0], sums[1], self._errors.recent_samples))
        error, *naive = ((sums[3:] * weights).mean(axis=1) / known).tolist()
        return error, min(naive)


def _bounded(losses: Float32Array) -> Float64Array:
    """Return *losses* as float64, at most `_LARGEST`, which also replaces nan."""
    return np.nan_to_num(losses.astype(np.float64), nan=_LARGEST, posinf=_LARGEST, neginf=_LARGEST).clip(max=_LARGEST)
