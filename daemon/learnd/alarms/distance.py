"""Readings that no longer go together: the distance of a row from the mean, by the covariance of all columns.

Each column may stay within its range while its relation to the others breaks. The distance is Mahalanobis's, with mean
and covariance that look back to the last `MEMORY` rows. It and its short mean are two more signals of the onset head:
`learnd.alarms.ranges` says how far they leave the range that they have kept. The covariance is factorised once in
`EVERY` rows, so a row costs as many steps as there are pairs of columns.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.alarms.ranges import Ranges, make_ranges, observe_limited
from learnd.core.types import BoolArray, Float64Array, Int64Array

FEWEST, MOST = 2, 64
"""Columns. With more, a covariance costs more than it says: it takes as many rows to know it as it has numbers."""
MEMORY = 4096
"""Rows that mean and covariance look back to."""
EVERY = 32
"""Rows between two factorisations."""
SHORT = 8
"""Rows in the short mean of squared distances."""
RIDGE = 1e-4
"""Share of a column's variance that is added to it: columns that repeat another one have no inverse."""
LIMIT = 0.25
"""Spans above its range that a distance counts as when it is added to the range."""
FAR = 9.0
"""Squared distance, per column, beyond which a row has less weight: one fault would hide the next."""


class Distance(NamedTuple):
    """The mean, covariance and ranges of each key. The leading axis of each array is the key.

    Attributes
    ----------
    rows : (keys,), rows so far
    seen : (keys, columns), whether the column has ever had a reading
    mean, covariance : (keys, columns) and (keys, columns, columns); of the covariance the lower half
    factor : (keys, columns, columns), its lower Cholesky factor
    short : (keys,), the short mean of the squared distances
    ranges : two signals a key, of the distance and of its short mean
    """

    rows: Int64Array
    seen: BoolArray
    mean: Float64Array
    covariance: Float64Array
    factor: Float64Array
    short: Float64Array
    ranges: Ranges


def make_distance(columns: int) -> Distance:
    """Return the state of one key; with too few or too many *columns*, that of none."""
    kept = columns if FEWEST <= columns <= MOST else 0
    squares = np.zeros((1, kept, kept))
    return Distance(
        np.zeros(1, np.int64),
        np.zeros((1, kept), np.bool_),
        np.zeros((1, kept)),
        squares,
        squares.copy(),
        np.zeros(1),
        make_ranges(2 if kept else 0),
    )


def _factorise(covariance: Float64Array, factor: Float64Array) -> None:
    """Write the lower Cholesky factor of *covariance*, with its ridge, into *factor*; only lower halves count.

    >>> factor = np.zeros((2, 2)); _factorise(np.array([[4.0, 0.0], [2.0, 2.0]]), factor); factor.round(2).tolist()
    [[2.0, 0.0], [1.0, 1.0]]
    """
    columns = len(covariance)
    for i in range(columns):
        least = RIDGE * covariance[i, i] + 1e-18
        for j in range(i + 1):
            total = covariance[i, j] + (least if i == j else 0.0)
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            factor[i, j] = np.sqrt(max(total, least)) if i == j else total / factor[j, j]


_factor = compiled(_factorise)


def _solve_lower(factor: Float64Array, right: Float64Array, solved: Float64Array) -> float:
    """Write the solution of *factor* @ *solved* = *right*; return the square of its length."""
    total = 0.0
    for i in range(len(right)):
        value = right[i]
        for k in range(i):
            value -= factor[i, k] * solved[k]
        solved[i] = value / factor[i, i]
        total += solved[i] * solved[i]
    return total


_solve = compiled(_solve_lower)


def _share_evidence(
    factor: Float64Array, away: Float64Array, solved: Float64Array, evidence: float, parts: Float64Array
) -> None:
    """Write the shares of the columns in *evidence*: of the squared distance, those of their products, if positive."""
    columns, total = len(away), 0.0
    for i in range(columns - 1, -1, -1):
        value = solved[i]
        for k in range(i + 1, columns):
            value -= factor[k, i] * solved[k]
        solved[i] = value / factor[i, i]
        parts[i] = max(away[i] * solved[i], 0.0)
        total += parts[i]
    for i in range(columns):
        parts[i] *= evidence / total


_share = compiled(_share_evidence)


def _add_row(head: Distance, slot: int, away: Float64Array, squared: float) -> None:
    """Let mean and covariance follow a row that is *away* from the mean, and factorise when that is due."""
    columns, rows = len(away), head.rows[slot]
    step = max(1.0 / (rows + 1), 1.0 / MEMORY)
    if squared > FAR * columns:
        step *= FAR * columns / squared
    covariance, mean = head.covariance[slot], head.mean[slot]
    for i in range(columns):
        mean[i] += step * away[i]
        scaled = step * (1.0 - step) * away[i]
        for j in range(i + 1):
            covariance[i, j] = (1.0 - step) * covariance[i, j] + scaled * away[j]
    head.rows[slot] = rows + 1
    if (rows + 1) % EVERY == 0:
        _factor(covariance, head.factor[slot])


_add = compiled(_add_row)


def _is_complete(seen: BoolArray, row: Float64Array) -> bool:
    """Return whether *row* has all columns that were ever seen, and at least one; note those that it has."""
    found = False
    for i in range(len(row)):
        present = not np.isnan(row[i])
        if seen[i] and not present:
            return False
        seen[i] = present
        found = found or present
    return found


_complete = compiled(_is_complete)


def _observe_rows(head: Distance, rows: Float64Array, slots: Int64Array, warm_up: int, evidence: Float64Array) -> None:
    """Write the evidence that the readings of each row do not go together into *evidence*, shape (n, columns).

    The evidence of a row is the sum of its columns, by what they contribute. Rows of a negative slot are passed over,
    and so are rows without a reading of a column that once had one. A column that never had one is left out.
    """
    columns = head.mean.shape[1]
    away, solved = np.zeros(columns), np.zeros(columns)
    for row in range(len(rows) if columns else 0):
        slot = slots[row]
        if slot < 0 or not _complete(head.seen[slot], rows[row]):
            continue
        for i in range(columns):
            away[i] = rows[row, i] - head.mean[slot, i] if head.seen[slot, i] else 0.0
        squared = 0.0
        if head.rows[slot] >= EVERY:
            squared = _solve(head.factor[slot], away, solved)
            head.short[slot] += (min(squared, 1e12) - head.short[slot]) / SHORT
        if head.rows[slot] >= warm_up:
            now = observe_limited(head.ranges, 2 * slot, np.sqrt(squared), LIMIT)
            lasting = observe_limited(head.ranges, 2 * slot + 1, np.sqrt(head.short[slot]), LIMIT)
            if max(now, lasting) > 0.0 and squared > 0.0:
                _share(head.factor[slot], away, solved, max(now, lasting), evidence[row])
        _add(head, slot, away, squared)


observe_rows = compiled(_observe_rows)
