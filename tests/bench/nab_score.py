"""The score of the Numenta Anomaly Benchmark for one file (Lavin and Ahmad, ICMLA 2015).

An early detection within a window earns up to 1, by a sigmoid of its position; only the earliest in each window counts.
Each detection outside costs up to its weight, less right after a window. A missed window costs its weight. 0 is a
detector that says nothing, 100 one that finds each window at its first row. The first 15 % of the file, at most 750
rows, are not counted. NAB chooses one threshold over all its files; here it is the best one for this file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Rows = np.ndarray[Any, np.dtype[np.float64]]
PROFILES = {"standard": (1.0, 0.11, 1.0), "low FP": (1.0, 0.22, 1.0), "low FN": (1.0, 0.11, 2.0)}
"""Weights of a true positive, a false positive and a missed window."""
PROBATION, LONGEST = 0.15, 5000
THRESHOLDS = 400


def _sigmoid(position: Rows) -> Rows:
    return np.where(position > 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0)


def _worth(rows: int, windows: Sequence[tuple[int, int]]) -> tuple[Rows, Rows]:
    """Return what a detection at each row is worth, before weights, and the window it is in (-1: none)."""
    place, worth = np.full(rows, -1.0), np.full(rows, -1.0)
    steps = np.arange(rows)
    for number, (start, stop) in enumerate(windows):
        after = steps >= stop
        worth[after] = _sigmoid((steps[after] - (stop - 1)) / max(stop - start - 1, 1))
        place[start:stop] = number
    for start, stop in windows:
        inside = slice(start, stop)
        position = -(stop - steps[inside]) / (stop - start)
        worth[inside] = _sigmoid(position) / _sigmoid(np.array([-1.0]))[0]
    return worth, place


def nab_scores(scores: Rows, windows: Sequence[tuple[int, int]]) -> dict[str, float]:
    """Return the score of each profile, at the threshold that is best for it.

    Parameters
    ----------
    scores : (n,), the more unusual the larger; ranks alone matter
    windows : first and last (exclusive) rows of each anomaly
    """
    rows = len(scores)
    first = int(min(PROBATION * rows, PROBATION * LONGEST))
    worth, place = _worth(rows, windows)
    counted = np.arange(rows) >= first
    levels = np.unique(scores[counted])
    if len(levels) > THRESHOLDS:  # the top ones all, since there the best one is
        levels = np.unique(np.concatenate([levels[-THRESHOLDS:], np.quantile(levels, np.linspace(0, 1, THRESHOLDS))]))
    best = dict.fromkeys(PROFILES, 0.0)
    for level in levels:
        found = counted & (scores >= level)
        false = worth[found & (place < 0)].sum()
        hits = [worth[found & (place == number)] for number in range(len(windows))]
        gained, missed = sum(float(own.max()) for own in hits if len(own)), sum(not len(own) for own in hits)
        for profile, (tp, fp, fn) in PROFILES.items():
            raw = tp * gained + fp * false - fn * missed
            silent, perfect = -fn * len(windows), tp * len(windows)
            best[profile] = max(best[profile], 100.0 * (raw - silent) / (perfect - silent))
    return best
