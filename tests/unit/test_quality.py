"""Skill against a naive forecast: the right naive errors, in the same units, however the stream was cut."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.core.quality import Quality
from learnd.core.types import Float32Array, StepResult
from learnd.evaluation.block_sums import BlockSums
from learnd.evaluation.class_table import FADING, ClassTable
from learnd.evaluation.evaluation import Evaluation, EvaluationSpec
from learnd.evaluation.export_loss import ROWS, FrozenForward
from learnd.evaluation.naive import LastTruth, RunningMean
from learnd.evaluation.numbers import NumberMeasure
from tests.support.helpers import make_samples, step_result

COUNT = 2300
_RANDOM = np.random.default_rng(0)
KEYS = [f"m{i}" for i in _RANDOM.integers(0, 3, COUNT)]
REGRESSION = EvaluationSpec("targets", "last_truth", 1)


def _stream(kind: str) -> tuple[EvaluationSpec, StepResult]:
    """Return a task and the result of one large batch of it."""
    random = np.random.default_rng(1)
    x = random.normal(size=(COUNT, 4, 2)).astype(np.float32)
    if kind == "classes":
        y = random.integers(0, 3, (COUNT, 1)).astype(np.float32)
        predictions = random.dirichlet(np.ones(4), COUNT).astype(np.float32)
        return EvaluationSpec("classes", "class_table", 4), _result(x, y, predictions)
    if kind == "forecast":
        y = random.normal(size=(COUNT, 6)).astype(np.float32)
        parts = {"step 1": [0, 1], "step 2": [2, 3], "step 3": [4, 5]}
        return EvaluationSpec("targets", "last_reading", 6, 2, parts), _result(x, y, y + 1.0)
    if kind == "reconstruction":
        y = np.empty((COUNT, 0), np.float32)
        return EvaluationSpec("inputs", "running_mean", 8, 2), _result(x, y, x.reshape(COUNT, -1) * 0.5)
    y = random.normal(size=(COUNT, 2)).astype(np.float32) * [1.0, 1e6]
    return EvaluationSpec("targets", "last_truth", 2, parts={"a": [0], "b": [1]}), _result(x, y, y * 0.5)


def _result(x: Any, y: Any, predictions: Any, *, keys: Sequence[str] = KEYS, **columns: Any) -> StepResult:
    y, predictions = np.asarray(y, np.float32), np.asarray(predictions, np.float32)
    samples = make_samples(np.asarray(x, np.float32), y, keys=keys[: len(y)], **columns)
    return step_result(samples, predictions, np.ones(len(y), np.float32))


def _rows(result: StepResult, rows: slice) -> StepResult:
    return step_result(result.samples.take(rows), result.predictions[rows], result.losses[rows])


def _observed(spec: EvaluationSpec, result: StepResult, cuts: Sequence[int] = ()) -> Evaluation:
    evaluation = Evaluation(spec)
    for start, stop in zip([0, *cuts], [*cuts, len(result.samples)], strict=True):
        evaluation.observe(_rows(result, slice(start, stop)))
    return evaluation


def _text(quality: Quality) -> str:
    """Return a quality as text, in which nan equals nan."""
    return repr(quality)


KINDS = ("regression", "forecast", "classes", "reconstruction")


@pytest.mark.parametrize("kind", KINDS)
@given(cuts=st.lists(st.integers(0, COUNT), max_size=8).map(sorted), resumed_at=st.integers(0, COUNT))
def test_the_state_does_not_depend_on_how_the_stream_was_cut(kind: str, cuts: list[int], resumed_at: int) -> None:
    """To the last bit, also after a restart from the bytes of a checkpoint."""
    spec, result = _stream(kind)
    expected = state_codec.encode(_observed(spec, result).state())
    assert state_codec.encode(_observed(spec, result, cuts).state()) == expected
    first = _observed(spec, _rows(result, slice(0, resumed_at)))
    resumed = Evaluation(spec)
    resumed.restore(state_codec.decode(state_codec.encode(first.state())))
    resumed.observe(_rows(result, slice(resumed_at, COUNT)))
    assert state_codec.encode(resumed.state()) == expected
    assert _text(resumed.quality()) == _text(_observed(spec, result).quality())


def test_single_samples_give_the_state_of_one_large_batch() -> None:
    """The fast path for one sample computes the same bits."""
    for kind in KINDS:
        spec, result = _stream(kind)
        some = _rows(result, slice(0, 230))
        one_by_one = _observed(spec, some, range(1, 230))
        assert state_codec.encode(one_by_one.state()) == state_codec.encode(_observed(spec, some).state()), kind


def test_the_naive_forecast_of_a_regression_is_the_last_truth_of_the_same_key() -> None:
    """The first sample of a key has none, and counts for the model's error but not for its skill."""
    keys = ["a", "b", "a", "b", "a"]
    y = np.array([[0.0], [10.0], [2.0], [13.0], [4.0]])
    predictions = y + np.array([[100.0], [100.0], [1.0], [1.0], [-1.0]])
    quality = _observed(REGRESSION, _result(np.zeros((5, 1)), y, predictions, keys=keys)).quality()
    errors = quality.recent.errors
    assert (errors.samples, quality.recent.samples) == (3, 5)
    assert errors.naive == pytest.approx((2 + 3 + 2) / 3)
    assert errors.live == errors.averaged == pytest.approx(1.0)
    assert errors.live_skill == pytest.approx(1 - 3 / 7)
    assert quality.recent.measures["mae"] == pytest.approx(203 / 5)
    assert quality.recent.measures["bias"] == pytest.approx(201 / 5)


def test_the_figures_are_those_of_their_definitions() -> None:
    """MAE, RMSE, R2 and bias of the whole stream, against NumPy, also for a target of 1e9 with a deviation of 10."""
    random = np.random.default_rng(3)
    y = 1e6 + 10.0 * random.normal(size=(800, 1)).astype(np.float32)
    y = y.astype(np.float32)
    predictions = (y + random.normal(size=y.shape) + 0.5).astype(np.float32)
    measures = _observed(REGRESSION, _result(np.zeros((800, 1)), y, predictions, keys=["k"] * 800)).quality().total
    errors = predictions.astype(float) - y.astype(float)
    assert measures.measures["mae"] == pytest.approx(np.abs(errors).mean())
    assert measures.measures["rmse"] == pytest.approx(math.sqrt(np.square(errors).mean()))
    assert measures.measures["bias"] == pytest.approx(errors.mean())
    assert measures.measures["r2"] == pytest.approx(1 - np.square(errors).mean() / y.astype(float).var())
    assert measures.errors.naive == pytest.approx(np.abs(np.diff(y.astype(float), axis=0)).mean())


def test_a_target_with_large_numbers_does_not_hide_the_others() -> None:
    """Each output counts in its own standard deviations: half right on both is half of the error on both."""
    spec, result = _stream("regression")
    y = result.samples.y
    small_wrong = np.stack([np.zeros(COUNT), y[:, 1]], axis=1)
    skill = _observed(spec, _result(result.samples.x, y, small_wrong)).quality().total.errors.live_skill
    large_wrong = np.stack([y[:, 0], np.zeros(COUNT)], axis=1)
    other = _observed(spec, _result(result.samples.x, y, large_wrong)).quality().total.errors.live_skill
    assert skill == pytest.approx(other, abs=0.03)
    assert 0.6 < skill < 0.7


def test_the_window_forgets_and_the_total_does_not() -> None:
    """After 1000 good samples, the bad ones before are gone from the recent figures only."""
    y = np.tile([[0.0], [1.0]], (1000, 1))
    predictions = y + np.where(np.arange(2000) < 1000, 5.0, 0.0)[:, None]
    quality = _observed(REGRESSION, _result(np.zeros((2000, 1)), y, predictions, keys=["k"] * 2000)).quality()
    assert quality.recent.measures["mae"] == 0.0
    assert quality.recent.samples == 1000
    assert quality.total.measures["mae"] == pytest.approx(2.5)
    assert quality.recent.errors.live_skill == 1.0
    assert quality.total.errors.live_skill == pytest.approx(1.0 - 2.5, abs=0.01)


def test_the_naive_forecast_of_a_forecast_is_the_last_reading_for_every_step() -> None:
    """By step ahead, the error grows on a series that walks."""
    walk = np.cumsum(np.ones(30))[:, None]
    x = np.stack([walk[i : i + 4] for i in range(20)])
    y = np.stack([walk[i + 4 : i + 7, 0] for i in range(20)])
    spec = EvaluationSpec("targets", "last_reading", 3, 1, {f"step {i}": [i - 1] for i in (1, 2, 3)})
    figures = _observed(spec, _result(x, y, y, keys=["k"] * 20)).quality().recent
    assert [figures.parts[f"step {i}"]["naive_mae"] for i in (1, 2, 3)] == [1.0, 2.0, 3.0]
    assert [figures.parts[f"step {i}"]["mae"] for i in (1, 2, 3)] == [0.0, 0.0, 0.0]
    assert figures.errors.samples == 20


def test_the_naive_forecast_of_a_reconstruction_is_the_running_mean() -> None:
    """The first sample has none; the mean forgets."""
    mean = RunningMean(1, samples=10)
    values = np.concatenate([np.zeros(20), np.full(30, 8.0)])[:, None]
    samples = make_samples(values.astype(np.float32), values.astype(np.float32))
    forecasts = mean.forecast(samples, values)[:, 0]
    assert math.isnan(forecasts[0])
    assert forecasts[20] == 0.0
    assert forecasts[29] == pytest.approx(8.0 * 9 / 19)
    assert forecasts[40:].tolist() == [8.0] * 10


def _table_losses(labels: list[int], keys: Sequence[str] | None = None) -> Any:
    names = np.array(keys if keys is not None else ["k"] * len(labels), object)
    return ClassTable().forecast(names, labels)


def test_the_naive_forecast_of_classes_learns_which_class_follows_which() -> None:
    """On a cycle the table is nearly certain and the frequencies are not; per key, not across keys."""
    cycle = [0, 1, 2] * 200
    forecasts = _table_losses(cycle)
    assert forecasts.losses[0, -100:].mean() < 0.1
    assert forecasts.losses[1, -100:].mean() == pytest.approx(math.log(3), abs=0.05)
    assert forecasts.right[0, -100:].all()
    two = [label for label in cycle for _ in range(2)]
    by_key = _table_losses(two, ["a", "b"] * len(cycle))
    assert by_key.right[0, -100:].all()


def test_the_first_sample_of_a_class_counts_for_nobody() -> None:
    """Neither the model nor the naive forecast can know it."""
    assert _table_losses([0, 0, 1, 0]).known.tolist() == [False, True, False, True]


def test_the_class_table_is_that_of_the_definition() -> None:
    """Fading counts, smoothed by the frequencies; through the change of units as well."""
    labels = np.random.default_rng(4).integers(0, 4, 9000).tolist()
    losses = _table_losses(labels).losses
    counts, following, seen = np.zeros(4), np.zeros((4, 4)), set()
    for i, label in enumerate(labels):
        by_frequency = (counts[label] + 0.5) / (counts.sum() + 0.5 * (len(seen) + 1))
        if i == len(labels) - 1:
            row = following[labels[i - 1]]
            assert losses[1, i] == pytest.approx(-math.log(by_frequency))
            assert losses[0, i] == pytest.approx(-math.log((row[label] + by_frequency) / (row.sum() + 1.0)))
        counts, following = counts * FADING, following * FADING
        counts[label] += 1.0
        if i:
            following[labels[i - 1], label] += 1.0
        seen.add(label)


def test_figures_of_classes() -> None:
    """Accuracy, log loss, macro F1, recall and precision by name; the better naive forecast counts."""
    y = np.array([[0], [0], [0], [1], [1], [2]] * 50)
    answer = np.array([0, 0, 1, 1, 1, 0] * 50)
    predictions = np.full((300, 4), 0.1)
    predictions[np.arange(300), answer] = 0.7
    evaluation = Evaluation(EvaluationSpec("classes", "class_table", 4), lambda: ("ok", "worn"))
    evaluation.observe(_result(np.zeros((300, 1)), y, predictions, keys=["k"] * 300))
    figures = evaluation.quality().recent
    assert figures.measures["accuracy"] == pytest.approx(4 / 6)
    assert figures.measures["log_loss"] == pytest.approx(-(4 * math.log(0.7) + 2 * math.log(0.1)) / 6, rel=1e-6)
    # ok: 2 hits of 3 and 3 predicted; worn: 2 of 2 and 3 predicted; 2: none.
    assert figures.measures["macro_f1"] == pytest.approx((4 / 6 + 4 / 5 + 0) / 3)
    assert figures.parts["ok"]["recall"] == pytest.approx(2 / 3)
    assert figures.parts["worn"]["precision"] == pytest.approx(2 / 3)
    assert figures.parts["2"]["recall"] == 0.0
    assert math.isnan(figures.parts["2"]["precision"])
    assert figures.errors.samples == 297
    assert figures.errors.naive < 0.75, "the table knows most of this cycle"
    assert figures.errors.live_skill < 0.0


def test_samples_without_a_target_are_left_out() -> None:
    """They change neither figures nor the last truth."""
    y = np.array([[1.0], [99.0], [2.0]])
    known = np.array([True, False, True])
    result = _result(np.zeros((3, 1)), y, y, keys=["k"] * 3, has_target=known)
    assert _observed(REGRESSION, result).quality().recent.errors.naive == 1.0
    nothing = _result(np.zeros((1, 1)), y[:1], y[:1], keys=["k"], has_target=np.array([False]))
    evaluation = _observed(REGRESSION, nothing)
    assert evaluation.compared is None
    assert evaluation.quality() == Quality()


def test_one_absurd_prediction_leaves_the_figures_finite() -> None:
    """No number, or an infinite one, counts as a very large error, on the side of its sign."""
    y = np.zeros((3, 1))
    quality = _observed(REGRESSION, _result(y, y, [[math.nan], [math.inf], [-math.inf]], keys=["k"] * 3)).quality()
    assert all(math.isfinite(figure) for name, figure in quality.recent.measures.items() if name != "r2")
    shares = np.full((2, 3), math.nan)
    spec = EvaluationSpec("classes", "class_table", 3)
    classes = _observed(spec, _result(np.zeros((2, 1)), np.zeros((2, 1)), shares, keys=["k"] * 2)).quality()
    assert classes.recent.measures["log_loss"] == pytest.approx(-math.log(1e-7))


def test_a_perfect_naive_forecast_has_no_skill_to_compare_with() -> None:
    """At standstill nothing can be better than naive, and a small error is not called worse."""
    y = np.concatenate([np.arange(100.0), np.full(1200, 7.0)])[:, None]
    errors = _observed(REGRESSION, _result(y, y, y + 0.1, keys=["k"] * 1300)).quality().recent.errors
    assert errors.naive == 0.0
    assert math.isnan(errors.live_skill)
    assert not errors.worse_than_naive(errors.live, margin=0.05)


def test_wide_predictions_are_evaluated_on_some_outputs() -> None:
    """Time and memory stay bounded; the state of 1000 outputs is small."""
    x = np.random.default_rng(0).normal(size=(50, 1000))
    evaluation = _observed(EvaluationSpec("inputs", "running_mean", 1000, 1000), _result(x, x[:, :0], x * 0.5))
    assert len(state_codec.encode(evaluation.state())) < 120_000
    assert 0.3 < evaluation.quality().recent.errors.live_skill < 0.7


def test_more_keys_than_the_table_holds_have_no_naive_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded; known keys keep theirs."""
    monkeypatch.setattr("learnd.evaluation.naive.MAX_KEYS", 2)
    naive = LastTruth(1)
    for y in (np.arange(4.0), np.arange(4.0) + 10.0):
        samples = make_samples(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32), keys=["a", "b", "c", "a"])
        forecasts = naive.forecast(samples, y[:, None])[:, 0].tolist()
    assert forecasts[:2] == [3.0, 1.0]
    assert math.isnan(forecasts[2])
    assert forecasts[3] == 10.0
    alone = naive.forecast(make_samples(samples.x[:1], samples.y[:1], keys=["d"]), np.zeros((1, 1)))
    assert math.isnan(alone[0, 0])


@pytest.mark.parametrize("counted", [0, 1, 99, 100, 999, 1000, 1001, 1050, 5300])
def test_a_window_holds_nearly_its_samples(counted: int) -> None:
    """All until 1000, then between 901 and 1000."""
    sums = BlockSums((1,))
    sums.add(np.ones((counted, 1)))
    assert sums.recent().tolist() == [sums.recent_samples]
    assert sums.total().tolist() == [counted]
    assert min(counted, 901) <= sums.recent_samples <= 1000


def _frozen(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
    return np.full(len(x), 3.0, np.float32), y + 0.5


def test_an_export_is_compared_on_the_rows_that_it_was_evaluated_on() -> None:
    """The newest of each batch, for export, averaged weights and naive forecast alike."""
    y = np.cumsum(np.ones(200))[:, None]
    evaluation, forward = Evaluation(REGRESSION), FrozenForward(NumberMeasure(1))
    forward.begin(5, _frozen)
    for start in range(0, 200, 100):
        result = _result(y[start : start + 100], y[start : start + 100], y[start : start + 100], keys=["k"] * 100)
        evaluation.observe(result)
        forward.observe(result, evaluation.compared)
    published = forward.published()
    assert published is not None
    assert (published.recent_samples, published.recent_loss, published.averaged_loss) == (2 * ROWS, 3.0, 1.0)
    assert (published.error, published.naive_error) == (0.5, 1.0)
    assert published.skill == 0.5
