"""Running centre and spread of a stream, element by element, for scaling. All of it is traced.

The first `RING_ROWS` values are described by their median and upper quartile, so that one absurd value has bounded
influence. From then on the moments forget: a new value has the share ``1 / min(n, MEMORY)``, and counts as at most
`REACH` spreads away. A run of `RESTART_AFTER` values beyond that is a new level. The moments then begin again from
those values, in one step. If their spread is about the old one, the level has shifted and the old spread is kept.
Otherwise the unit has changed, and the spread is new too.

A machine that switches between two levels would restart at every switch. So a return to the former level within
`RETURN_ROWS` rows makes the moments cover both levels.
"""

from typing import NamedTuple

import tensorflow as tf

from learnd.core.tensors import Tensor

RING_ROWS = 32
"""Newest values that are stored. The moments are computed from them at the start and at a restart."""
REACH = 6.0
"""Distance from the centre, in spreads, at which a value counts as far, and to which it is limited."""
MEMORY = 10_000.0
"""Largest number of values that the moments remember."""
RESTART_AFTER = 24
"""Number of far values in a run, after which the moments restart from the newest of them."""
SAME_UNIT = 2.5
"""Largest ratio of two spreads that count as the same unit."""
RETURN_ROWS = 2000
"""Largest number of rows between a change of level and the return that is taken for switching. Machines that switch
every 300 rows lost 70 % of their accuracy to restarts; at 2000 rows a restart is better than a wide spread."""
_QUARTILE_OF_NORMAL = 1.15
"""The upper quartile of the distance from the median, in standard deviations of a normal distribution."""
_LONGEST = 4.0
_TINY = 1e-12
"""A spread below this share of the centre is a rounding error."""


class Moments(NamedTuple):
    """The state of the moments: one entry per element in every tensor, float64.

    Attributes
    ----------
    ring : (RING_ROWS, *shape), the newest values; nan for a missing one
    rows : (), number of rows observed
    mean_count, spread_count : number of values that the centre and the spread rest on
    mean, variance : the centre, and the square of the spread
    far : length of the present run of far values; each near value takes two away
    former_mean, former_spread : from before the last restart; a spread of 0: there was none
    since : number of rows since the last restart
    """

    ring: Tensor
    rows: Tensor
    mean_count: Tensor
    spread_count: Tensor
    mean: Tensor
    variance: Tensor
    far: Tensor
    former_mean: Tensor
    former_spread: Tensor
    since: Tensor


def observe(state: Moments, x: Tensor) -> Moments:
    """Return the moments after one row *x*, float64, (*shape); nan: missing, which changes nothing.

    If `due` is true afterwards, `renew` has to follow before the next row is scaled. It sorts, which costs more than
    learning a sample. So the caller leaves its loop for it.
    """
    slot = tf.cast(state.rows % RING_ROWS, tf.int32)
    ring = tf.tensor_scatter_nd_update(state.ring, [[slot]], x[None])
    spread = tf.sqrt(state.variance)
    flat = spread <= 0.0
    missing = tf.math.is_nan(x)
    unit = tf.where(flat, tf.ones_like(spread), spread)
    z = tf.where(~missing, (x - state.mean) / unit, 0.0)
    far = tf.where(tf.abs(z) > REACH, state.far + 1.0, tf.maximum(state.far - 2.0, 0.0))
    far = tf.where(flat, tf.where(tf.equal(z, 0.0), tf.zeros_like(z), float(RESTART_AFTER)), far)
    step = tf.clip_by_value(z, -REACH, REACH) * unit
    mean_count, spread_count = state.mean_count + 1.0, state.spread_count + 1.0
    moved = step / tf.minimum(mean_count, MEMORY)
    variance = state.variance + (step * (step - moved) - state.variance) / tf.minimum(spread_count, MEMORY)
    unchanged = flat | missing
    return Moments(
        ring,
        state.rows + 1.0,
        tf.where(unchanged, state.mean_count, mean_count),
        tf.where(unchanged, state.spread_count, spread_count),
        tf.where(unchanged, state.mean, state.mean + moved),
        tf.where(unchanged, state.variance, variance),
        tf.where(missing, state.far, far),
        state.former_mean,
        state.former_spread,
        state.since + 1.0,
    )


def due(state: Moments) -> Tensor:
    """Return a boolean scalar: true among the first rows, and when an element has a new level."""
    is_due: Tensor = (state.rows <= RING_ROWS) | tf.reduce_any(state.far >= RESTART_AFTER)
    return is_due


def renew(state: Moments) -> Moments:
    """Return the moments from the newest values: of all elements among the first rows, later of those on a new level.

    An element that has not varied so far uses the whole ring.
    """
    ring, spread = state.ring, tf.sqrt(state.variance)
    young, flat = state.rows <= RING_ROWS, spread <= 0.0
    ages = _over_elements((state.rows - 1.0 - tf.range(RING_ROWS, dtype=tf.float64)) % RING_ROWS, ring)
    newest = tf.where(young, ages < state.rows, (ages < RESTART_AFTER) | flat)
    count, mean, new_spread = _robust(ring, newest & tf.math.is_finite(ring))
    zeros = tf.zeros_like(mean)
    at_first = Moments(ring, state.rows, count, count, mean, tf.square(new_spread), zeros, zeros, zeros, zeros)

    same_unit = ~flat & (new_spread < SAME_UNIT * spread) & (new_spread > spread / SAME_UNIT)
    keeps_spread = same_unit | (new_spread <= 0.0)
    variance = tf.where(keeps_spread, state.variance, tf.square(new_spread))
    switches = ~flat & (state.former_spread > 0.0) & (state.since < RETURN_ROWS)
    switches &= tf.abs(mean - state.former_mean) < REACH * tf.maximum(state.former_spread, spread)
    half = (mean - state.mean) / 2.0
    both = tf.maximum(tf.square(new_spread), state.variance) + tf.square(half)
    settled = tf.constant(float(RETURN_ROWS), tf.float64)
    restarted = Moments(
        ring,
        state.rows,
        tf.where(switches, settled, count),
        tf.where(switches, settled, tf.where(same_unit, state.spread_count, count)),
        tf.where(switches, state.mean + half, mean),
        tf.where(switches, both, variance),
        zeros,
        state.mean,
        spread,
        zeros,
    )
    restarts = (state.far >= RESTART_AFTER) & ~(flat & (new_spread <= 0.0))
    rest = state._replace(far=tf.where(state.far >= RESTART_AFTER, zeros, state.far))
    later = (tf.where(restarts, new, old) for new, old in zip(restarted[2:], rest[2:], strict=True))
    both_cases = (tf.where(young, new, old) for new, old in zip(at_first[2:], later, strict=True))
    return Moments(ring, state.rows, *both_cases)


def _robust(values: Tensor, present: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return count, centre and spread of the values that are *present*, over the first axis.

    Values beyond four spreads from the median, as its upper quartile tells, are limited. If more than three quarters
    are equal, the spread comes from all distances but the largest.
    """
    count = tf.reduce_sum(tf.cast(present, tf.float64), axis=0)
    some = count > 0.0
    ranks = _ranks(values, present)
    middle = _at(ranks, tf.floor((count - 1.0) / 2.0), values) + _at(ranks, tf.floor(count / 2.0), values)
    median = tf.where(some, middle / 2.0, 0.0)
    distances = tf.abs(values - median)
    by_distance = _ranks(distances, present)
    quartile = _at(by_distance, tf.floor((count - 1.0) * 0.75), distances) / _QUARTILE_OF_NORMAL
    without_largest = tf.where(by_distance < count - 1.0, distances, 0.0)
    others = tf.maximum(count - 1.0, 1.0)
    quartile = tf.where(quartile > 0.0, quartile, tf.sqrt(tf.reduce_sum(tf.square(without_largest), axis=0) / others))
    limit = _LONGEST * quartile
    limited = tf.where(present, tf.clip_by_value(values - median, -limit, limit), 0.0)
    offset = tf.reduce_sum(limited, axis=0) / tf.maximum(count, 1.0)
    squares = tf.where(present, tf.square(limited - offset), 0.0)
    spread = tf.sqrt(tf.reduce_sum(squares, axis=0) / others)
    mean = median + offset
    return count, mean, tf.where(some & (spread > _TINY * tf.abs(mean)), spread, 0.0)


def _ranks(values: Tensor, present: Tensor) -> Tensor:
    """Return the rank from 0 of each *present* value along the first axis; infinity for the others.

    Counts comparisons. XLA takes seconds to compile a sort, and these are 32 values.
    """
    order = _over_elements(tf.range(values.shape[0]), values)
    smaller = (values[:, None] > values[None]) | (
        tf.equal(values[:, None], values[None]) & (order[:, None] > order[None])
    )
    ranks = tf.reduce_sum(tf.cast(smaller & present[None], tf.float64), axis=1)
    ranked: Tensor = tf.where(present, ranks, float("inf"))
    return ranked


def _at(ranks: Tensor, rank: Tensor, values: Tensor) -> Tensor:
    """Return the value at *rank* of each element; 0 where there is none."""
    value: Tensor = tf.reduce_sum(tf.where(tf.equal(ranks, rank), values, 0.0), axis=0)
    return value


def _over_elements(column: Tensor, values: Tensor) -> Tensor:
    """Return *column*, one entry per row of *values*, in a shape that broadcasts over the elements."""
    reshaped: Tensor = tf.reshape(column, (-1, *[1] * (len(values.shape) - 1)))
    return reshaped
