"""Reaction: the weights of an earlier time, if they predict the newest samples better."""

import structlog

from learnd.core.tensors import Array
from learnd.core.types import State
from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Surroundings
from learnd.drift.reactions.settings import GoBackSettings

log = structlog.get_logger()


class GoBack:
    """Copies of the weights that an export would have held at fixed sample counts.

    At a drift, each copy is evaluated on the newest samples. If one is clearly better than the weights that learn, it
    replaces them. Those have just learned these samples, so a copy must be better in earnest.
    """

    def __init__(self, settings: GoBackSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._controls = surroundings.controls
        self._rows = surroundings.rows
        self._copies: list[tuple[int, tuple[Array, ...]]] = []

    def react(self, drift: Drift, samples: int) -> bool:
        rows = self._rows.newest(self._settings.samples)
        if rows is None or not self._copies:
            return False
        present = self._mean_loss(self._controls.weights(), rows.x, rows.y)
        losses = [self._mean_loss(weights, rows.x, rows.y) for _, weights in self._copies]
        best = min(range(len(losses)), key=losses.__getitem__)
        if not losses[best] < present * (1.0 - self._settings.better_by):
            return False
        at_samples, weights = self._copies[best]
        self._controls.put(weights)
        log.info("went_back", always=True, to_samples=at_samples, samples=samples, loss=losses[best], before=present)
        return True

    def _mean_loss(self, weights: tuple[Array, ...], x: Array, y: Array) -> float:
        return float(self._controls.losses(weights, x, y).mean())

    def review(self, samples: int) -> None:
        every = self._settings.copy_every_samples
        newest = self._copies[-1][0] if self._copies else 0
        if samples // every > newest // every:
            self._copies = [*self._copies, (samples, self._controls.published())][-self._settings.copies :]

    def close(self) -> None:
        """Do nothing."""

    def state(self) -> State:
        return {"copies": [[samples, list(weights)] for samples, weights in self._copies]}

    def restore(self, state: State) -> None:
        self._copies = [(samples, tuple(weights)) for samples, weights in state["copies"]]
