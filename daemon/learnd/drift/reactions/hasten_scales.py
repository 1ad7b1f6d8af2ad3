"""Reaction: scales that follow faster."""

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import HastenScalesSettings


class HastenScales(Momentary):
    """Scales of inputs and targets that weigh new readings as if there had been only few. The weight falls again."""

    def __init__(self, settings: HastenScalesSettings, surroundings: Surroundings) -> None:
        self._memory = float(settings.memory_samples)
        self._controls = surroundings.controls

    def react(self, drift: Drift, samples: int) -> bool:
        return self._controls.hasten_scales(self._memory)
