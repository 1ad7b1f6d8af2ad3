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
    """Learners that begin again with the samples after the drift, and learn them several times.

    The first starts once some samples are there, the next ones after twice as many each. A challenger learns the older
    half of its samples several times. On the newer half it predicts each sample before it learns it, as the present
    learner did. It takes that one's place if its mean loss is clearly smaller. Scales stay, so both losses have the
    same unit. All of it takes place within one review.
    """

    def __init__(self, settings: ChallengerSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._controls = surroundings.controls
        self._rows = surroundings.rows
        self._halves_of = 2 * surroundings.batch_rows
        self._trial = surroundings.controls.trial()
        self._since: int | None = None
        self._count = 0

    def react(self, drift: Drift, samples: int) -> bool:
        self._since, self._count = drift.samples, self._settings.samples
        return True

    def review(self, samples: int) -> None:
        if self._since is None or samples < self._since + self._count:
            return
        self._compare(self._count - self._count % self._halves_of, samples)
        self._count *= 2
        if self._count > self._settings.last_samples:
            self._since = None

    def _compare(self, count: int, samples: int) -> None:
        """Compare the present learner with one that learns the newest *count* rows; keep the better one."""
        rows = self._rows.newest(count)
        if not count or rows is None:
            return
        late = rows.take(slice(count // 2, None))
        present = self._mean_loss(late.predictions, late)
        predictions = self._trial.run(rows, passes=self._settings.passes, scored=count // 2)
        loss = self._mean_loss(predictions, late)
        promoted = loss < present * (1.0 - self._settings.better_by)
        if not promoted:
            self._trial.undo()
        event = "challenger_promoted" if promoted else "challenger_dismissed"
        log.info(event, always=True, samples=samples, loss=loss, loss_of_present=present, learned=count)

    def _mean_loss(self, predictions: Float64Array, rows: LearnedRows) -> float:
        return float(np.mean(self._controls.losses_of(predictions, rows.x, rows.y)))

    def close(self) -> None:
        """Do nothing."""

    def state(self) -> State:
        return {"since": self._since, "count": self._count}

    def restore(self, state: State) -> None:
        self._since, self._count = state["since"], state["count"]
