"""Reaction: averages of the weights that begin again."""

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import RestartAveragesSettings


class RestartAverages(Momentary):
    """Averages without the weights from before the drift. They are short at first, and grow as those of a new model."""

    def __init__(self, settings: RestartAveragesSettings, surroundings: Surroundings) -> None:
        self._controls = surroundings.controls

    def react(self, drift: Drift, samples: int) -> bool:
        return self._controls.restart_averages()
