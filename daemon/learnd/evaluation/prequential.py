"""Prequential error: every sample is predicted before it is learned (Dawid, 1984; Gama et al., 2013)."""

import numpy as np

from learnd.core.kinds import EvaluatedOn
from learnd.core.types import Float32Array, Float64Array, PrequentialScores, State, StepResult

WINDOW_SAMPLES = 1000
LARGEST = 1e12


class Prequential:
    """Means of losses and errors over the last `WINDOW_SAMPLES` samples, and the mean loss since the model began.

    Samples without a target are left out. The window is a ring whose mean is computed again each time. So rounding
    errors do not add up, and the result does not depend on how the stream was cut.

    Parameters
    ----------
    of : the reference for predictions: the targets, the inputs, the class number, or independent labels
    """

    def __init__(self, *, of: EvaluatedOn = "targets", window_samples: int = WINDOW_SAMPLES) -> None:
        self._of = of
        self._ring = np.zeros((3, window_samples))
        self._samples = 0
        self._total = 0.0

    def observe(self, result: StepResult) -> PrequentialScores:
        rows = np.stack([result.losses, result.averaged_losses, self._errors(result)])
        rows = _bounded(rows if result.samples.has_target is None else rows[:, result.samples.has_target])
        count = rows.shape[1]
        if count:
            self._write(rows)
            # cumsum adds strictly from left to right, so the total does not depend on how the samples are cut.
            self._total = float(np.cumsum(np.concatenate([[self._total], rows[0]]))[-1])
            self._samples += count
        return self.scores()

    def _errors(self, result: StepResult) -> Float32Array:
        """Return the absolute error of each sample; 1 for a wrong class, and the share of wrong labels."""
        samples, predictions = result.samples, result.predictions
        if not len(samples):
            return np.empty(0, np.float32)
        if self._of == "classes":
            wrong: Float32Array = (predictions.argmax(axis=1) != samples.y[:, 0]).astype(np.float32)
            return wrong
        if self._of == "labels":
            share: Float32Array = ((predictions >= 0.5) != (samples.y >= 0.5)).mean(axis=1, dtype=np.float32)
            return share
        reference = samples.x.reshape(len(samples), -1) if self._of == "inputs" else samples.y
        errors: Float32Array = np.abs(predictions - reference).mean(axis=1)
        return errors

    def _write(self, rows: Float64Array) -> None:
        size = self._ring.shape[1]
        recent = rows[:, -size:]
        first = self._samples + rows.shape[1] - recent.shape[1]
        self._ring[:, (first + np.arange(recent.shape[1])) % size] = recent

    def scores(self) -> PrequentialScores:
        """Return the evaluation so far."""
        filled: Float64Array = self._ring[:, : min(self._samples, self._ring.shape[1])]
        if not filled.shape[1]:
            return PrequentialScores()
        loss, averaged, absolute = (float(mean) for mean in filled.mean(axis=1))
        return PrequentialScores(self._samples, loss, averaged, absolute, self._total / self._samples)

    def state(self) -> State:
        return {"ring": self._ring.copy(), "samples": self._samples, "total": self._total}

    def restore(self, state: State) -> None:
        self._ring = np.array(state["ring"])
        self._samples = int(state["samples"])
        self._total = float(state["total"])


def _bounded(errors: Float32Array) -> Float64Array:
    """Return *errors* as float64, at most `LARGEST`, which also replaces nan: one nan must not hide all other
    errors."""
    return np.nan_to_num(errors.astype(np.float64), nan=LARGEST, posinf=LARGEST).clip(max=LARGEST)
