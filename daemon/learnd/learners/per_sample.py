"""One update per sample."""

from typing import Any

import numpy as np

from learnd.core.types import Samples, State, StepResult
from learnd.learners.chunk import CompiledChunk


class PerSampleLearner:
    """Learns every sample at once, in the exact order of arrival."""

    batch_rows = 1

    def __init__(self, chunk: CompiledChunk, settings: Any) -> None:
        self._chunk = chunk

    def prepare(self) -> None:
        self._chunk.prepare()

    def learn(self, samples: Samples) -> StepResult:
        return learn_in_chunks(self._chunk, samples, updates=len(samples))

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """All state lies in variables."""


def learn_in_chunks(chunk: CompiledChunk, samples: Samples, *, updates: int) -> StepResult:
    """As many compiled calls as *samples* need."""
    columns = []
    duration_s = 0.0
    start = 0
    while start < len(samples):
        rows = slice(start, start + chunk.next_rows())
        weights = None if samples.weights is None else samples.weights[rows]
        *arrays, seconds = chunk(samples.x[rows], samples.y[rows], weights)
        columns.append(arrays)
        duration_s += seconds
        start = rows.stop
    if not columns:
        nothing = np.empty(0, np.float32)
        return StepResult(samples, nothing.reshape(0, 1), nothing, nothing, 0, 0.0)
    predictions, losses, averaged = (
        column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*columns, strict=True)
    )
    return StepResult(samples, predictions, losses, averaged, updates, duration_s)
