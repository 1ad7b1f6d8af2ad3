"""The quality of the model, computed about once per second: metrics, and warnings where it is worse than naive."""

import math

import structlog

from learnd.core.protocols import Evaluator
from learnd.core.quality import WORSE_MARGIN, Errors, Quality
from learnd.core.schedule import Clock
from learnd.core.types import Published
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
    """

    def __init__(self, evaluator: Evaluator, metrics: Metrics, *, clock: Clock) -> None:
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
        self._metrics.quality(recent, export_skill=export_skill)
        errors = recent.errors
        if recent.samples and self.quality.total.errors.samples >= LEAST_SAMPLES:
            for weights, error in (("live", errors.live), ("averaged", errors.averaged)):
                self._note(weights, error, errors.naive, errors)
        if published is not None and published.recent_samples >= LEAST_PUBLISHED_SAMPLES:
            self._note("published", published.error, published.naive_error, errors)
        return self.quality

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
