"""Errors of independent labels next to those of their running shares: log loss, and figures of each label."""

import math

import numpy as np

from learnd.core.quality import Compared, Errors, Figures, Quality
from learnd.core.types import Bounds, Float64Array, Samples, State
from learnd.evaluation.block_sums import WINDOW_SAMPLES, BlockSums
from learnd.evaluation.naive import RunningMean
from learnd.evaluation.numbers import MOST_OUTPUTS, spaced
from learnd.evaluation.probabilities import BINS, bins_of, ranking

SMALLEST = 1e-7
"""Smallest probability of the truth in a log loss, which also replaces nan."""
_SMALLEST_SHARE = 1e-4
"""Smallest share that the naive forecast assumes, and its distance from one: a label that never came may come."""
THRESHOLD = 0.5
"""Probability from which on a label counts as predicted."""

(_LOSS, _AVERAGED_LOSS, _NAIVE_LOSS, _LIVE_KNOWN, _AVERAGED_KNOWN, _KNOWN) = range(6)
(_SQUARED, _TRUE, _PREDICTED, _HIT, _WRONG, _AVERAGED_WRONG) = range(6, 12)
_COLUMNS = 12


class LabelMeasure:
    """The log loss of each label, in nats, of at most `MOST_OUTPUTS` labels.

    Parameters
    ----------
    outputs : number of labels
    """

    def __init__(self, outputs: int) -> None:
        self.outputs = spaced(outputs, MOST_OUTPUTS)

    def truth(self, samples: Samples) -> Float64Array:
        """Return the labels, shape (n, k)."""
        return samples.y[:, self.outputs].astype(np.float64)

    def errors(self, truth: Float64Array, predictions: Float64Array) -> Float64Array:
        """Return the log losses, shape (n, k)."""
        return log_losses(truth, predictions[:, self.outputs].astype(np.float64), smallest=SMALLEST)


class LabelEvaluation:
    """The errors of live weights, averaged weights and running shares of labels. Part of the checkpoint.

    Parameters
    ----------
    names : of the labels
    """

    def __init__(self, names: tuple[str, ...], *, window_samples: int = WINDOW_SAMPLES) -> None:
        self.measure = LabelMeasure(len(names))
        self._names = [names[i] for i in self.measure.outputs]
        count = len(self._names)
        self._naive = RunningMean(count)
        self._sums = BlockSums((_COLUMNS, count), window_samples=window_samples)
        # Whether all labels of a sample were right, of live and averaged weights.
        self._exact = BlockSums((2,), window_samples=window_samples)
        # Per label: samples without it and with it, by bin of the probability.
        self._ranks = BlockSums((count * 2 * BINS,), window_samples=window_samples)

    def observe(
        self, samples: Samples, predictions: Float64Array, averaged: Float64Array, bounds: Bounds | None = None
    ) -> Compared:
        """Evaluate samples that have a target; return the naive errors on them. Labels have no *bounds*."""
        truth, chosen = self.measure.truth(samples), self.measure.outputs
        shares = self._naive.forecast(samples, truth)
        known = ~np.isnan(shares[:, 0])
        naive = np.where(known[:, None], log_losses(truth, shares, smallest=_SMALLEST_SHARE), 0.0)
        true, live, mean = truth >= THRESHOLD, predictions[:, chosen] >= THRESHOLD, averaged[:, chosen] >= THRESHOLD
        rows = np.empty((len(truth), _COLUMNS, truth.shape[1]))
        rows[:, _LOSS] = self.measure.errors(truth, predictions)
        rows[:, _AVERAGED_LOSS] = self.measure.errors(truth, averaged)
        rows[:, _NAIVE_LOSS] = naive
        rows[:, _KNOWN] = known[:, None]
        rows[:, _LIVE_KNOWN] = rows[:, _LOSS] * rows[:, _KNOWN]
        rows[:, _AVERAGED_KNOWN] = rows[:, _AVERAGED_LOSS] * rows[:, _KNOWN]
        rows[:, _SQUARED] = np.square(np.nan_to_num(predictions[:, chosen], nan=1.0).clip(0.0, 1.0) - truth)
        rows[:, _TRUE], rows[:, _PREDICTED], rows[:, _HIT] = true, live, true & live
        rows[:, _WRONG], rows[:, _AVERAGED_WRONG] = live != true, mean != true
        self._sums.add(rows)
        self._exact.add(np.stack([(live == true).all(axis=1), (mean == true).all(axis=1)], axis=1).astype(np.float64))
        places = (2 * np.arange(len(chosen)) + true) * BINS + bins_of(predictions[:, chosen].astype(np.float64))
        self._ranks.count(places)
        return Compared(truth, naive[None], known)

    def quality(self) -> Quality:
        """Return the figures."""
        sums, exact, ranks = self._sums, self._exact, self._ranks
        if not sums.samples:
            return Quality()
        usual_naive = _mean(sums.total(), _NAIVE_LOSS, _KNOWN)
        return Quality(
            self._figures(sums.recent(), exact.recent(), ranks.recent(), sums.recent_samples, usual_naive),
            self._figures(sums.total(), exact.total(), ranks.total(), sums.samples, usual_naive),
            self._figures(sums.fading(), exact.fading(), ranks.fading(), sums.fading_samples, usual_naive),
        )

    def _figures(
        self, sums: Float64Array, exact: Float64Array, ranks: Float64Array, samples: float, usual_naive: float
    ) -> Figures:
        live, averaged, naive = (_mean(sums, row, _KNOWN) for row in (_LIVE_KNOWN, _AVERAGED_KNOWN, _NAIVE_LOSS))
        true, predicted, hits = sums[_TRUE], sums[_PREDICTED], sums[_HIT]
        occurring = np.flatnonzero(true + predicted)
        areas = [ranking(*label).area for label in ranks.reshape(-1, 2, BINS)]
        known_areas = [area for area in areas if not math.isnan(area)]
        scores = 2 * hits[occurring] / (true + predicted)[occurring]
        measures = {
            "label_accuracy": 1.0 - float(sums[_WRONG].mean()) / samples,
            "subset_accuracy": float(exact[0]) / samples,
            "log_loss": float(sums[_LOSS].mean()) / samples,
            "roc_auc": sum(known_areas) / len(known_areas) if known_areas else math.nan,
            "brier": float(sums[_SQUARED].mean()) / samples,
            "macro_f1": float(scores.mean()) if len(occurring) else math.nan,
            "micro_f1": float(2 * hits.sum() / (true + predicted).sum()) if len(occurring) else math.nan,
            "averaged_label_accuracy": 1.0 - float(sums[_AVERAGED_WRONG].mean()) / samples,
            "averaged_subset_accuracy": float(exact[1]) / samples,
            "averaged_log_loss": float(sums[_AVERAGED_LOSS].mean()) / samples,
            "naive_log_loss": naive,
        }
        parts = {
            name: {
                "recall": float(hits[i] / true[i]) if true[i] else math.nan,
                "precision": float(hits[i] / predicted[i]) if predicted[i] else math.nan,
                "roc_auc": areas[i],
                "samples": float(true[i]),
            }
            for i, name in enumerate(self._names)
        }
        errors = Errors(live, averaged, naive, usual_naive, round(float(sums[_KNOWN, 0])))
        return Figures(round(samples), errors, measures, parts)

    def state(self) -> State:
        sums, exact, ranks = self._sums.state(), self._exact.state(), self._ranks.state()
        return {"sums": sums, "exact": exact, "ranks": ranks, "naive": self._naive.state()}

    def restore(self, state: State) -> None:
        self._sums.restore(state["sums"])
        self._exact.restore(state["exact"])
        self._ranks.restore(state["ranks"])
        self._naive.restore(state["naive"])


def log_losses(truth: Float64Array, probabilities: Float64Array, *, smallest: float) -> Float64Array:
    """Return the binary cross-entropy of each label, for probabilities at least *smallest* from 0 and 1; nan is wrong.

    >>> log_losses(np.array([[1.0, 0.0]]), np.array([[0.5, 0.5]]), smallest=1e-7).round(4).tolist()
    [[0.6931, 0.6931]]
    """
    p = np.where(np.isfinite(probabilities), probabilities, 1.0 - truth).clip(smallest, 1.0 - smallest)
    losses: Float64Array = -(truth * np.log(p) + (1.0 - truth) * np.log(1.0 - p))
    return losses


def _mean(sums: Float64Array, row: int, count: int) -> float:
    """Return the mean over samples and labels of the sums in *row*; nan without samples."""
    samples = float(sums[count, 0])
    return float(sums[row].mean()) / samples if samples else math.nan
