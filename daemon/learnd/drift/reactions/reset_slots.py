"""Reaction: optimizers without the memory of earlier gradients."""

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import ResetSlotsSettings


class ResetSlots(Momentary):
    """The slots of all optimizers, such as Adam's moments, as they are before anything is learned."""

    def __init__(self, settings: ResetSlotsSettings, surroundings: Surroundings) -> None:
        self._reset = surroundings.controls.slot_reset()

    def react(self, drift: Drift, samples: int) -> bool:
        return self._reset()
