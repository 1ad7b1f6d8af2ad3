"""How published weights do on what came after them: the error that whoever runs an export has.

Prequential error flatters weights that go on learning, averaged ones too: on an autocorrelated stream they have just
seen the neighbour of what they are asked. What is published stands still.
"""

import math

from learnd.types import FrozenLosses, Published, StepResult

ROWS = 64
"""Of each batch so many of the newest rows are judged: enough for a mean, and no burden (0.3 ms a batch, whatever is in
it)."""
_LARGEST = 1e12


class FrozenForward:
    """The mean loss of the newest export's weights over samples that came after it. Not part of the checkpoint."""

    def __init__(self) -> None:
        self._number = 0
        self._losses: FrozenLosses | None = None
        self._total = 0.0
        self._samples = 0

    def begin(self, number: int, losses: FrozenLosses | None) -> None:
        """From now on judge export *number*; None: it cannot be judged."""
        self._number, self._losses = number, losses
        self._total, self._samples = 0.0, 0

    def observe(self, result: StepResult) -> float:
        """Judge the newest samples of one batch; returns the mean so far, nan before the first."""
        rows = result.samples.take(slice(-ROWS, None))
        if self._losses is not None and len(rows):
            losses = self._losses(rows.x, rows.y)
            self._total += sum(min(loss, _LARGEST) if math.isfinite(loss) else _LARGEST for loss in losses.tolist())
            self._samples += len(rows)
        return self._total / self._samples if self._samples else math.nan

    def published(self) -> Published | None:
        """The export that is judged, and how it did; None before its first sample."""
        if not self._samples:
            return None
        return Published(self._number, self._total / self._samples, self._samples)
