"""The range that a signal has kept so far, and how far a new value leaves it.

A range is remembered in blocks: the largest and the smallest value of the last 64, 32 and 16 blocks of 64, 128 and 256
values, which is 4096 values at each length. Its upper end is the `QUANTILE` of the blocks' maxima, which is about the
second largest, so one earlier outburst does not hide the next. The distance of a value beyond the range, in units of
the range, is taken as generalised Pareto with shape 1 and scale `TAIL`: the probability to be further out is
1 / (1 + distance / TAIL). The evidence is the negative logarithm of that, the mean over the three lengths.

All functions are compiled. Their state is an array per quantity, with the place of the signal as the leading axis.
"""

from typing import NamedTuple

import numpy as np

from learnd.alarms.compiled import compiled
from learnd.core.types import Float64Array, Int64Array

MEMORY = 4096
"""Number of values that a range remembers."""
BLOCKS = (64, 128, 256)
"""Lengths of the blocks, in values."""
QUANTILE = 0.98
TAIL = 0.02
"""Scale of the distances beyond a range, in units of the range."""
FURTHEST = 10.0
"""Distances beyond this many ranges count as this: by then there is no doubt."""
_LENGTHS = np.array(BLOCKS)
_STARTS = np.concatenate([[0], np.cumsum(MEMORY // _LENGTHS)])
_EARLY = 4
"""The first blocks close at a quarter of their length, so that a young range is known soon."""


class Ranges(NamedTuple):
    """The remembered ranges of many signals. The leading axis of each array is the signal.

    Attributes
    ----------
    tops, bottoms : (signals, 112), extremes of the closed blocks, one length after the other
    high, low : (signals, lengths), the ends of the range; nan until the first block has closed
    largest, smallest : (signals, lengths), extremes of the open block
    held : (signals, lengths), values in the open block
    closed : (signals, lengths), blocks that have closed since the signal began
    """

    tops: Float64Array
    bottoms: Float64Array
    high: Float64Array
    low: Float64Array
    largest: Float64Array
    smallest: Float64Array
    held: Int64Array
    closed: Int64Array


def make_ranges(signals: int) -> Ranges:
    """Return the ranges of *signals* signals that have no value yet."""
    lengths = (signals, len(BLOCKS))
    kept = (signals, int(_STARTS[-1]))
    return Ranges(
        np.zeros(kept),
        np.zeros(kept),
        np.full(lengths, np.nan),
        np.full(lengths, np.nan),
        np.full(lengths, -np.inf),
        np.full(lengths, np.inf),
        np.zeros(lengths, np.int64),
        np.zeros(lengths, np.int64),
    )


def _quantile(values: Float64Array, share: float) -> float:
    """Return the *share* quantile of *values*, interpolated.

    >>> _quantile(np.array([3.0, 1.0, 2.0]), 0.75)
    2.5
    """
    ordered = np.sort(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    if below + 1 >= len(ordered):
        return float(ordered[below])
    return float(ordered[below] + (place - below) * (ordered[below + 1] - ordered[below]))


_quantile = compiled(_quantile)


def _evidence(distance: float, span: float) -> float:
    """Return the evidence of a value *distance* beyond a range of *span*; 0 inside.

    >>> round(_evidence(0.1, 1.0), 2), _evidence(-1.0, 1.0)
    (1.79, 0.0)
    """
    if distance <= 0.0:
        return 0.0
    return float(np.log1p(min(distance / span, FURTHEST) / TAIL))


beyond = compiled(_evidence)


def _observe(ranges: Ranges, signal: int, value: float, two_sided: bool) -> float:
    """Return the evidence of *value* against the range before it, then add it to the range.

    With *two_sided* false, only values above the range are evidence. This runs about ten times per reading, so it adds
    the value itself: a call that is passed all these arrays takes three times as long as the rest.
    """
    total = 0.0
    full_blocks = 0
    for length in range(len(_LENGTHS)):
        top, bottom = ranges.high[signal, length], ranges.low[signal, length]
        if value > top or (two_sided and value < bottom):  # false while both are nan
            distance = value - top
            if two_sided and bottom - value > distance:
                distance = bottom - value
            total += beyond(distance, max(top - bottom, 1e-9 * max(abs(top), abs(bottom), 1e-3)))
        if value > ranges.largest[signal, length]:
            ranges.largest[signal, length] = value
        if value < ranges.smallest[signal, length]:
            ranges.smallest[signal, length] = value
        count = ranges.held[signal, length] + 1
        ranges.held[signal, length] = count
        full = _LENGTHS[length] if ranges.closed[signal, length] >= _EARLY else _LENGTHS[length] // 4
        full_blocks += count >= full
    if full_blocks:
        for length in range(len(_LENGTHS)):
            _close(ranges, signal, length)
    return total / len(_LENGTHS)


def _observe_series(ranges: Ranges, signal: int, values: Float64Array, two_sided: bool, evidence: Float64Array) -> None:
    """Write the evidence of each of *values*, one after the other, as `observe` returns it; nan is passed over.

    Several times faster than a call for each, because a range stays in registers until its block is full.
    """
    evidence[:] = 0.0
    for length in range(len(_LENGTHS)):
        top, bottom = ranges.high[signal, length], ranges.low[signal, length]
        largest, smallest = ranges.largest[signal, length], ranges.smallest[signal, length]
        held = ranges.held[signal, length]
        full = _LENGTHS[length] if ranges.closed[signal, length] >= _EARLY else _LENGTHS[length] // 4
        for i in range(len(values)):
            value = values[i]
            if np.isnan(value):
                continue
            if value > top or (two_sided and value < bottom):  # false while both are nan
                distance = value - top
                if two_sided and bottom - value > distance:
                    distance = bottom - value
                evidence[i] += beyond(distance, max(top - bottom, 1e-9 * max(abs(top), abs(bottom), 1e-3)))
            largest, smallest = max(largest, value), min(smallest, value)
            held += 1
            if held >= full:
                ranges.largest[signal, length], ranges.smallest[signal, length] = largest, smallest
                ranges.held[signal, length] = held
                _close(ranges, signal, length)
                top, bottom = ranges.high[signal, length], ranges.low[signal, length]
                largest, smallest, held = -np.inf, np.inf, 0
                full = _LENGTHS[length] if ranges.closed[signal, length] >= _EARLY else _LENGTHS[length] // 4
        ranges.largest[signal, length], ranges.smallest[signal, length] = largest, smallest
        ranges.held[signal, length] = held
    evidence /= len(_LENGTHS)


def _observe_limited(ranges: Ranges, signal: int, value: float, most: float) -> float:
    """Return the evidence that *value* is above the range, then add it, but at most *most* spans above the range.

    So a fault does not soon become the range that the next one has to leave.
    """
    total = 0.0
    for length in range(len(_LENGTHS)):
        high, span = ranges.high[signal, length], ranges.high[signal, length] - ranges.low[signal, length]
        if np.isnan(high):
            _add(ranges, signal, length, value)
        else:
            total += beyond(value - high, max(span, 1e-9 * max(abs(high), 1e-3)))
            _add(ranges, signal, length, min(value, high + most * span))
    return total / len(_LENGTHS)


def _add_value(ranges: Ranges, signal: int, length: int, value: float) -> None:
    """Add *value* to the open block of one length, and close the block if it is full."""
    ranges.largest[signal, length] = max(ranges.largest[signal, length], value)
    ranges.smallest[signal, length] = min(ranges.smallest[signal, length], value)
    ranges.held[signal, length] += 1
    _close(ranges, signal, length)


def _close_block(ranges: Ranges, signal: int, length: int) -> None:
    """Close the open block of one length if it is full."""
    closed = ranges.closed[signal, length]
    full = _LENGTHS[length] if closed >= _EARLY else _LENGTHS[length] // 4
    if ranges.held[signal, length] < full:
        return
    start, count = _STARTS[length], _STARTS[length + 1] - _STARTS[length]
    place = start + closed % count
    ranges.tops[signal, place] = ranges.largest[signal, length]
    ranges.bottoms[signal, place] = ranges.smallest[signal, length]
    ranges.closed[signal, length] = closed + 1
    ranges.largest[signal, length], ranges.smallest[signal, length] = -np.inf, np.inf
    ranges.held[signal, length] = 0
    stop = start + min(closed + 1, count)
    ranges.high[signal, length] = _quantile(ranges.tops[signal, start:stop], QUANTILE)
    ranges.low[signal, length] = _quantile(ranges.bottoms[signal, start:stop], 1.0 - QUANTILE)


_close = compiled(_close_block)
_add = compiled(_add_value)
observe = compiled(_observe)
observe_series = compiled(_observe_series)
observe_limited = compiled(_observe_limited)
