"""One series of numbers that a drift detector observes, in blocks."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from learnd.core.types import Float64Array, Int64Array, State
from learnd.drift.detectors.settings import LOSS, DetectorSettings

GROUP_BLOCKS = 16
"""Number of blocks in a group. The centre and spread of the first group are the detector's zero and unit."""
CALMER = 3.0
"""Ratio of the unit to the spread of a later group, from which that group gives the unit: the losses of a young model
fall, and a unit from its beginning would hide a drift."""
NEWEST_BLOCKS = 8
"""Number of newest blocks whose mean is the one after a change."""
USUAL_BLOCKS = 64
"""Number of blocks over which the mean before them fades: a young model's losses must not count for long."""
LEFT_OUT = 2
"""Number of blocks of a group that do not count for its centre and spread: a drift may begin in it. The spread of the
others is too small by about the root of 2."""
_FURTHEST = 10.0
"""Largest number for a detector, in spreads: one absurd block is no drift."""
_SMALLEST_SHARE = 1e-6


class Detector(Protocol):
    """A drift detector for a series of numbers."""

    def observe(self, value: float) -> bool:
        """Observe *value*; return whether there is drift."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...

    def state(self) -> State: ...

    def fits(self, state: State) -> bool:
        """Return whether `restore` can take over *state*."""
        ...

    def restore(self, state: State) -> None: ...


@dataclass(frozen=True, slots=True)
class Drift:
    """A drift that was detected.

    Attributes
    ----------
    samples : number of learned samples at which it was detected
    on : ``loss``, or the name of a reading
    detector : kind of the detector
    statistic : of the blocks: ``mean`` or ``spread``
    before, after : the fading mean of the statistic before the newest `NEWEST_BLOCKS` blocks, and the mean over these
    """

    samples: int
    on: str
    detector: str
    statistic: str
    before: float
    after: float


class Channel:
    """A detector with its series: the losses, or one reading.

    A block's number is in units of earlier blocks, because detectors assume numbers of about 1. After a change the
    channel begins again, and takes its unit from what follows. Losses count by their signed root: a squared error has a
    long tail.
    """

    def __init__(self, name: str, settings: DetectorSettings, detector: Detector) -> None:
        self.name = name
        self._kind = settings.kind
        self._size = settings.block
        self._spreads = settings.statistic == "spread"
        self._statistic = settings.statistic
        self._least_change = settings.least_change if name == LOSS else 0.0
        self._direction = settings.direction or ("up" if name == LOSS else "both")
        self._detector = detector
        self._values: list[float] = []
        self._numbers: deque[float] = deque(maxlen=NEWEST_BLOCKS)
        self._begin([])

    def _restart(self, group: list[float]) -> None:
        """Begin again with the detector and its unit, from the numbers of *group* on."""
        self._detector.reset()
        self._reference: tuple[float, float] | None = None
        self._group = group

    def _begin(self, group: list[float]) -> None:
        """Begin again with everything."""
        self._restart(group)
        self._usual, self._older = 0.0, 0
        self._newest: deque[float] = deque()

    @property
    def form(self) -> list[str | int]:
        """The options that the state depends on."""
        return [self.name, self._kind, self._size, self._statistic]

    def observe(self, values: Float64Array, samples: Int64Array) -> list[Drift]:
        """Observe *values* without gaps; return what was detected.

        *samples* are the numbers of learned samples, one for each of the values.
        """
        if not len(values):
            return []
        waiting = len(self._values)
        joined = np.concatenate([self._values, values])
        count = len(joined) // self._size
        self._values = joined[count * self._size :].tolist()
        if not count:
            return []
        blocks = joined[: count * self._size].reshape(count, self._size)
        shown = blocks.std(axis=1) if self._spreads else blocks.mean(axis=1)
        numbers = shown
        if self.name == LOSS:
            roots = np.sign(blocks) * np.sqrt(np.abs(blocks))
            numbers = roots.std(axis=1) if self._spreads else roots.mean(axis=1)
        ends = samples[np.arange(1, count + 1) * self._size - 1 - waiting]
        found = []
        for number, raw, end in zip(numbers.tolist(), shown.tolist(), ends.tolist(), strict=True):
            drift = self._observe_block(number, raw, end)
            if drift is not None:
                found.append(drift)
        return found

    def _observe_block(self, number: float, raw: float, samples: int) -> Drift | None:
        self._remember(raw)
        self._numbers.append(number)
        self._group.append(number)
        changed = self._reference is not None and self._detector.observe(self._scaled(number))
        if len(self._group) == GROUP_BLOCKS:
            changed |= self._end_group()
        if not changed:
            return None
        before, after = self._usual, sum(self._newest) / len(self._newest)
        if abs(after - before) < self._least_change * abs(before):
            # The mean before stays, so that a drift in many small steps adds up.
            self._restart(list(self._numbers))
            return None
        counts = self._direction in ("both", "up" if after > before else "down")
        # A change that does not count is over: what is newest shows how it is from now on.
        self._begin([] if counts else list(self._numbers))
        if not counts:
            return None
        return Drift(samples, self.name, self._kind, self._statistic, before, after)

    def _remember(self, raw: float) -> None:
        self._newest.append(raw)
        if len(self._newest) > NEWEST_BLOCKS:
            self._older += 1
            self._usual += (self._newest.popleft() - self._usual) / min(self._older, USUAL_BLOCKS)

    def _end_group(self) -> bool:
        """Take the group as the reference if it is the first, or much calmer; return whether that shows a drift."""
        group, self._group = self._group, []
        reference = _reference(group)
        if self._reference is not None and reference[1] > self._reference[1] / CALMER:
            return False
        self._detector.reset()
        self._reference = reference
        changes = [self._detector.observe(self._scaled(each)) for each in group]
        return any(changes)

    def _scaled(self, number: float) -> float:
        assert self._reference is not None
        centre, spread = self._reference
        return min(max((number - centre) / spread, -_FURTHEST), _FURTHEST)

    def state(self) -> State:
        return {
            "values": list(self._values),
            "reference": self._reference,
            "group": list(self._group),
            "numbers": list(self._numbers),
            "usual": self._usual,
            "older": self._older,
            "newest": list(self._newest),
            "detector": self._detector.state(),
        }

    def fits(self, state: State) -> bool:
        """Return whether the detector can take over *state*."""
        return self._detector.fits(state["detector"])

    def restore(self, state: State) -> None:
        self._values, self._group = list(state["values"]), list(state["group"])
        self._reference = None if state["reference"] is None else tuple(state["reference"])
        self._numbers = deque(state["numbers"], maxlen=NEWEST_BLOCKS)
        self._usual, self._older = state["usual"], state["older"]
        self._newest = deque(state["newest"])
        self._detector.restore(state["detector"])


def _reference(numbers: list[float]) -> tuple[float, float]:
    """Return the centre of *numbers* and their spread, without the two that are farthest from their median.

    >>> centre, spread = _reference([1.0, 2.0, 3.0, 4.0, 5.0, 90.0, 90.0])
    >>> centre, round(spread, 6)
    (3.0, 2.0)
    """
    values = np.array(numbers)
    distances = np.abs(values - np.median(values))
    inner = values[np.argsort(distances, kind="stable")[: len(values) - LEFT_OUT]]
    centre = float(inner.mean())
    return centre, max(float(inner.std()) * math.sqrt(2.0), _SMALLEST_SHARE * abs(centre), 1e-300)
