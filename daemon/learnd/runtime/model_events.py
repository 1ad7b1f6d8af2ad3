"""Changes of the model that are logged and counted: new classes, refused updates, rollbacks."""

import structlog

from learnd.observability.metrics import Metrics
from learnd.runtime.trained_model import TrainedModel

log = structlog.get_logger()


class ModelEvents:
    """The log events and metrics for changes of the model's counts since the last call."""

    def __init__(self, model: TrainedModel, metrics: Metrics) -> None:
        self._model = model
        self._metrics = metrics
        self._classes = 0
        self._refused = self._rollbacks = 0

    def begin(self) -> None:
        """Start from the counts of the restored model."""
        self._classes = len(self._model.classes())
        self._refused, self._rollbacks = self._model.refusals()
        self._metrics.classes.set(self._classes)

    def note(self, samples: int) -> bool:
        """Log and count the changes; return whether the model has a new class."""
        refused, rollbacks = self._model.refusals()
        if refused > self._refused:
            self._metrics.refused.inc(refused - self._refused)
            log.warning("updates_refused", count=refused - self._refused, samples=samples)
        if rollbacks > self._rollbacks:
            self._metrics.rollbacks.inc(rollbacks - self._rollbacks)
            log.error("rolled_back", count=rollbacks - self._rollbacks, samples=samples)
        self._refused, self._rollbacks = refused, rollbacks
        classes = len(self._model.classes())
        grown = classes != self._classes
        if grown:
            self._classes = classes
            self._metrics.classes.set(classes)
        return grown
