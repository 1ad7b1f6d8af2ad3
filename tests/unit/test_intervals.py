"""Prediction intervals: the configured coverage, also after a change, from earlier samples only, however cut."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.core.types import Bounds, Float64Array, StepResult
from learnd.evaluation.evaluation import Evaluation, EvaluationSpec
from learnd.evaluation.intervals import BLOCK, ConformalIntervals
from tests.support.helpers import make_samples, step_result

CHANGE, AFTER = 4000, 2000


def _result(errors: Float64Array, *, averaged: Float64Array | None = None, **columns: Any) -> StepResult:
    """Return predictions whose errors, truth less prediction, are *errors*."""
    predictions = 100.0 + np.arange(len(errors), dtype=float)[:, None] * np.ones(errors.shape[1])
    samples = make_samples(np.zeros((len(errors), 1), np.float32), predictions + errors, **columns)  # type: ignore[arg-type]
    result = step_result(samples, predictions, np.ones(len(errors), np.float32))  # type: ignore[arg-type]
    return result if averaged is None else replace(result, averaged_predictions=predictions + errors - averaged)


def _rows(result: StepResult, rows: slice) -> StepResult:
    part = step_result(result.samples.take(rows), result.predictions[rows], result.losses[rows])  # type: ignore[arg-type]
    return replace(part, averaged_predictions=result.averaged_predictions[rows])


def _bounds(intervals: ConformalIntervals, result: StepResult) -> Bounds:
    bounds = intervals(result).bounds
    assert bounds is not None
    return bounds


def _coverage(errors: Float64Array, rows: slice, *, coverage: float = 0.9) -> Float64Array:
    """Return the share of truths within their interval over *rows*, by output."""
    result = _result(errors)
    bounds = _bounds(ConformalIntervals(coverage, errors.shape[1]), result)
    truth = result.samples.y
    shares: Float64Array = ((bounds.lower <= truth) & (truth <= bounds.upper))[rows].mean(axis=0)
    return shares


def _noise(kind: str) -> Float64Array:
    random = np.random.default_rng(5)
    shape = (CHANGE + AFTER, 20)
    if kind == "heavy tails":
        return random.standard_t(3, shape)
    if kind == "skewed":
        return random.exponential(size=shape) - 1.0
    normal = random.normal(size=shape)
    if kind == "autocorrelated":
        for i in range(1, len(normal)):
            normal[i] = 0.9 * normal[i - 1] + 0.436 * normal[i]
    return normal * 1e-6 if kind == "tiny" else normal


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "skewed", "autocorrelated", "tiny"])
def test_a_stationary_stream_is_covered_as_configured(kind: str, coverage: float) -> None:
    """Within 1.5 percentage points for each of 20 independent outputs, over 2000 samples."""
    covered = _coverage(_noise(kind), slice(1000, 3000), coverage=coverage)
    assert np.abs(covered - coverage).max() < 0.015


@pytest.mark.parametrize("factor", [3.0, 1 / 3.0])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_the_2000_samples_after_a_change_of_the_noise_are_covered_as_configured(coverage: float, factor: float) -> None:
    """Within 2 points for each of 20 outputs, the samples right after the change included."""
    noise = _noise("normal")
    noise[CHANGE:] *= factor
    covered = _coverage(noise, slice(CHANGE, CHANGE + AFTER), coverage=coverage)
    assert np.abs(covered - coverage).max() < 0.02


def test_the_width_is_that_of_the_quantiles() -> None:
    """Intervals that are too wide cover easily. These are at most 6 % wider than the quantiles of the noise."""
    noise = _noise("skewed")
    bounds = _bounds(ConformalIntervals(0.9, noise.shape[1]), _result(noise))
    ideal = np.quantile(noise[1000:], 0.95, axis=0) - np.quantile(noise[1000:], 0.05, axis=0)
    width = (bounds.upper - bounds.lower)[1000:].mean(axis=0)
    assert (width < 1.06 * ideal).all()
    assert (width > 0.94 * ideal).all()


def test_an_interval_need_not_contain_its_prediction() -> None:
    """Predictions that are 10 too low throughout get intervals above them."""
    noise = _noise("normal") + 10.0
    bounds = _bounds(ConformalIntervals(0.9, noise.shape[1]), _result(noise))
    assert (_result(noise).predictions[2000:] < bounds.lower[2000:]).mean() > 0.95


def test_a_machine_that_wakes_up_is_covered_again_soon() -> None:
    """After 3000 samples that were predicted exactly, the 500 after the next 300 are covered, by not too much."""
    noise = _noise("normal")
    noise[1000:CHANGE] = 0.0
    covered = _coverage(noise, slice(CHANGE + 300, CHANGE + 800)).mean()
    assert 0.88 < covered < 0.97


def test_one_absurd_truth_hardly_widens_the_interval() -> None:
    noise = _noise("normal")[:, :1]
    plain = _bounds(ConformalIntervals(0.9, 1), _result(noise))
    spoilt = noise.copy()
    spoilt[2000] = 1e9
    wide = _bounds(ConformalIntervals(0.9, 1), _result(spoilt))
    widths = [(b.upper - b.lower)[2001:2300].mean() for b in (plain, wide)]
    assert widths[1] < 1.3 * widths[0]


@pytest.mark.parametrize("row", [0, 1, 9])
def test_an_absurd_truth_at_the_start_is_soon_forgotten(row: int) -> None:
    """From sample 200 on, intervals are nearly those without it."""
    noise = _noise("normal")[:600, :1]
    plain = _bounds(ConformalIntervals(0.9, 1), _result(noise))
    spoilt = noise.copy()
    spoilt[row] = 1e6
    wide = _bounds(ConformalIntervals(0.9, 1), _result(spoilt))
    widths = [(b.upper - b.lower)[200:].mean() for b in (plain, wide)]
    assert widths[1] < 1.3 * widths[0]


def test_an_interval_comes_from_earlier_samples_only() -> None:
    """Another truth changes no interval up to its own sample, and some after it."""
    noise = _noise("normal")[:600, :2]
    other = noise.copy()
    other[300] += 50.0
    first, second = (_bounds(ConformalIntervals(0.9, 2), _result(errors)) for errors in (noise, other))
    assert np.array_equal(first.upper[:301], second.upper[:301], equal_nan=True)
    assert np.array_equal(first.lower[:301], second.lower[:301], equal_nan=True)
    assert not np.array_equal(first.upper[301:], second.upper[301:])


def test_there_is_an_interval_from_the_second_sample_on() -> None:
    bounds = _bounds(ConformalIntervals(0.9, 1), _result(_noise("normal")[:3, :1]))
    assert np.isnan(bounds.lower[:, 0]).tolist() == [True, False, False]
    assert (bounds.lower[1:] < bounds.upper[1:]).all()


@given(cuts=st.lists(st.integers(0, 300), max_size=8).map(sorted), resumed_at=st.integers(0, 300))
def test_intervals_do_not_depend_on_how_the_stream_was_cut(cuts: list[int], resumed_at: int) -> None:
    """To the last bit, with samples that have no target, and after a restart from the bytes of a checkpoint."""
    random = np.random.default_rng(1)
    errors = random.normal(size=(300, 2))
    result = _result(errors, averaged=errors * 2.0, has_target=random.random(300) < 0.7)
    whole = ConformalIntervals(0.9, 2)
    expected = _bounds(whole, result)
    state = state_codec.encode(whole.state())
    assert state_codec.encode(_observed(result, cuts).state()) == state
    first = _observed(_rows(result, slice(0, resumed_at)), ())
    resumed = ConformalIntervals(0.9, 2)
    resumed.restore(state_codec.decode(state_codec.encode(first.state())))
    rest = _rows(result, slice(resumed_at, 300))
    if resumed_at < 300:
        assert np.array_equal(_bounds(resumed, rest).lower, expected.lower[resumed_at:], equal_nan=True)
    assert state_codec.encode(resumed.state()) == state


def _observed(result: StepResult, cuts: Sequence[int]) -> ConformalIntervals:
    intervals = ConformalIntervals(0.9, 2)
    for start, stop in zip([0, *cuts], [*cuts, len(result.samples)], strict=True):
        intervals(_rows(result, slice(start, stop)))
    return intervals


def test_samples_without_a_target_have_an_interval_and_teach_nothing() -> None:
    errors = np.random.default_rng(2).normal(size=(200, 1))
    known = np.arange(200) % 2 == 0
    half = ConformalIntervals(0.9, 1)
    bounds = _bounds(half, _result(errors, has_target=known))
    assert np.isfinite(bounds.lower[1:]).all()
    only_known = ConformalIntervals(0.9, 1)
    only_known(_rows(_result(errors), slice(0, 200, 2)))
    assert half.state()["ends"].tolist() == only_known.state()["ends"].tolist()


def test_another_coverage_after_a_restart_keeps_the_size_of_the_errors() -> None:
    """The intervals are right at once: as wide as those of a normal distribution."""
    before = ConformalIntervals(0.5, 1)
    before(_result(np.random.default_rng(3).normal(size=(1000, 1))))
    after = ConformalIntervals(0.95, 1)
    after.restore(before.state())
    offsets = after.offsets()
    assert offsets is not None
    assert offsets.coverage == 0.95
    assert float(offsets.upper[0]) == pytest.approx(1.96, rel=0.2)


def test_a_prediction_that_is_not_finite_spoils_nothing() -> None:
    errors = np.random.default_rng(4).normal(size=(400, 1))
    result = _result(errors)
    predictions = result.predictions.copy()
    predictions[100], predictions[200] = np.nan, np.inf
    spoilt = ConformalIntervals(0.9, 1)(replace(result, predictions=predictions))
    assert spoilt.bounds is not None
    assert np.isfinite(spoilt.bounds.lower[201:]).all()
    evaluation = Evaluation(EvaluationSpec("targets", "last_truth", 1))
    with np.errstate(invalid="raise"):
        evaluation.observe(spoilt)
    assert 0.8 < evaluation.quality().total.measures["interval_coverage"] < 0.97


def test_offsets_are_those_of_averaged_predictions() -> None:
    """An export has the averaged weights. Here their errors are five times those of the live predictions."""
    errors = np.random.default_rng(6).normal(size=(3000, 1))
    intervals = ConformalIntervals(0.9, 1)
    assert intervals.offsets() is None
    intervals(_result(errors, averaged=errors * 5.0))
    offsets = intervals.offsets()
    assert offsets is not None
    assert offsets.samples == 3000
    assert float(offsets.upper[0]) == pytest.approx(5 * 1.645, rel=0.25)
    assert float(offsets.lower[0]) == pytest.approx(-5 * 1.645, rel=0.25)


def test_coverage_and_width_are_figures() -> None:
    """As counted by hand; the first sample has no interval and is left out."""
    errors = _noise("normal")[:, :2]
    result = ConformalIntervals(0.8, 2)(_result(errors, averaged=errors * 2.0))
    evaluation = Evaluation(EvaluationSpec("targets", "last_truth", 2))
    evaluation.observe(result)
    bounds, truth = result.bounds, result.samples.y
    assert bounds is not None
    measures = evaluation.quality().total.measures
    inside = (bounds.lower <= truth) & (truth <= bounds.upper)
    assert measures["interval_coverage"] == pytest.approx(inside[1:].mean())
    assert measures["interval_width"] == pytest.approx((bounds.upper - bounds.lower)[1:].mean())
    averaged = (bounds.averaged_upper - bounds.averaged_lower)[1:].mean()
    assert measures["averaged_interval_width"] == pytest.approx(averaged)
    assert averaged == pytest.approx(2 * measures["interval_width"], rel=0.05)


def test_the_state_is_bounded() -> None:
    intervals = ConformalIntervals(0.9, 3)
    sizes = []
    for _ in range(5 * BLOCK):
        intervals(_result(np.ones((1, 3))))
        sizes.append(len(state_codec.encode(intervals.state())))
    assert max(sizes[: 2 * BLOCK]) >= max(sizes[2 * BLOCK :]) - 16
