"""The chain of reactions, with the limits on how often each is made."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from learnd.core.types import State
from learnd.drift.channel import Drift
from learnd.drift.detectors.settings import FEATURES, LOSS
from learnd.drift.reactions.reaction import Reaction
from learnd.drift.reactions.settings import ReactionSettings


def follows(on: Sequence[str], name: str) -> bool:
    """Return whether a detector or reaction with the option *on* concerns the series *name*.

    >>> follows(["features"], "flow"), follows(["features"], "loss"), follows(["flow"], "flow")
    (True, False, True)
    """
    return name in on or (FEATURES in on and name != LOSS)


@dataclass(slots=True)
class Limits:
    """The limits of a reaction, checked against the sample counts of past drifts and reactions."""

    settings: ReactionSettings
    drifts: list[int] = field(default_factory=list)
    made: list[int] = field(default_factory=list)

    def allow(self, samples: int) -> bool:
        """Count a drift at *samples*; return whether the reaction may be made."""
        options = self.settings
        since = samples - options.within_samples
        self.drifts = [at for at in self.drifts if at > since]
        # More are not needed to know that there are enough.
        self.drifts = [*self.drifts, samples][-options.from_detection :]
        if len(self.drifts) < options.from_detection:
            return False
        if self.made and samples - self.made[-1] < options.cool_down_samples:
            return False
        recent = [at for at in self.made if at > since]
        return options.at_most is None or len(recent) < options.at_most

    def note(self, samples: int) -> None:
        """Count a reaction at *samples*."""
        self.made = [*self.made, samples][-(self.settings.at_most or 1) :]


@dataclass(frozen=True, slots=True)
class Link:
    """A reaction in the chain, with its limits."""

    settings: ReactionSettings
    reaction: Reaction
    limits: Limits


class Chain:
    """The configured reactions, in order."""

    def __init__(self, links: Sequence[tuple[ReactionSettings, Reaction]]) -> None:
        self._links = [Link(settings, reaction, Limits(settings)) for settings, reaction in links]

    @property
    def form(self) -> list[str]:
        """The kinds of the reactions, which the state depends on."""
        return [link.settings.kind for link in self._links]

    def review(self, samples: int) -> None:
        """Continue or end what earlier reactions began."""
        for link in self._links:
            link.reaction.review(samples)

    def react(self, drift: Drift, samples: int) -> list[str]:
        """React to *drift* at the review after *samples*; return the kinds of the reactions that were made."""
        made = []
        for link in self._links:
            if not follows(link.settings.on, drift.on) or not link.limits.allow(samples):
                continue
            if link.reaction.react(drift, samples):
                link.limits.note(samples)
                made.append(link.settings.kind)
        return made

    def close(self) -> None:
        """Release everything that the reactions hold."""
        for link in self._links:
            link.reaction.close()

    def state(self) -> State:
        return {
            "links": [
                {"drifts": link.limits.drifts, "made": link.limits.made, "reaction": link.reaction.state()}
                for link in self._links
            ]
        }

    def restore(self, state: State) -> None:
        for link, saved in zip(self._links, state["links"], strict=True):
            link.limits.drifts, link.limits.made = list(saved["drifts"]), list(saved["made"])
            link.reaction.restore(saved["reaction"])
