"""The distance of a row from what readings are together: what it computes, what it finds, and what it leaves alone."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from learnd.alarms.distance import EVERY, LIMIT, MOST, RIDGE, make_distance, observe_rows
from learnd.alarms.ranges import make_ranges, observe, observe_limited
from tests.unit.test_alarms import _monitor, _run, _samples

Rows = npt.NDArray[np.float64]


def _together(rows: int, columns: int = 4, *, seed: int = 1) -> Rows:
    """Return columns that all follow one of two factors, with a little noise of their own."""
    random = np.random.default_rng(seed)
    mix = random.normal(size=(2, columns))
    mix /= np.sqrt((mix**2).sum(axis=0))
    common: Rows = random.normal(size=(rows, 2)) @ mix
    return common + 0.1 * random.normal(size=(rows, columns))


def _evidence(x: Rows, *, head: Any = None) -> Rows:
    evidence = np.zeros(x.shape)
    observe_rows(make_distance(x.shape[1]) if head is None else head, x, np.zeros(len(x), np.int64), 300, evidence)
    return evidence


def test_mean_covariance_and_factor_are_those_of_all_rows() -> None:
    """While nothing is far and nothing is forgotten yet, against NumPy."""
    x = _together(10 * EVERY)
    head = make_distance(4)
    _evidence(x, head=head)
    covariance = np.cov(x.T, bias=True)
    np.testing.assert_allclose(head.mean[0], x.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(np.tril(head.covariance[0]), np.tril(covariance), atol=1e-12)
    ridge = np.diag(RIDGE * np.diag(covariance))
    np.testing.assert_allclose(head.factor[0], np.linalg.cholesky(covariance + ridge), atol=1e-9)


def test_readings_that_no_longer_go_together_raise_an_alarm_that_names_them() -> None:
    """A column is mirrored: its readings are as ever, and no longer follow the others."""
    x = _together(3000)
    x[2500:2520, 2] *= -1.0
    alarms, _ = _run(_monitor(4, periods_s=[]), _samples(x))
    alone, _ = _run(_monitor(1, periods_s=[]), _samples(x[:, 2]))
    raised = [row for row in np.flatnonzero(alarms.raised) if row >= 2400]
    assert raised
    assert 2500 <= raised[0] < 2520
    assert alarms.evidence[raised[0]].argmax() == 2
    assert not alone.raised[2400:].any()


def test_a_fault_does_not_hide_the_next_one() -> None:
    """Not even one that is far larger, and lasts for several blocks of the range."""
    x = _together(6000)
    x[2000:2200, 0] += 8.0
    x[4000:4050, 2] *= -1.0
    evidence = _evidence(x).sum(axis=1)
    assert evidence[2000] > 2.0
    assert evidence[4000:4050].max() > 2.0


def test_the_evidence_is_that_of_the_range_while_values_stay_within_its_limit() -> None:
    """Beyond it, the range follows more slowly."""
    values = np.abs(np.random.default_rng(2).normal(size=3000))
    plain, limited = make_ranges(1), make_ranges(1)
    for value in values:
        assert observe(plain, 0, value, False) == observe_limited(limited, 0, value, 1e9)
    for value in [50.0] * 512:
        observe_limited(limited, 0, value, LIMIT)
        observe(plain, 0, value, False)
    assert limited.high[0, 0] < 0.5 * plain.high[0, 0]


def test_columns_that_repeat_others_or_never_change_say_nothing() -> None:
    """Their covariance has no inverse."""
    x = _together(3000)
    x = np.concatenate([x, x[:, :1], 2.0 * x[:, 1:2] + 7.0, np.full((3000, 1), 0.1)], axis=1)
    evidence = _evidence(x)
    assert np.isfinite(evidence).all()
    assert (evidence.sum(axis=1) > 2.0).sum() <= 2


def test_a_row_without_one_of_its_readings_is_passed_over() -> None:
    """The others are as if it had not been; a column that never had a reading is left out."""
    x = _together(2000)
    gaps = np.insert(x, [700, 1300, 1301], np.full(4, 5.0), axis=0)
    gaps[[700, 1301, 1303], 1] = np.nan
    kept = ~np.isnan(gaps[:, 1])
    np.testing.assert_array_equal(_evidence(gaps)[kept], _evidence(x))
    never = np.concatenate([x, np.full((2000, 1), np.nan)], axis=1)
    np.testing.assert_array_equal(_evidence(never)[:, :4], _evidence(x))


@pytest.mark.parametrize("columns", [1, MOST + 1])
def test_one_column_or_very_many_have_no_distance(columns: int) -> None:
    """And take no memory for it."""
    head = make_distance(columns)
    assert head.covariance.size == head.mean.size == head.ranges.tops.size == 0
    assert not _evidence(100.0 * _together(400, columns), head=head).any()


def test_the_distance_is_in_the_checkpoint() -> None:
    """Without it, an alarm would be missed after a restart."""
    x = _together(3000)
    x[2500:2520, 2] *= -1.0
    whole, _ = _run(_monitor(4), _samples(x))
    first = _monitor(4)
    _run(first, _samples(x[:2400]))
    second = _monitor(4)
    second.restore(first.state())
    later, _ = _run(second, _samples(x[2400:], first=2400))
    np.testing.assert_array_equal(later.evidence, whole.evidence[2400:])
