"""Reaction: a higher learning rate for some time."""

from learnd.core.types import State
from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Surroundings
from learnd.drift.reactions.settings import RaiseRateSettings


class RaiseRate:
    """A factor on the learning rates of all optimizers. Another drift meanwhile begins the time again."""

    def __init__(self, settings: RaiseRateSettings, surroundings: Surroundings) -> None:
        self._factor = settings.factor
        self._samples = settings.samples
        self._controls = surroundings.controls
        self._until: int | None = None

    def react(self, drift: Drift, samples: int) -> bool:
        self._until = samples + self._samples
        self._controls.scale_rates(self._factor)
        return True

    def review(self, samples: int) -> None:
        if self._until is not None and samples >= self._until:
            self._until = None
            self._controls.scale_rates(1.0)

    def close(self) -> None:
        """Do nothing."""

    def state(self) -> State:
        return {"until": self._until}

    def restore(self, state: State) -> None:
        """Raise the rate again, because a checkpoint does not hold it."""
        self._until = state["until"]
        self._controls.scale_rates(1.0 if self._until is None else self._factor)
