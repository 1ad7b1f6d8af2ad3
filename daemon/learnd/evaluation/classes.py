"""Errors of predicted classes next to those of naive forecasts: log loss, accuracy, and figures of each class."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from learnd.core.quality import Compared, Errors, Figures, Quality
from learnd.core.types import Bounds, Float64Array, Samples, State
from learnd.evaluation.block_sums import WINDOW_SAMPLES, BlockSums
from learnd.evaluation.class_table import ClassTable
from learnd.evaluation.probabilities import ProbabilityEvaluation, ProbabilityFigures

MOST_CLASSES = 12
"""Maximum number of classes with figures of their own: the most frequent ones."""
SMALLEST = 1e-7
"""Smallest probability in a log loss, which also replaces nan."""

(_LOSS, _RIGHT, _AVERAGED_LOSS, _AVERAGED_RIGHT) = range(4)
(_LIVE_KNOWN, _AVERAGED_KNOWN, _KNOWN) = range(4, 7)
_NAIVE_LOSSES, _NAIVE_RIGHT = slice(7, 9), slice(9, 11)
(_BRIER, _AVERAGED_BRIER) = range(11, 13)
_COLUMNS = 13


class ClassMeasure:
    """The log loss of class probabilities, in nats."""

    def truth(self, samples: Samples) -> Float64Array:
        """Return the class numbers, shape (n, 1)."""
        return samples.y[:, :1].astype(np.float64)

    def errors(self, truth: Float64Array, predictions: Float64Array) -> Float64Array:
        """Return the log losses, shape (n, 1)."""
        chosen = predictions[np.arange(len(truth)), truth[:, 0].astype(np.int64)].astype(np.float64)
        losses: Float64Array = -np.log(np.where(chosen > SMALLEST, np.minimum(chosen, 1.0), SMALLEST))
        return losses[:, None]


class ClassEvaluation:
    """The errors of live weights, averaged weights and naive forecasts of classes. Part of the checkpoint.

    Of the two naive forecasts the better one counts. Skill leaves out the first sample of each class, which nobody can
    predict.

    Parameters
    ----------
    outputs : number of values in one prediction: the largest possible number of classes
    names : returns the names of the classes so far
    """

    def __init__(
        self, outputs: int, names: Callable[[], tuple[str, ...]], *, window_samples: int = WINDOW_SAMPLES
    ) -> None:
        self.measure = ClassMeasure()
        self._names = names
        self._table = ClassTable()
        self._sums = BlockSums((_COLUMNS,), window_samples=window_samples)
        # Counts per class: samples that are of it, that were predicted to be of it, and both.
        self._counts = BlockSums((3 * outputs + 1,), window_samples=window_samples)
        self._outputs = outputs
        self._probabilities = ProbabilityEvaluation(outputs, window_samples=window_samples)

    def observe(
        self, samples: Samples, predictions: Float64Array, averaged: Float64Array, bounds: Bounds | None = None
    ) -> Compared:
        """Evaluate samples that have a target; return the naive errors on them. Classes have no *bounds*."""
        truth = self.measure.truth(samples)
        labels = samples.y[:, 0].astype(np.int64)
        naive = self._table.forecast(samples.keys, labels.tolist())
        known = naive.known.astype(np.float64)
        answers = predictions.argmax(axis=1)
        rows = np.empty((len(labels), _COLUMNS))
        rows[:, _LOSS] = self.measure.errors(truth, predictions)[:, 0]
        rows[:, _RIGHT] = answers == labels
        rows[:, _AVERAGED_LOSS] = self.measure.errors(truth, averaged)[:, 0]
        rows[:, _AVERAGED_RIGHT] = averaged.argmax(axis=1) == labels
        rows[:, _LIVE_KNOWN] = rows[:, _LOSS] * known
        rows[:, _AVERAGED_KNOWN] = rows[:, _AVERAGED_LOSS] * known
        rows[:, _KNOWN] = known
        rows[:, _NAIVE_LOSSES] = (naive.losses * known).T
        rows[:, _NAIVE_RIGHT] = naive.right.T
        rows[:, _BRIER] = brier_scores(predictions, labels)
        rows[:, _AVERAGED_BRIER] = brier_scores(averaged, labels)
        self._sums.add(rows)
        self._count(labels, answers)
        self._probabilities.observe(predictions, labels)
        return Compared(truth, naive.losses[:, :, None], naive.known)

    def _count(self, labels: npt.NDArray[np.int64], answers: npt.NDArray[np.int64]) -> None:
        k = self._outputs
        # The last place takes what counts nowhere: a sample that is no hit.
        hits = np.where(labels == answers, 2 * k + labels, 3 * k)
        self._counts.count(np.stack([labels, k + answers, hits], axis=1))

    def quality(self) -> Quality:
        """Return the figures."""
        sums, counts, probabilities = self._sums, self._counts, self._probabilities
        if not sums.samples:
            return Quality()
        usual_naive = _naive_loss(sums.total())
        recent, total, fading = probabilities.recent(), probabilities.total(), probabilities.fading()
        return Quality(
            self._figures(sums.recent(), counts.recent(), sums.recent_samples, recent, usual_naive),
            self._figures(sums.total(), counts.total(), sums.samples, total, usual_naive),
            self._figures(sums.fading(), counts.fading(), sums.fading_samples, fading, usual_naive),
        )

    def _figures(
        self,
        sums: Float64Array,
        counts: Float64Array,
        samples: float,
        probabilities: ProbabilityFigures,
        usual_naive: float,
    ) -> Figures:
        known = float(sums[_KNOWN])
        live, averaged = (
            float(total) / known if known else math.nan for total in (sums[_LIVE_KNOWN], sums[_AVERAGED_KNOWN])
        )
        naive = _naive_loss(sums)
        true, predicted, hits = counts[:-1].reshape(3, self._outputs)
        occurring = np.flatnonzero(true + predicted)
        measures = {
            "accuracy": float(sums[_RIGHT]) / samples,
            "log_loss": float(sums[_LOSS]) / samples,
            **probabilities._asdict(),
            "brier": float(sums[_BRIER]) / samples,
            "averaged_brier": float(sums[_AVERAGED_BRIER]) / samples,
            "macro_f1": float((2 * hits[occurring] / (true + predicted)[occurring]).mean()),
            "averaged_accuracy": float(sums[_AVERAGED_RIGHT]) / samples,
            "averaged_log_loss": float(sums[_AVERAGED_LOSS]) / samples,
            "naive_accuracy": float(sums[_NAIVE_RIGHT].max()) / samples,
            "naive_log_loss": naive,
        }
        errors = Errors(live, averaged, naive, usual_naive, round(known))
        return Figures(round(samples), errors, measures, self._classes(true, predicted, hits))

    def _classes(self, true: Float64Array, predicted: Float64Array, hits: Float64Array) -> dict[str, dict[str, float]]:
        names = self._names()
        frequent = np.argsort(-true, kind="stable")[:MOST_CLASSES]
        return {
            names[i] if i < len(names) else str(i): {
                "recall": float(hits[i] / true[i]),
                "precision": float(hits[i] / predicted[i]) if predicted[i] else math.nan,
                "samples": float(true[i]),
            }
            for i in sorted(frequent.tolist())
            if true[i]
        }

    def state(self) -> State:
        return {
            "sums": self._sums.state(),
            "counts": self._counts.state(),
            "table": self._table.state(),
            "probabilities": self._probabilities.state(),
        }

    def restore(self, state: State) -> None:
        self._sums.restore(state["sums"])
        self._counts.restore(state["counts"])
        self._table.restore(state["table"])
        self._probabilities.restore(state["probabilities"])


def brier_scores(predictions: Float64Array, labels: npt.NDArray[np.int64]) -> Float64Array:
    """Return for each sample half the sum of (probability - truth)^2 over the classes: from 0 to 1.

    For two classes this is the usual score, the squared error of the probability of either class.

    >>> brier_scores(np.array([[0.75, 0.25]]), np.array([0])).tolist()
    [0.0625]
    """
    errors = np.where(np.isfinite(predictions), predictions, 1.0)
    errors[np.arange(len(labels)), labels] -= 1.0
    scores: Float64Array = np.square(errors).sum(axis=1) / 2.0
    return scores


def _naive_loss(sums: Float64Array) -> float:
    """Return the mean log loss of the better naive forecast."""
    return float(sums[_NAIVE_LOSSES].min() / sums[_KNOWN]) if sums[_KNOWN] else math.nan
