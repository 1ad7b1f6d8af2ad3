"""Reaction: less weight for the samples that are replayed, or none of them."""

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import WeighReplaySettings


class WeighReplay(Momentary):
    """Less weight for stored samples, or an empty store. In the mode ``auto`` this concerns the reservoir."""

    def __init__(self, settings: WeighReplaySettings, surroundings: Surroundings) -> None:
        self._weight = settings.weight
        self._controls = surroundings.controls

    def react(self, drift: Drift, samples: int) -> bool:
        return self._controls.weigh_replay(self._weight)
