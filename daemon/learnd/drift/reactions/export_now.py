"""Reaction: an export as soon as possible."""

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import ExportNowSettings


class ExportNow(Momentary):
    """A request for an export, which still has to pass the gate."""

    def __init__(self, settings: ExportNowSettings, surroundings: Surroundings) -> None:
        self._export = surroundings.export

    def react(self, drift: Drift, samples: int) -> bool:
        self._export()
        return True
