"""The state head: whether a column is still not normal.

Each column has a level and a spread. A short mean of the readings is compared with the level, in units of the spread
of that difference. Level and spread follow quickly in normal operation, and 20 times slower while the column is in
alarm, so the fault does not soon become the standard by which it is measured. Within some 600 readings it would, so
level and spread from before the alarm are kept as a reference. A strong alarm lasts until the readings are nearer to
the reference than to the fault, and then the reference is the standard again.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.alarms.threshold import Threshold, make_threshold, observe_score
from learnd.core.types import BoolArray, Float64Array, Int64Array

LEVEL, SPREAD, SHORT = 100.0, 200.0, 8.0
"""Readings that level, spread and short mean look back to."""
ON, OFF = 4.0, 2.0
"""Distances, in spreads: an alarm begins above the first, unless a rate of false alarms is chosen, and may end below
the second."""
LEAST_ON = 2.5
"""The smallest threshold that is estimated: an alarm has to begin well above where it may end."""
GUARD = 0.05
"""Share of the ordinary step that level and spread take while in alarm."""
STRONG = 8.0
"""Distance from the reference, in its spreads, at which an alarm lasts."""
LASTING = 500
"""Readings in alarm after which it can be the standard that has followed the fault, not the fault that has ended."""
ACCEPTED = -1
"""Value of `Level.above` right after an alarm ended because its level was accepted."""
WARM_UP = 400
"""Readings before the first alarm."""


class Level(NamedTuple):
    """The state of the head. The leading axis is the column of a key; in `threshold` it is the key.

    Attributes
    ----------
    seen : (columns,), readings so far
    level, mean, variance : (columns,), the level, the short mean, and the variance of their difference
    above : (columns,), readings beyond the threshold in a row
    left : (columns,), readings until the alarm may end; 0: no alarm
    lasted : (columns,), readings since the alarm began
    reference, reference_spread : (columns,), level and spread when the alarm began
    strayed : (columns,), sum of the distances from the reference since then
    kept : (columns,), whether only the distance from the reference has kept the alarm
    threshold : the distance at which an alarm begins
    """

    seen: Int64Array
    level: Float64Array
    mean: Float64Array
    variance: Float64Array
    above: Int64Array
    left: Int64Array
    lasted: Int64Array
    reference: Float64Array
    reference_spread: Float64Array
    strayed: Float64Array
    kept: BoolArray
    threshold: Threshold


class LevelOptions(NamedTuple):
    """Options of the head.

    Attributes
    ----------
    minimum : readings beyond the threshold, in a row, before an alarm begins
    cool_down : readings near normal, in a row, before an alarm ends
    accept_after : readings in alarm after which the present level is the new normal
    per_readings, per_seconds : one false alarm in as many readings, or if that is 0 in as many seconds; both 0: the
        threshold is fixed
    """

    minimum: int
    cool_down: int
    accept_after: int
    per_readings: float
    per_seconds: float


def make_level(columns: int, *, estimated: bool) -> Level:
    """Return the head of one key; its threshold is *estimated* or fixed."""
    counts, numbers = np.zeros(columns, np.int64), np.zeros(columns)
    return Level(
        seen=counts,
        level=numbers,
        mean=numbers.copy(),
        variance=numbers.copy(),
        above=counts.copy(),
        left=counts.copy(),
        lasted=counts.copy(),
        reference=numbers.copy(),
        reference_spread=numbers.copy(),
        strayed=numbers.copy(),
        kept=np.zeros(columns, np.bool_),
        threshold=make_threshold(ON, floor=LEAST_ON, estimated=estimated),
    )


def _is_far(head: Level, column: int) -> bool:
    """Return whether the short mean is far from the reference, and nearer to the fault than to it."""
    strayed = abs(head.mean[column] - head.reference[column])
    usual = head.strayed[column] / max(head.lasted[column], 1)
    return bool(strayed > STRONG * head.reference_spread[column] and strayed > 0.5 * usual)


_far = compiled(_is_far)


def _decide_alarm(head: Level, column: int, distance: float, on: float, options: LevelOptions) -> None:
    """Begin, continue or end the alarm of *column*."""
    head.above[column] = max(head.above[column], 0) + 1 if distance > on else 0
    alarmed = head.left[column] > 0
    if head.above[column] >= options.minimum or (alarmed and distance > OFF):
        head.left[column] = options.cool_down
    elif head.left[column] == 1 and head.lasted[column] >= LASTING and _far(head, column):
        head.kept[column] = True
    elif head.kept[column]:  # the fault is over, but level and spread have become those of the fault
        head.kept[column] = False
        head.level[column] = head.reference[column]
        head.variance[column] = head.reference_spread[column] ** 2
        head.left[column] = options.cool_down
    elif alarmed:
        head.left[column] -= 1
    if head.left[column] == 0:
        head.lasted[column] = 0
        return
    if not alarmed:
        head.reference[column] = head.level[column]
        head.reference_spread[column] = np.sqrt(head.variance[column])
        head.strayed[column] = 0.0
    head.strayed[column] += abs(head.mean[column] - head.reference[column])
    head.lasted[column] += 1


_alarm = compiled(_decide_alarm)


def _accept_level(head: Level, column: int) -> None:
    """Make the present level the normal one, with the spread from before the alarm."""
    head.level[column] = head.mean[column]
    head.variance[column] = head.reference_spread[column] ** 2
    head.left[column] = head.lasted[column] = 0
    head.kept[column] = False
    head.above[column] = ACCEPTED


accept_level = compiled(_accept_level)


def _observe_reading(head: Level, column: int, value: float, on: float, options: LevelOptions) -> float:
    """Return the distance of the short mean from normal, in spreads, then let level and spread follow *value*."""
    seen = head.seen[column]
    if seen == 0:
        head.level[column] = head.mean[column] = value
    head.mean[column] += (value - head.mean[column]) / SHORT
    difference = head.mean[column] - head.level[column]
    distance = abs(difference) / (np.sqrt(head.variance[column]) + 1e-9)
    if seen >= WARM_UP and (distance > on or head.above[column] != 0 or head.left[column] > 0):
        _alarm(head, column, distance, on, options)
    alarmed = head.left[column] > 0
    share = GUARD if alarmed else 1.0
    if seen >= SHORT:
        step = share * max(1.0 / SPREAD, 1.0 / (seen + 1))
        head.variance[column] += step * (difference * difference - head.variance[column])
    head.level[column] += share * max(1.0 / LEVEL, 1.0 / (seen + 1)) * (value - head.level[column])
    head.seen[column] = seen + 1
    if head.kept[column]:
        distance = abs(head.mean[column] - head.reference[column]) / (head.reference_spread[column] + 1e-9)
    if head.lasted[column] >= options.accept_after:
        accept_level(head, column)
    return float(distance)


_observe = compiled(_observe_reading)


def _observe_levels(
    head: Level,
    rows: Float64Array,
    times_s: Float64Array,
    slots: Int64Array,
    options: LevelOptions,
    strengths: Float64Array,
    alarms: BoolArray,
    accepted: BoolArray,
) -> None:
    """Write the alarm of each reading of *rows*, shape (n, columns), and its distance from normal in thresholds.

    Without an alarm, that is 0. *accepted* tells where an alarm ended because the present level is the new normal.

    Rows of a negative slot, and readings that are nan, change nothing; a missing reading leaves its column's alarm.
    """
    columns = rows.shape[1]
    for row in range(len(rows)):
        slot = slots[row]
        if slot < 0:
            continue
        on = head.threshold.value[slot] * head.threshold.factor[slot]
        largest, before, after = -1.0, False, False
        for place in range(columns):
            column = slot * columns + place
            alarmed = head.left[column] > 0
            distance = 0.0
            if not np.isnan(rows[row, place]):
                distance = _observe(head, column, rows[row, place], on, options)
                if head.seen[column] > WARM_UP:
                    largest = max(largest, distance)
            alarms[row, place] = head.left[column] > 0
            if alarms[row, place]:
                strengths[row, place] = distance / on
            accepted[row, place] = alarmed and head.above[column] == ACCEPTED
            before, after = before or alarmed, after or alarms[row, place]
        if largest >= 0.0 and (options.per_readings > 0.0 or options.per_seconds > 0.0):
            if before:
                largest = 0.0  # what an alarm exceeds the threshold by says little about the next one
            started = after and not before
            observe_score(
                head.threshold, slot, largest, started, times_s[row], options.per_readings, options.per_seconds
            )


observe_levels = compiled(_observe_levels)
