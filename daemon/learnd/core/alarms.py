"""The alarms of a batch, as they flow to the sinks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

SENSOR_FAULTS = ("", "stuck", "missing")
"""The faults of a sensor that alarms know, by their numbers; the first is none."""
NAMED_SHARES = 5
"""Features that an alarm names."""


def shares_of(parts: npt.NDArray[np.float64], names: Sequence[str]) -> dict[str, float]:
    """Return the largest *parts* as shares of the sum of all, by name; empty if all are 0.

    >>> shares_of(np.array([1.0, 3.0, 0.0]), ["a", "b", "c"])
    {'b': 0.75, 'a': 0.25}
    """
    total = float(parts.sum())
    if not total > 0.0:
        return {}
    largest = np.argsort(-parts, kind="stable")[:NAMED_SHARES]
    return {names[i]: round(float(parts[i]) / total, 3) for i in largest if parts[i] > 0.0}


@dataclass(frozen=True, slots=True)
class Alarms:
    """The alarms of a batch. Row i of every array belongs to sample i.

    Attributes
    ----------
    names : of the readings that are watched, and ``loss`` at the end
    probabilities : (n,), that something begins that was never seen; 0 within an episode, after its alarm
    raised : (n,), whether the onset head raises an alarm
    active : (n,), whether the state head is in alarm: it is not normal
    evidence : (n, len(names)), the parts of each name in the probability
    strengths : (n, len(names) - 1), the distance of each reading in alarm from normal, in thresholds; 0 for others
    faults : (n, len(names) - 1), the fault of each sensor: an index of `SENSOR_FAULTS`
    """

    names: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]
    raised: npt.NDArray[np.bool_]
    active: npt.NDArray[np.bool_]
    evidence: npt.NDArray[np.float64]
    strengths: npt.NDArray[np.float64]
    faults: npt.NDArray[np.int64]

    def spread(self, rows: npt.NDArray[np.bool_], follows: npt.NDArray[np.bool_]) -> "Alarms":
        """Return the alarms with further rows where *rows* is false.

        Where *follows* is true, a row has the alarms of the row before it, but raises none. The probability of the
        others is nan, and all else 0.
        """
        after = np.flatnonzero(follows)

        def wide(column: npt.NDArray[Any], fill: float = 0.0) -> npt.NDArray[Any]:
            spread = np.full((len(rows), *column.shape[1:]), fill, column.dtype)
            spread[rows] = column
            spread[after] = spread[after - 1]
            return spread

        raised = wide(self.raised)
        raised[after] = False
        others = (self.active, self.evidence, self.strengths, self.faults)
        return Alarms(self.names, wide(self.probabilities, np.nan), raised, *map(wide, others))

    def shares(self, row: int) -> dict[str, float]:
        """Return the features that contribute most to the alarm at *row*: to a new onset, else to the state."""
        return shares_of(self.evidence[row] if self.raised[row] else self.strengths[row], self.names)

    def sensor_faults(self, row: int) -> dict[str, str]:
        """Return the fault of each faulty sensor at *row*, by its name."""
        return {self.names[i]: SENSOR_FAULTS[self.faults[row, i]] for i in np.flatnonzero(self.faults[row])}
