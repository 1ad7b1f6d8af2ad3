"""How published weights do on what came after them: the error that whoever runs an export has.

Prequential error flatters weights that go on learning, averaged ones too: on an autocorrelated stream they have just
seen the neighbour of what they are asked. What is published stands still.
"""

import math

import numpy as np

from learnd.core.types import Float32Array, FrozenLosses, Published, StepResult

ROWS = 64
"""Of each batch so many of the newest rows are judged, and small batches are gathered until there are as many: one
judgement takes 0.6 ms, whatever is in it, as long as predicting and learning a single sample."""
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
        """From now on judge export *number*; None: it cannot be judged."""
        self._number, self._losses = number, losses
        self._waiting = []
        self._total, self._samples = 0.0, 0

    def observe(self, result: StepResult) -> float:
        """Take the newest samples of one batch; returns the mean loss of those judged so far, nan before the first."""
        samples = result.samples
        if self._losses is not None and len(samples):
            self._waiting.append((samples.x[-ROWS:], samples.y[-ROWS:]))
            if sum(len(x) for x, _ in self._waiting) >= ROWS:
                self._judge(self._losses)
        return self._total / self._samples if self._samples else math.nan

    def _judge(self, losses_of: FrozenLosses) -> None:
        x, y = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        self._waiting = []
        losses = losses_of(x, y).tolist()
        self._total += sum(min(loss, _LARGEST) if math.isfinite(loss) else _LARGEST for loss in losses)
        self._samples += len(losses)

    def published(self) -> Published | None:
        """The export that is judged, and how it did on all that came after it; None before its first sample."""
        if self._losses is not None and self._waiting:
            self._judge(self._losses)
        if not self._samples:
            return None
        return Published(self._number, self._total / self._samples, self._samples)
