"""The onset head: whether something begins that was never seen.

It looks at several one-dimensional signals of each column: the reading itself against all readings so far, its
residual against a running profile of the period (a day, a shift), and the medians of the last 8 and 32 readings against
the ranges that they have kept (`learnd.alarms.ranges`). The model's loss is one more signal. The evidence of the
signals adds up: each is the negative logarithm of a probability.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.alarms.ranges import Ranges, beyond, make_ranges, observe
from learnd.core.types import Float64Array, Int64Array

PARTS = 96
"""Parts of a period, each with a mean of its own: quarter hours of a day."""
PROFILE_RATE = 0.02
"""Smallest step of such a mean towards a reading."""
SHORT, LONG = 8, 32
"""Readings in the two medians."""
LONG_WEIGHT = 0.5
"""Weight of the long median: most of what it shows, the short one has shown."""


class Onset(NamedTuple):
    """What the head remembers. The leading axis of each array is the column of a key.

    Attributes
    ----------
    seen : (columns,), readings so far
    first_s : (columns,), time of the first reading
    top, bottom : (columns,), the largest and smallest reading ever
    profile, visits : (columns, periods, PARTS), means by part of the period, and readings in them
    recent : (columns, LONG), the last readings, a ring
    short, long : (columns, SHORT) and (columns, LONG), the last readings in ascending order
    ranges : of the residuals, of one period after the other, then of the short and of the long median
    """

    seen: Int64Array
    first_s: Float64Array
    top: Float64Array
    bottom: Float64Array
    profile: Float64Array
    visits: Int64Array
    recent: Float64Array
    short: Float64Array
    long: Float64Array
    ranges: Ranges


def make_onset(columns: int, periods: int) -> Onset:
    """Return the head of one key."""
    return Onset(
        np.zeros(columns, np.int64),
        np.zeros(columns),
        np.full(columns, -np.inf),
        np.full(columns, np.inf),
        np.zeros((columns, periods, PARTS)),
        np.zeros((columns, periods, PARTS), np.int64),
        np.zeros((columns, LONG)),
        np.full((columns, SHORT), np.inf),
        np.full((columns, LONG), np.inf),
        make_ranges(columns * (periods + 2)),
    )


def _replace_sorted(ordered: Float64Array, old: float, new: float) -> None:
    """Replace one occurrence of *old* in the ascending array *ordered* by *new*, and keep it ascending.

    >>> ordered = np.array([1.0, 2.0, 4.0]); _replace_sorted(ordered, 2.0, 9.0); ordered.tolist()
    [1.0, 4.0, 9.0]
    """
    place = 0
    while ordered[place] != old:
        place += 1
    while place + 1 < len(ordered) and ordered[place + 1] < new:
        ordered[place] = ordered[place + 1]
        place += 1
    while place > 0 and ordered[place - 1] > new:
        ordered[place] = ordered[place - 1]
        place -= 1
    ordered[place] = new


_replace = compiled(_replace_sorted)


def _against_profiles(
    onset: Onset, ranges: Ranges, column: int, value: float, time_s: float, periods_s: Float64Array, ready: bool
) -> float:
    """Return the strongest evidence of the residuals against the profiles, then add *value* to them."""
    strongest = 0.0
    for period in range(len(periods_s)):
        length_s = periods_s[period]
        part = min(int((time_s % length_s) * PARTS / length_s), PARTS - 1)
        visits = onset.visits[column, period, part]
        if visits:
            residual = value - onset.profile[column, period, part]
            if ready and time_s - onset.first_s[column] >= length_s:
                signal = column * (len(periods_s) + 2) + period
                strongest = max(strongest, observe(ranges, signal, residual, True))
            onset.profile[column, period, part] += residual * max(1.0 / (visits + 1), PROFILE_RATE)
        else:
            onset.profile[column, period, part] = value
        onset.visits[column, period, part] = visits + 1
    return strongest


_profiles = compiled(_against_profiles)


def _against_medians(onset: Onset, ranges: Ranges, column: int, value: float, periods: int, ready: bool) -> float:
    """Add *value* to the last readings; return the evidence of their medians."""
    count = onset.seen[column]
    place = count % LONG
    leaving_short = onset.recent[column, (count - SHORT) % LONG] if count >= SHORT else np.inf
    leaving_long = onset.recent[column, place] if count >= LONG else np.inf
    _replace(onset.short[column], leaving_short, value)
    _replace(onset.long[column], leaving_long, value)
    onset.recent[column, place] = value
    if not ready:
        return 0.0
    short, long = onset.short[column], onset.long[column]
    signal = column * (periods + 2) + periods
    brief = observe(ranges, signal, 0.5 * (short[SHORT // 2 - 1] + short[SHORT // 2]), True)
    lasting = observe(ranges, signal + 1, 0.5 * (long[LONG // 2 - 1] + long[LONG // 2]), True)
    return brief + LONG_WEIGHT * lasting


_medians = compiled(_against_medians)


def _observe_readings(
    onset: Onset,
    rows: Float64Array,
    times_s: Float64Array,
    slots: Int64Array,
    periods_s: Float64Array,
    warm_up: int,
    evidence: Float64Array,
) -> None:
    """Write the evidence of each reading of *rows*, shape (n, columns), into *evidence*, and remember the readings.

    Rows of a negative slot, and readings that are nan, are passed over. During the first *warm_up* readings there is
    no evidence.
    """
    columns = rows.shape[1]
    ranges = onset.ranges  # once: taking it out of a tuple counts a reference to each of its arrays
    for row in range(len(rows)):
        for place in range(columns):
            value = rows[row, place]
            if slots[row] < 0 or np.isnan(value):
                continue
            column = slots[row] * columns + place
            ready = onset.seen[column] >= warm_up
            if onset.seen[column] == 0:
                onset.first_s[column] = times_s[row]
            top, bottom = onset.top[column], onset.bottom[column]
            if ready:
                evidence[row, place] = beyond(max(value - top, bottom - value), max(top - bottom, 1e-12))
            onset.top[column], onset.bottom[column] = max(top, value), min(bottom, value)
            evidence[row, place] += _profiles(onset, ranges, column, value, times_s[row], periods_s, ready)
            evidence[row, place] += _medians(onset, ranges, column, value, len(periods_s), ready)
            onset.seen[column] += 1


observe_readings = compiled(_observe_readings)
