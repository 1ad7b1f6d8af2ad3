"""The protocol of reactions, and what they can reach."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from learnd.core.review import Controls
from learnd.core.rows import NewestRows
from learnd.core.types import State
from learnd.drift.channel import Drift


class Reaction(Protocol):
    """A reaction to drift.

    `react` and `review` are called at reviews only: after a fixed number of learned samples, between two compiled
    calls. What they do to the model must follow from their arguments, their state and the model alone.
    """

    def react(self, drift: Drift, samples: int) -> bool:
        """React to *drift* after *samples* learned samples; return False if nothing was done."""
        ...

    def review(self, samples: int) -> None:
        """Continue or end what `react` began. Called at every review, before any `react`."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Momentary:
    """The part of a reaction that is over as soon as it is made."""

    def review(self, samples: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """Do nothing: there is no state."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of the daemon that reactions use.

    Attributes
    ----------
    controls : of the learner
    export : asks for an export as soon as possible
    rows : the newest learned rows, as many as any reaction needs
    batch_rows : number of samples per update
    name : of this instance
    """

    controls: Controls
    export: Callable[[], None]
    rows: NewestRows
    batch_rows: int
    name: str
