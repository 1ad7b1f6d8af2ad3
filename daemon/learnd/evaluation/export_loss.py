"""Loss of the newest export on data that arrived after it: the error its users see.

The prequential error is too optimistic for an export: on an autocorrelated stream, weights that keep learning have just
seen the neighbour of the sample that they predict. This holds for averaged weights too. An export does not change.
"""

import math

import numpy as np

from learnd.core.types import Float64Array, FrozenLosses, Published, StepResult

ROWS = 64
"""Number of newest rows of each batch to evaluate. Smaller batches are collected until there are as many: one call
takes 0.6 ms regardless of its rows, as long as predicting and learning a single sample."""
_LARGEST = 1e12


class FrozenForward:
    """The mean loss of the newest export over samples that arrived after it. Not part of the checkpoint."""

    def __init__(self) -> None:
        self._number = 0
        self._losses: FrozenLosses | None = None
        self._waiting: list[tuple[Float64Array, Float64Array]] = []
        self._total = 0.0
        self._samples = 0

    def begin(self, number: int, losses: FrozenLosses | None) -> None:
        """Start evaluating export *number*; if *losses* is None, it cannot be evaluated."""
        self._number, self._losses = number, losses
        self._waiting = []
        self._total, self._samples = 0.0, 0

    def observe(self, result: StepResult) -> float:
        """Evaluate the newest samples of one batch; return the mean loss so far, nan before the first sample."""
        samples = result.samples
        if samples.has_target is not None:
            samples = samples.take(samples.has_target)
        if self._losses is not None and len(samples):
            self._waiting.append((samples.x[-ROWS:], samples.y[-ROWS:]))
            if sum(len(x) for x, _ in self._waiting) >= ROWS:
                self._evaluate(self._losses)
        return self._total / self._samples if self._samples else math.nan

    def _evaluate(self, losses_of: FrozenLosses) -> None:
        x, y = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting = []
        losses = losses_of(x, y).tolist()
        self._total += sum(min(loss, _LARGEST) if math.isfinite(loss) else _LARGEST for loss in losses)
        self._samples += len(losses)

    def published(self) -> Published | None:
        """Return the export and its mean loss on the samples after it; None before the first one."""
        if self._losses is not None and self._waiting:
            self._evaluate(self._losses)
        if not self._samples:
            return None
        return Published(self._number, self._total / self._samples, self._samples)
