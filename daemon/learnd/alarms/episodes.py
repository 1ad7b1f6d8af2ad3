"""The alarms as events: each with an identifier, a beginning, a peak and an end."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from learnd.core.alarms import SENSOR_FAULTS, shares_of
from learnd.core.types import BoolArray, Float64Array, Int64Array, Samples, State

Severity = Literal["minor", "major", "critical"]
MAJOR, CRITICAL = 2.0, 4.0
"""An alarm is major from twice its threshold, and critical from four times."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """One alarm, as its newest event describes it.

    Attributes
    ----------
    id : the topic, partition and offset of the record at which it began, and the head; for a sensor also its name
    head : ``state``: it is not normal; ``onset``: something begins that was never seen; ``sensor``: a sensor is faulty
    phase : ``began``; ``ended``; an alarm of the onset head is a moment and has only ``began``
    key : the key of the records
    began_s, peak_s, ended_s : event times in seconds since 1970 UTC; the end is None while it lasts
    records : records so far
    strength : at the peak, in units of the threshold
    severity : ``minor``, ``major`` or ``critical``
    features : the features that contribute most at the peak, with their shares of 1
    accepted : the present level was accepted as the new normal, which ended the alarm
    fault : of the sensor: ``stuck`` or ``missing``; None for other heads
    """

    id: str
    head: Literal["state", "onset", "sensor"]
    phase: Literal["began", "ended"]
    key: str
    began_s: float
    peak_s: float
    ended_s: float | None
    records: int
    strength: float
    severity: Severity
    features: Mapping[str, float]
    accepted: bool = False
    fault: str | None = None

    def as_line(self) -> dict[str, Any]:
        """Return the alarm as the alarms sink writes it."""
        return asdict(self)


def severity_of(strength: float) -> Severity:
    """Return how severe an alarm of *strength* thresholds is.

    >>> severity_of(1.2), severity_of(2.0), severity_of(9.9)
    ('minor', 'major', 'critical')
    """
    if strength >= CRITICAL:
        return "critical"
    return "major" if strength >= MAJOR else "minor"


def identifier(samples: Samples, row: int, head: str) -> str:
    """Return the identifier of an alarm of *head* that begins at *row*."""
    origin = samples.origins[row]
    return f"{origin.topic}/{origin.partition}/{samples.offsets[row]}/{head}"


def onset_alarms(
    samples: Samples, raised: BoolArray, evidence: Float64Array, strengths: Float64Array, names: Sequence[str]
) -> list[tuple[int, Alarm]]:
    """Return the alarms of the onset head, one for each row of *raised*, each with its row.

    Parameters
    ----------
    evidence : (n, len(names)), the contributions
    strengths : (n,), the evidence in thresholds
    """
    found: list[tuple[int, Alarm]] = []
    for row in np.flatnonzero(raised).tolist():
        key, time_s, strength = str(samples.keys[row]), float(samples.times_s[row]), float(strengths[row])
        shares, severity = shares_of(evidence[row], names), severity_of(strength)
        name = identifier(samples, row, "onset")
        found.append((row, Alarm(name, "onset", "began", key, time_s, time_s, time_s, 1, strength, severity, shares)))
    return found


class Episodes:
    """The alarms of the state head that have begun and not ended, by key."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._open: dict[str, Alarm] = {}

    def __len__(self) -> int:
        return len(self._open)

    def observe(
        self, samples: Samples, alarms: BoolArray, strengths: Float64Array, accepted: BoolArray
    ) -> list[tuple[int, Alarm]]:
        """Return the alarms that begin or end with these rows, in order, each with its row.

        Parameters
        ----------
        alarms : (n,), whether the key of each row is in alarm
        strengths : (n, columns), the distances in thresholds; 0 for columns without alarm
        accepted : (n,), whether an alarm ended at this row because its level is the new normal
        """
        events: list[tuple[int, Alarm]] = []
        begins = np.flatnonzero(alarms)
        row = 0
        while row < len(alarms):
            if not self._open:  # on to the next row in alarm: almost all rows are not
                place = np.searchsorted(begins, row)
                if place == len(begins):
                    break
                row = int(begins[place])
            key = str(samples.keys[row])
            alarm = self._open.get(key)
            if alarms[row]:
                self._open[key] = continued = self._with(alarm, samples, row, strengths[row])
                if alarm is None:
                    events.append((row, continued))
            elif alarm is not None:
                ended_s = float(samples.times_s[row])
                ended = replace(alarm, phase="ended", ended_s=ended_s, accepted=bool(accepted[row]))
                events.append((row, ended))
                del self._open[key]
            row += 1
        return events

    def drop(self, key: str) -> None:
        """Drop the open alarm of *key*."""
        self._open.pop(key, None)

    def _with(self, alarm: Alarm | None, samples: Samples, row: int, strengths: Float64Array) -> Alarm:
        """Return *alarm* with one more row, or a new one."""
        strength, time_s = float(strengths.max()), float(samples.times_s[row])
        if alarm is not None and strength <= alarm.strength:
            return replace(alarm, records=alarm.records + 1)
        shares, severity = shares_of(strengths, self._names), severity_of(strength)
        if alarm is None:
            key = str(samples.keys[row])
            name = identifier(samples, row, "state")
            return Alarm(name, "state", "began", key, time_s, time_s, None, 1, strength, severity, shares)
        return replace(
            alarm, records=alarm.records + 1, peak_s=time_s, strength=strength, severity=severity, features=shares
        )

    def state(self) -> State:
        return {"open": [alarm.as_line() for alarm in self._open.values()]}

    def restore(self, state: State) -> None:
        self._open = {line["key"]: Alarm(**line) for line in state["open"]}


class SensorFaults:
    """The faults of sensors that have begun and not ended, by key and sensor."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._open: dict[tuple[str, str], Alarm] = {}

    def __len__(self) -> int:
        return len(self._open)

    def observe(self, samples: Samples, faults: Int64Array) -> list[tuple[int, Alarm]]:
        """Return the faults that begin or end with these rows, in order, each with its row.

        Parameters
        ----------
        faults : (n, columns), indices of `SENSOR_FAULTS`
        """
        events: list[tuple[int, Alarm]] = []
        for row in range(len(faults)):
            key, time_s = str(samples.keys[row]), float(samples.times_s[row])
            for place, name in enumerate(self._names):
                fault = SENSOR_FAULTS[faults[row, place]]
                alarm = self._open.get((key, name))
                if alarm is not None and alarm.fault == fault:
                    self._open[key, name] = replace(alarm, records=alarm.records + 1)
                    continue
                if alarm is not None:
                    del self._open[key, name]
                    events.append((row, replace(alarm, phase="ended", ended_s=time_s)))
                if fault:
                    number = f"{identifier(samples, row, 'sensor')}/{name}"
                    begun = Alarm(
                        number, "sensor", "began", key, time_s, time_s, None, 1, 1.0, "minor", {name: 1.0}, fault=fault
                    )
                    self._open[key, name] = begun
                    events.append((row, begun))
        return events

    def drop(self, key: str) -> None:
        """Drop the open faults of *key*."""
        self._open = {place: alarm for place, alarm in self._open.items() if place[0] != key}

    def state(self) -> State:
        return {"open": [alarm.as_line() for alarm in self._open.values()]}

    def restore(self, state: State) -> None:
        alarms = [Alarm(**line) for line in state["open"]]
        self._open = {(alarm.key, next(iter(alarm.features))): alarm for alarm in alarms}
