"""The onset head: whether something begins that was never seen.

It looks at several one-dimensional signals of each column: the reading itself against all readings so far, its
residual against a running profile of the period (a day, a shift), and the medians of the last 8 and 32 readings against
the ranges that they have kept (`learnd.alarms.ranges`). The model's loss is one more signal. The evidence of the
signals adds up: each is the negative logarithm of a probability.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.alarms.ranges import Ranges, beyond, make_ranges, observe_series
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
    """The state of the head. The leading axis of each array is the column of a key.

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
    onset: Onset,
    column: int,
    values: Float64Array,
    times_s: Float64Array,
    periods_s: Float64Array,
    warm_up: int,
    evidence: Float64Array,
) -> None:
    """Add the strongest evidence of the residuals against the profiles, then add *values* to the profiles."""
    residuals, own, strongest = np.empty(len(values)), np.empty(len(values)), np.zeros(len(values))
    seen, first_s = onset.seen[column], onset.first_s[column]
    for period in range(len(periods_s)):
        length_s = periods_s[period]
        profile, counts = onset.profile[column, period], onset.visits[column, period]
        for i in range(len(values)):
            part = min(int((times_s[i] % length_s) * PARTS / length_s), PARTS - 1)
            residuals[i] = np.nan
            visits = counts[part]
            if visits:
                residual = values[i] - profile[part]
                if seen + i >= warm_up and times_s[i] - first_s >= length_s:
                    residuals[i] = residual
                profile[part] += residual * max(1.0 / (visits + 1), PROFILE_RATE)
            else:
                profile[part] = values[i]
            counts[part] = visits + 1
        observe_series(onset.ranges, column * (len(periods_s) + 2) + period, residuals, True, own)
        strongest = np.maximum(strongest, own)
    evidence += strongest


_profiles = compiled(_against_profiles)


def _against_medians(
    onset: Onset, column: int, values: Float64Array, periods: int, warm_up: int, evidence: Float64Array
) -> None:
    """Add *values* to the last readings, one after the other; add the evidence of their medians."""
    brief, lasting = np.full(len(values), np.nan), np.full(len(values), np.nan)
    short, long, recent = onset.short[column], onset.long[column], onset.recent[column]
    for i in range(len(values)):
        count = onset.seen[column] + i
        place = count % LONG
        leaving_short = recent[(count - SHORT) % LONG] if count >= SHORT else np.inf
        leaving_long = recent[place] if count >= LONG else np.inf
        _replace(short, leaving_short, values[i])
        _replace(long, leaving_long, values[i])
        recent[place] = values[i]
        if count >= warm_up:
            brief[i] = 0.5 * (short[SHORT // 2 - 1] + short[SHORT // 2])
            lasting[i] = 0.5 * (long[LONG // 2 - 1] + long[LONG // 2])
    signal = column * (periods + 2) + periods
    of_brief, of_lasting = np.empty(len(values)), np.empty(len(values))
    observe_series(onset.ranges, signal, brief, True, of_brief)
    observe_series(onset.ranges, signal + 1, lasting, True, of_lasting)
    for i in range(len(values)):
        evidence[i] += of_brief[i] + LONG_WEIGHT * of_lasting[i]


_medians = compiled(_against_medians)


def _observe_series_of_column(
    onset: Onset,
    column: int,
    values: Float64Array,
    times_s: Float64Array,
    periods_s: Float64Array,
    warm_up: int,
    evidence: Float64Array,
) -> None:
    """Write the evidence of the *values* of a column of a key, one after the other, and remember them."""
    seen, top, bottom = onset.seen[column], onset.top[column], onset.bottom[column]
    if seen == 0:
        onset.first_s[column] = times_s[0]
    for i in range(len(values)):
        evidence[i] = 0.0
        if seen + i >= warm_up:
            evidence[i] = beyond(max(values[i] - top, bottom - values[i]), max(top - bottom, 1e-12))
        top, bottom = max(top, values[i]), min(bottom, values[i])
    onset.top[column], onset.bottom[column] = top, bottom
    _profiles(onset, column, values, times_s, periods_s, warm_up, evidence)
    _medians(onset, column, values, len(periods_s), warm_up, evidence)
    onset.seen[column] = seen + len(values)


_column = compiled(_observe_series_of_column)


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
    no evidence. The readings of one column of one key are treated together, in their order: columns and keys know
    nothing of each other, and what is remembered of one stays at hand.
    """
    count, columns = rows.shape
    order = np.argsort(slots, kind="mergesort")
    values, own_times_s, own_evidence, places = (
        np.empty(count),
        np.empty(count),
        np.empty(count),
        np.empty(count, np.int64),
    )
    start = 0
    while start < count:
        slot, stop = slots[order[start]], start
        while stop < count and slots[order[stop]] == slot:
            stop += 1
        for place in range(columns if slot >= 0 else 0):
            held = 0
            for i in range(start, stop):
                row = order[i]
                if not np.isnan(rows[row, place]):
                    values[held], own_times_s[held], places[held] = rows[row, place], times_s[row], row
                    held += 1
            if held:
                _column(
                    onset,
                    slot * columns + place,
                    values[:held],
                    own_times_s[:held],
                    periods_s,
                    warm_up,
                    own_evidence[:held],
                )
                for i in range(held):
                    evidence[places[i], place] = own_evidence[i]
        start = stop


observe_readings = compiled(_observe_readings)
