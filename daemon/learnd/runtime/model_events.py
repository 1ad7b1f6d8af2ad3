"""Changes of the model that are logged and counted: new classes, refused updates, rollbacks."""

import math
import time
from collections.abc import Callable

import structlog

from learnd.core.snapshot import ChosenWeights
from learnd.observability.metrics import Metrics
from learnd.runtime.trained_model import TrainedModel

log = structlog.get_logger()

MIXTURE_EVERY_S = 1.0
"""Time between two looks at the mixture. Reading it takes longer than learning a sample."""


class ModelEvents:
    """The log events and metrics for changes of the model's counts since the last call."""

    def __init__(self, model: TrainedModel, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._metrics = metrics
        self._classes = 0
        self._refused = self._rollbacks = self._drifts = 0
        self._chosen = ""
        self._clock = clock
        self._next_s = 0.0

    def begin(self) -> None:
        """Start from the counts of the restored model."""
        self._classes = len(self._model.classes())
        self._refused, self._rollbacks = self._model.refusals()
        self._metrics.classes.set(self._classes)
        mixture = self._model.mixture()
        self._drifts = mixture.drifts if mixture is not None else 0
        chosen = self._model.chosen()
        self._chosen = chosen.name if chosen is not None else ""

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
        self._note_mixture(samples)
        classes = len(self._model.classes())
        grown = classes != self._classes
        if grown:
            self._classes = classes
            self._metrics.classes.set(classes)
        return grown

    def _note_mixture(self, samples: int) -> None:
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + MIXTURE_EVERY_S
        mixture, chosen = self._model.mixture(), self._model.chosen()
        if chosen is not None:
            self._note_choice(chosen, samples)
        if mixture is None:
            if chosen is None:
                self._next_s = math.inf
            return
        self._metrics.set_mixture(mixture)
        if mixture.drifts > self._drifts:
            self._metrics.drifts.inc(mixture.drifts - self._drifts)
            log.warning(
                "drift",
                samples=samples,
                drifts=mixture.drifts,
                note="recent samples contradict older ones, so the older ones are no longer replayed",
            )
            self._drifts = mixture.drifts

    def _note_choice(self, chosen: ChosenWeights, samples: int) -> None:
        self._metrics.set_chosen(chosen)
        if chosen.name != self._chosen:
            losses = {name: round(loss, 6) for name, loss in chosen.losses.items()}
            log.info("weights_chosen", weights=chosen.name, before=self._chosen, losses=losses, samples=samples)
            self._chosen = chosen.name
