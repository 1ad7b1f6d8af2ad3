"""Loss of the newest export on data that arrived after it: the error its users see.

Prequential error flatters weights that keep learning, and averaged weights too: on an autocorrelated stream they have
just seen the neighbour of the sample that they predict. A published model stands still.
"""

import math

import numpy as np

from learnd.core.types import Float32Array, FrozenLosses, Published, StepResult

ROWS = 64
"""Rows of each batch that are evaluated, the newest. Smaller batches are gathered until there are as many: one call
takes 0.6 ms whatever is in it, as long as predicting and learning a single sample."""
_LARGEST = 1e12


class FrozenForward:
    """The mean loss of the newest export's weights over samples that came after it. Not part of the checkpoint."""

    def __init__(self) -> None:
        self._number = 0
        self._losses: FrozenLosses | None = None
        self._waiting: list[tuple[Float32Array, Float32Array]] = []
        self._total = 0.0
        self._samples = 0

    def begin(self, number: int, losses: FrozenLosses | None) -> None:
        """Evaluate export *number* from now on; without *losses* it cannot be evaluated."""
        self._number, self._losses = number, losses
        self._waiting = []
        self._total, self._samples = 0.0, 0

    def observe(self, result: StepResult) -> float:
        """Take the newest samples of one batch; return the mean loss so far, nan before the first."""
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
        """Return the export and its loss on everything that came after it; None before its first sample."""
        if self._losses is not None and self._waiting:
            self._evaluate(self._losses)
        if not self._samples:
            return None
        return Published(self._number, self._total / self._samples, self._samples)
