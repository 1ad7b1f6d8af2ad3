"""Faults of a sensor: it repeats one reading, or its readings are missing. That says nothing about the machine.

How long a sensor repeats itself in good health is its own: a valve is open for hours, a temperature is never the same
twice. So a run of equal readings is a fault if it is four times as long as any before, and at least `LEAST` readings.
A sensor with fewer than `LEAST_CHANGES` changes is never called faulty.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.core.types import Float64Array, Int64Array

NONE, STUCK, MISSING = 0, 1, 2
"""Numbers of the faults: indices of `learnd.core.alarms.SENSOR_FAULTS`."""
LEAST = 50
"""Shortest run that can be a fault, in readings."""
TIMES = 4
"""A run is a fault if it is at least this many times as long as the longest run before it."""
LEAST_CHANGES = 100
"""Changes of a reading before its sensor can be stuck, and readings before one can be missing."""


class Health(NamedTuple):
    """The runs and gaps of each sensor. The leading axis of each array is the column of a key.

    Attributes
    ----------
    last : (columns,), the last reading
    run, longest : (columns,), equal readings in a row now, and at most before
    gap, longest_gap : (columns,), missing readings in a row now, and at most before
    changes : (columns,), readings that differed from the one before
    """

    last: Float64Array
    run: Int64Array
    longest: Int64Array
    gap: Int64Array
    longest_gap: Int64Array
    changes: Int64Array


def make_health(columns: int) -> Health:
    """Return the sensors of one key."""
    counts = np.zeros(columns, np.int64)
    return Health(np.full(columns, np.nan), counts, counts.copy(), counts.copy(), counts.copy(), counts.copy())


def _learned(longest: int, run: int) -> int:
    """Return the longest run after a *run* has ended. One that was a fault counts half: it may be how things are.

    >>> _learned(10, 20), _learned(10, 60)
    (20, 30)
    """
    is_fault = run >= max(LEAST, TIMES * longest)
    return max(longest, run // 2 if is_fault else run)


_after = compiled(_learned)


def _examine(health: Health, column: int, value: float) -> int:
    """Return the fault of the sensor of *column* at its newest reading, which is nan if it is missing."""
    if np.isnan(value):
        health.gap[column] += 1
        too_long = max(LEAST, TIMES * health.longest_gap[column])
        return MISSING if health.gap[column] >= too_long and health.changes[column] >= LEAST_CHANGES else NONE
    if health.gap[column] > 0:
        health.longest_gap[column] = _after(health.longest_gap[column], health.gap[column])
        health.gap[column] = 0
    if value == health.last[column]:
        health.run[column] += 1
    else:
        health.longest[column] = _after(health.longest[column], health.run[column])
        health.run[column] = 1
        health.changes[column] += 1
        health.last[column] = value
    too_long = max(LEAST, TIMES * health.longest[column])
    return STUCK if health.run[column] >= too_long and health.changes[column] >= LEAST_CHANGES else NONE


_sensor = compiled(_examine)


def _examine_sensors(health: Health, rows: Float64Array, slots: Int64Array, faults: Int64Array) -> None:
    """Write the fault of each reading of *rows*, shape (n, columns), into *faults*; pass over negative slots."""
    columns = rows.shape[1]
    for row in range(len(rows)):
        if slots[row] < 0:
            continue
        for place in range(columns):
            faults[row, place] = _sensor(health, slots[row] * columns + place, rows[row, place])


examine_sensors = compiled(_examine_sensors)
