"""Reaction: a challenger, which replaces the learner if it predicts better."""

import numpy as np
import structlog

from learnd.core.rows import LearnedRows
from learnd.core.types import Float64Array, State
from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Surroundings
from learnd.drift.reactions.settings import ChallengerSettings

log = structlog.get_logger()


class Challenger:
    """A learner that begins again with the samples after the drift, and learns them several times.

    It starts some time after the drift, once these samples are there, and learns them within one review. On the newer
    half it predicts each sample before it learns it, as the present learner did. It takes the place of the present
    learner if its mean loss is clearly smaller. Scales stay, so both losses have the same unit.
    """

    def __init__(self, settings: ChallengerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._controls = surroundings.controls
        self._rows = surroundings.rows
        rows = surroundings.batch_rows
        self._count = max(settings.samples // (2 * rows), 1) * 2 * rows
        self._trial = surroundings.controls.trial()
        self._due: int | None = None

    def react(self, drift: Drift, samples: int) -> bool:
        if self._due is not None:
            return False
        self._due = drift.samples + self._count
        return True

    def review(self, samples: int) -> None:
        if self._due is None or samples < self._due:
            return
        self._due = None
        rows = self._rows.newest(self._count)
        if rows is None:
            return
        scored = self._count // 2
        late = rows.take(slice(len(rows) - scored, None))
        present = self._mean_loss(late.predictions, late)
        loss = self._mean_loss(self._trial.run(rows, passes=self._settings.passes, scored=scored), late)
        promoted = loss < present * (1.0 - self._settings.better_by)
        if not promoted:
            self._trial.undo()
        event = "challenger_promoted" if promoted else "challenger_dismissed"
        log.info(event, always=True, samples=samples, loss=loss, loss_of_present=present, learned=len(rows))

    def _mean_loss(self, predictions: Float64Array, rows: LearnedRows) -> float:
        return float(np.mean(self._controls.losses_of(predictions, rows.x, rows.y)))

    def close(self) -> None:
        """Do nothing."""

    def state(self) -> State:
        return {"due": self._due}

    def restore(self, state: State) -> None:
        self._due = state["due"]
