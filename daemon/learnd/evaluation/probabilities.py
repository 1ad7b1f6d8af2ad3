"""How good class probabilities are: how well they rank samples (ROC AUC), and whether they mean what they say."""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from learnd.core.types import Float64Array, State
from learnd.evaluation.block_sums import WINDOW_SAMPLES, BlockSums

MOST_RANKED = 12
"""Maximum number of classes whose samples are ranked: the first ones. The figure is the mean over them."""
BINS = 200
"""Number of bins of a probability p, evenly spaced in asinh(log(p / (1 - p))). A bin is 0.009 wide at 0.5, a sixth of p
at 0.01 and a third of p at 0.0001, so that rare classes are ranked too."""
_LARGEST_LOGIT = 20.0
_SCALE = BINS / (2.0 * math.asinh(_LARGEST_LOGIT))
CALIBRATION_BINS = 15
"""Number of equal bins of the highest probability, as in Guo et al. (2017)."""


class Ranking(NamedTuple):
    """The area under a ROC curve from counts in bins.

    Attributes
    ----------
    area : the probability that a sample of the class has a higher probability than another sample; ties count half
    error : largest possible difference from the area without bins
    """

    area: float
    error: float


class ProbabilityFigures(NamedTuple):
    """Figures of live probabilities: the mean ROC AUC of the classes, and the expected calibration error."""

    roc_auc: float
    calibration_error: float


class ProbabilityEvaluation:
    """Counts of probabilities in bins: recent, fading, and since the start. Part of the checkpoint.

    Parameters
    ----------
    outputs : number of values in one prediction
    """

    def __init__(self, outputs: int, *, window_samples: int = WINDOW_SAMPLES) -> None:
        self._ranked = min(outputs, MOST_RANKED)
        # Per class, the samples of other classes and those of the class, by bin; and one place for what counts nowhere.
        self._ranks = BlockSums((self._ranked * 2 * BINS + 1,), window_samples=window_samples)
        # Per bin: samples, the sum of their probabilities, and how many were right.
        self._bins = BlockSums((3, CALIBRATION_BINS), window_samples=window_samples)

    def observe(self, predictions: Float64Array, labels: npt.NDArray[np.int64]) -> None:
        """Count the *predictions*, shape (n, outputs), of samples with the class numbers *labels*."""
        count = len(labels)
        probabilities = predictions[:, : self._ranked]
        classes = np.arange(self._ranked)
        places = (2 * classes + (labels[:, None] == classes)) * BINS + bins_of(probabilities)
        # A class that has not appeared yet has the probability 0. Nobody has ranked it.
        self._ranks.count(np.where(probabilities > 0.0, places, self._ranked * 2 * BINS))
        highest = predictions.max(axis=1)
        highest = np.where(np.isfinite(highest), np.minimum(highest, 1.0), 0.0)
        bins = np.minimum((highest * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
        rows = np.zeros((count, 3, CALIBRATION_BINS))
        rows[np.arange(count), :, bins] = np.stack(
            [np.ones(count), highest, predictions.argmax(axis=1) == labels], axis=1
        )
        self._bins.add(rows)

    def recent(self) -> ProbabilityFigures:
        """Return the figures over the window."""
        return self._figures(self._ranks.recent(), self._bins.recent())

    def fading(self) -> ProbabilityFigures:
        """Return the figures with fading weights."""
        return self._figures(self._ranks.fading(), self._bins.fading())

    def total(self) -> ProbabilityFigures:
        """Return the figures since the start."""
        return self._figures(self._ranks.total(), self._bins.total())

    def _figures(self, ranks: Float64Array, bins: Float64Array) -> ProbabilityFigures:
        by_class = ranks[:-1].reshape(self._ranked, 2, BINS)
        areas = [ranking(negative, positive).area for negative, positive in by_class]
        known = [area for area in areas if not math.isnan(area)]
        samples, probabilities, right = bins
        total = float(samples.sum())
        return ProbabilityFigures(
            sum(known) / len(known) if known else math.nan,
            float(np.abs(right - probabilities).sum()) / total if total else math.nan,
        )

    def state(self) -> State:
        return {"ranks": self._ranks.state(), "bins": self._bins.state()}

    def restore(self, state: State) -> None:
        self._ranks.restore(state["ranks"])
        self._bins.restore(state["bins"])


def bins_of(probabilities: Float64Array) -> npt.NDArray[np.int64]:
    """Return the bin of each probability, from 0 to `BINS` - 1.

    >>> bins_of(np.array([0.0, 0.5, 1.0])).tolist()
    [0, 100, 199]
    """
    inside = np.where(np.isfinite(probabilities), probabilities, 0.0).clip(1e-9, 1.0 - 1e-9)
    places = np.arcsinh(np.log(inside / (1.0 - inside))) * _SCALE + BINS / 2.0
    bins: npt.NDArray[np.int64] = np.floor(places).astype(np.int64).clip(0, BINS - 1)
    return bins


def ranking(negative: Float64Array, positive: Float64Array) -> Ranking:
    """Return the area under the ROC curve from the counts of each bin; nan if either kind of sample is missing.

    >>> ranking(np.array([2.0, 1.0]), np.array([0.0, 1.0]))
    Ranking(area=0.8333333333333334, error=0.16666666666666666)
    """
    pairs = float(negative.sum() * positive.sum())
    if not pairs:
        return Ranking(math.nan, math.nan)
    below = np.cumsum(negative) - negative
    tied = float((positive * negative).sum()) / 2.0
    return Ranking((float((positive * below).sum()) + tied) / pairs, tied / pairs)
