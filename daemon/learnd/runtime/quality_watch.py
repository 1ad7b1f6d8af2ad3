"""The quality of the model, computed about once per second: metrics, and warnings.

It warns where the model is worse than naive, and where its intervals do not cover what they should.
"""

import math

import structlog

from learnd.core.protocols import Evaluator
from learnd.core.quality import WORSE_MARGIN, Errors, Quality
from learnd.core.schedule import Clock
from learnd.core.snapshot import Published
from learnd.observability.metrics import Metrics

log = structlog.get_logger()

EVERY_S = 1.0
LEAST_SAMPLES = 1000
"""Number of evaluated samples before a model is called worse than naive: a new model is."""
LEAST_PUBLISHED_SAMPLES = 200
"""The same for an export: the number of samples that arrived after it."""


class QualityWatch:
    """The newest figures. Each change from better to worse than naive, or back, is one log event.

    Figures are not computed at every batch: that takes as long as learning some samples.

    Parameters
    ----------
    coverage : that of the intervals; None: there are none
    """

    def __init__(self, evaluator: Evaluator, metrics: Metrics, *, clock: Clock, coverage: float | None = None) -> None:
        self._coverage = coverage
        self._off_target = False
        self._evaluator = evaluator
        self._metrics = metrics
        self._clock = clock
        self._next_s = -math.inf
        self._worse: set[str] = set()
        self.quality = Quality()
        self.published: Published | None = None
        """The errors of the newest export."""

    def due(self) -> bool:
        """Return whether the figures are more than `EVERY_S` old."""
        return self._clock() >= self._next_s

    def refresh(self, published: Published | None) -> Quality:
        """Return the figures as of now; also set the metrics, and log a change of state."""
        self._next_s = self._clock() + EVERY_S
        self.quality, self.published = self._evaluator.quality(), published
        recent = self.quality.recent
        export_skill = published.skill if published is not None else math.nan
        self._metrics.quality(recent, self.quality.fading, export_skill=export_skill)
        errors = recent.errors
        if recent.samples and self.quality.total.errors.samples >= LEAST_SAMPLES:
            for weights, error in (("live", errors.live), ("averaged", errors.averaged)):
                self._note(weights, error, errors.naive, errors)
            self._note_coverage(recent.measures.get("interval_coverage", math.nan))
        if published is not None and published.recent_samples >= LEAST_PUBLISHED_SAMPLES:
            self._note("published", published.error, published.naive_error, errors)
        return self.quality

    def _note_coverage(self, share: float) -> None:
        """Log the change if the intervals have come to cover far more or less than they should, or no longer do."""
        if self._coverage is None:
            return
        difference = abs(share - self._coverage)
        figures = {"coverage": self._coverage, "covered": round(share, 4)}
        if not self._off_target and difference > tolerated_difference(self._coverage):
            self._off_target = True
            note = (
                "over the last 1000 samples, intervals are too wide or too narrow; the errors are changing all the time"
            )
            log.warning("interval_coverage_off", always=True, **figures, note=note)
        elif self._off_target and difference < tolerated_difference(self._coverage) / 2.0:
            self._off_target = False
            log.info("interval_coverage_restored", always=True, **figures)

    def _note(self, weights: str, error: float, naive_error: float, errors: Errors) -> None:
        """Log the change if *weights* have become worse than naive, or no longer are."""
        figures = {"weights": weights, "error": round(error, 6), "naive_error": round(naive_error, 6)}
        worse = errors.worse_than_naive(error, margin=WORSE_MARGIN, naive=naive_error)
        if weights not in self._worse and worse:
            self._worse.add(weights)
            note = "over the last 1000 samples, a naive forecast predicts better; see the model's skill in the docs"
            log.warning("worse_than_naive", always=True, **figures, note=note)
        elif weights in self._worse and error <= naive_error:
            self._worse.discard(weights)
            log.info("no_longer_worse_than_naive", always=True, **figures)


def tolerated_difference(coverage: float) -> float:
    """Return how far the recent coverage may be from *coverage*: half of the share outside, from 0.02 to 0.05.

    >>> [round(tolerated_difference(coverage), 3) for coverage in (0.5, 0.9, 0.95, 0.99)]
    [0.05, 0.05, 0.025, 0.02]
    """
    return min(0.05, max(0.02, (1.0 - coverage) / 2.0))
