"""The threshold that gives a chosen rate of false alarms.

The maxima of the last 512 blocks of 32 scores say how often a score exceeds a threshold: beyond the 80 % quantile of
the maxima, the tail is taken as exponential (peaks over threshold; Siffer et al., KDD 2017, with the simpler tail). The
alarms that were really raised correct it: each lowers the probability that the threshold is set for, and each row
without one raises it by its share, so that the rate is met in the long run whatever the tail looks like.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.core.types import Float64Array, Int64Array

BLOCK, KEPT = 32, 512
"""Scores in a block, and maxima that are remembered."""
FIRST = 32
"""Blocks before the threshold is estimated."""
TAIL_SHARE = 0.2
"""Share of the maxima that the tail is estimated from."""
CORRECTION = 0.4
"""Change of the logarithm of the probability by one alarm."""
LARGEST_CORRECTION = 4.0
DAY_S = 86_400.0
INTERVAL_RATE = 0.01
"""Step of the mean time between two readings."""


class Threshold(NamedTuple):
    """The state of a threshold and of its estimate. The leading axis of each array is the key.

    Attributes
    ----------
    value : (keys,), the threshold
    factor : (keys,), what feedback multiplies it by
    floor : (keys,), the smallest threshold, and the value until there is an estimate
    maxima : (keys, KEPT), of closed blocks, a ring
    largest, held, closed : (keys,), the maximum of the open block, its scores, and the number of closed blocks
    correction : (keys,), the correction of the logarithm of the probability
    last_s, interval_s : (keys,), time of the last reading, and the mean time between two readings
    """

    value: Float64Array
    factor: Float64Array
    floor: Float64Array
    maxima: Float64Array
    largest: Float64Array
    held: Int64Array
    closed: Int64Array
    correction: Float64Array
    last_s: Float64Array
    interval_s: Float64Array


def make_threshold(value: float, *, floor: float, estimated: bool) -> Threshold:
    """Return the threshold of one key, which begins as *value*; it stays there unless it is *estimated*."""
    one = np.zeros(1)
    counts = np.zeros(1, np.int64)
    maxima = np.zeros((1, KEPT if estimated else 0))
    return Threshold(
        one + value,
        one + 1.0,
        one + floor,
        maxima,
        one - np.inf,
        counts,
        counts.copy(),
        one.copy(),
        one + np.nan,
        one + np.nan,
    )


LOWER, HIGHER = 1 / 1.1, 1.25
"""What a verdict multiplies a threshold by: a missed anomaly, and an alarm that was none."""
LOWEST, HIGHEST = 0.5, 4.0
"""Limits of the product of all verdicts."""


def correct(threshold: Threshold, slot: int, *, anomaly: bool) -> None:
    """Change the threshold of *slot*: lower it after an *anomaly*, raise it after an alarm that was none."""
    factor = threshold.factor[slot] * (LOWER if anomaly else HIGHER)
    threshold.factor[slot] = min(max(factor, LOWEST), HIGHEST)


def _estimate(threshold: Threshold, slot: int, rate: float) -> None:
    """Set the threshold for *rate* alarms per score."""
    count = min(threshold.closed[slot], KEPT)
    if count < FIRST:
        return
    ordered = np.sort(threshold.maxima[slot, :count])
    first = int((1.0 - TAIL_SHARE) * count)
    base = ordered[first - 1]
    excess = 0.0
    beyond = 0
    for i in range(first, count):
        if ordered[i] > base:
            excess += ordered[i] - base
            beyond += 1
    if beyond == 0:  # all scores are equal, such as no evidence at all
        threshold.value[slot] = max(base, threshold.floor[slot])
        return
    share = beyond / count
    wanted = rate * BLOCK * np.exp(threshold.correction[slot])
    value = base + excess / beyond * np.log(share / min(wanted, share))
    threshold.value[slot] = max(value, threshold.floor[slot])


_renew = compiled(_estimate)


def _rate_of(threshold: Threshold, slot: int, time_s: float, per_readings: float, per_seconds: float) -> float:
    """Return the rate of alarms per reading: one in *per_readings*, or if that is 0 one in *per_seconds*."""
    if per_readings > 0.0:
        return 1.0 / per_readings
    passed_s = time_s - threshold.last_s[slot]
    if passed_s >= 0.0:
        mean_s = threshold.interval_s[slot]
        if np.isnan(mean_s):
            threshold.interval_s[slot] = passed_s
        else:
            # A gap is no reading: limit it, so that one night without data does not change the rate.
            threshold.interval_s[slot] += INTERVAL_RATE * (min(passed_s, 10.0 * mean_s + 1e-3) - mean_s)
    threshold.last_s[slot] = time_s
    mean_s = threshold.interval_s[slot]
    return 0.0 if np.isnan(mean_s) else min(mean_s / per_seconds, 1.0 / BLOCK)


_rate = compiled(_rate_of)


def _observe_score(
    threshold: Threshold,
    slot: int,
    score: float,
    raised: bool,
    time_s: float,
    per_readings: float,
    per_seconds: float,
) -> None:
    """Add the score of a row, and whether it raised an alarm, and renew the threshold when a block is full."""
    rate = _rate(threshold, slot, time_s, per_readings, per_seconds)
    correction = threshold.correction[slot] + CORRECTION * (rate - (1.0 if raised else 0.0))
    threshold.correction[slot] = min(max(correction, -LARGEST_CORRECTION), LARGEST_CORRECTION)
    threshold.largest[slot] = max(threshold.largest[slot], score)
    threshold.held[slot] += 1
    if threshold.held[slot] < BLOCK:
        return
    threshold.maxima[slot, threshold.closed[slot] % KEPT] = threshold.largest[slot]
    threshold.closed[slot] += 1
    threshold.held[slot] = 0
    threshold.largest[slot] = -np.inf
    if rate > 0.0:
        _renew(threshold, slot, rate)


observe_score = compiled(_observe_score)
