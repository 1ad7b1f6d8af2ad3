"""Figures of class probabilities, and figures that fade, against their definitions in NumPy."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from learnd.checkpoint import state_codec
from learnd.core.quality import Quality
from learnd.core.types import Float64Array
from learnd.evaluation.block_sums import BLOCKS, FADING_HALF_LIFE_SAMPLES, WINDOW_SAMPLES
from learnd.evaluation.classes import ClassEvaluation
from learnd.evaluation.evaluation import Evaluation, EvaluationSpec
from learnd.evaluation.probabilities import (
    CALIBRATION_BINS,
    MOST_RANKED,
    ProbabilityEvaluation,
    bins_of,
    ranking,
)
from tests.support.helpers import make_samples, step_result


def _exact_area(probabilities: Float64Array, positive: Float64Array) -> float:
    """Return the area under the ROC curve by comparing all pairs; ties count half."""
    ours, others = probabilities[positive], probabilities[~positive]
    pairs = ours[:, None] - others[None]
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def _two_classes(count: int, *, share: float, separation: float, seed: int = 0) -> tuple[Float64Array, Float64Array]:
    """Return calibrated probabilities, shape (n, 2), and the true classes."""
    random = np.random.default_rng(seed)
    logits = math.log(share / (1 - share)) + separation * random.normal(size=count)
    p = 1.0 / (1.0 + np.exp(-logits))
    labels = (random.random(count) < p).astype(np.int64)
    return np.stack([1.0 - p, p], axis=1), labels


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("separation", [0.2, 1.0, 4.0])
def test_the_area_is_that_of_all_pairs_within_the_stated_error(share: float, separation: float) -> None:
    """Also for rare classes and for probabilities that hardly differ: far nearer than its bound."""
    p, labels = _two_classes(4000, share=share, separation=separation)
    positive, bins = labels == 1, bins_of(p[:, 1])
    counts = [np.bincount(bins[mask], minlength=200).astype(float) for mask in (~positive, positive)]
    area, error = ranking(*counts)
    exact = _exact_area(p[:, 1], positive)
    assert abs(area - exact) <= error + 1e-12
    assert error < 0.25
    assert area == pytest.approx(exact, abs=0.01)


def _figures(predictions: Float64Array, labels: Float64Array, cuts: Sequence[int] = ()) -> Quality:
    evaluation = ClassEvaluation(predictions.shape[1], tuple)
    for start, stop in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        rows = slice(start, stop)
        samples = make_samples(np.zeros((stop - start, 1), np.float32), labels[rows, None])
        evaluation.observe(samples, predictions[rows], predictions[rows] ** 2)
    return evaluation.quality()


def test_two_classes_have_the_figures_of_their_definitions() -> None:
    """ROC AUC, expected calibration error and Brier score since the start, by NumPy."""
    p, labels = _two_classes(3000, share=0.3, separation=1.5, seed=1)
    p = p**2 / (p**2).sum(axis=1, keepdims=True)  # too sure of itself
    measures = _figures(p, labels).total.measures
    assert measures["roc_auc"] == pytest.approx(_exact_area(p[:, 1], labels == 1), abs=0.002)
    assert measures["brier"] == pytest.approx(np.square(p[:, 1] - labels).mean())
    highest, right = p.max(axis=1), p.argmax(axis=1) == labels
    bins = np.minimum((highest * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [abs(right[bins == b].mean() - highest[bins == b].mean()) * (bins == b).mean() for b in set(bins.tolist())]
    assert measures["calibration_error"] == pytest.approx(sum(gaps))
    assert measures["calibration_error"] > 0.05
    squares = p**4  # the averaged weights of `_figures`
    squares[np.arange(3000), labels] = (1 - p[np.arange(3000), labels] ** 2) ** 2
    assert measures["averaged_brier"] == pytest.approx(squares.sum(axis=1).mean() / 2)


def test_probabilities_that_mean_what_they_say_have_a_small_calibration_error() -> None:
    p, labels = _two_classes(20_000, share=0.4, separation=1.5, seed=2)
    assert _figures(p, labels).total.measures["calibration_error"] < 0.015


def test_several_classes_are_ranked_one_against_the_rest() -> None:
    """The mean of the areas of all classes that occur; a class without samples has none."""
    random = np.random.default_rng(3)
    labels = random.integers(0, 3, 2000)
    logits = random.normal(size=(2000, 5)) + 1.5 * np.eye(5)[labels]
    p = np.exp(logits)
    p[:, 3:] = 0.0  # not known yet
    p /= p.sum(axis=1, keepdims=True)
    expected = np.mean([_exact_area(p[:, c], labels == c) for c in range(3)])
    assert _figures(p, labels).total.measures["roc_auc"] == pytest.approx(expected, abs=0.002)


def test_samples_before_a_class_was_known_do_not_rank_it() -> None:
    """Its probability was 0 then, which would count as right for each of them."""
    random = np.random.default_rng(4)
    p = random.dirichlet(np.ones(2), 1000)
    p = np.concatenate([p, np.zeros((1000, 1))], axis=1)
    labels = random.integers(0, 2, 1000)
    p[500:] = random.dirichlet(np.ones(3), 500)
    labels[500:] = random.integers(0, 3, 500)
    late = np.arange(1000) >= 500
    expected = np.mean(
        [_exact_area(p[:, c], labels == c) for c in range(2)] + [_exact_area(p[late, 2], labels[late] == 2)]
    )
    assert _figures(p, labels).total.measures["roc_auc"] == pytest.approx(expected, abs=0.002)


def test_many_classes_are_bounded() -> None:
    """Of 100 classes, the first are ranked; the state does not grow with the number of classes."""
    random = np.random.default_rng(5)
    p, labels = random.dirichlet(np.ones(100), 500), random.integers(0, 100, 500)
    evaluation = ProbabilityEvaluation(100)
    evaluation.observe(p, labels)
    assert 0.3 < evaluation.total().roc_auc < 0.7
    assert len(state_codec.encode(evaluation.state())) < 40_000 * MOST_RANKED


def test_only_one_class_has_no_area() -> None:
    p = np.full((300, 2), 0.5)
    measures = _figures(p, np.zeros(300, np.int64)).recent.measures
    assert math.isnan(measures["roc_auc"])
    assert measures["brier"] == 0.25


def test_a_probability_that_is_not_finite_spoils_nothing() -> None:
    p, labels = _two_classes(1000, share=0.5, separation=2.0)
    p[10] = np.nan
    measures = _figures(p, labels).total.measures
    assert 0.7 < measures["roc_auc"] < 1.0
    assert math.isfinite(measures["brier"])
    assert math.isfinite(measures["calibration_error"])


def test_the_window_has_the_recent_probabilities_only() -> None:
    """3000 samples ranked backwards, then 1000 ranked rightly."""
    p, labels = _two_classes(4000, share=0.5, separation=3.0)
    p[:3000] = p[:3000, ::-1]
    quality = _figures(p, labels)
    assert quality.recent.measures["roc_auc"] == pytest.approx(_exact_area(p[3000:, 1], labels[3000:] == 1), abs=0.002)
    assert quality.total.measures["roc_auc"] < 0.5


def test_figures_do_not_depend_on_how_the_stream_was_cut() -> None:
    p, labels = _two_classes(2300, share=0.3, separation=1.0)
    assert repr(_figures(p, labels, (1, 2, 99, 100, 101, 1000, 2299))) == repr(_figures(p, labels))


# Figures that fade


def test_weights_halve_every_half_life_block_by_block() -> None:
    """The mean absolute error, weighted explicitly."""
    size, count = WINDOW_SAMPLES // BLOCKS, 7250
    random = np.random.default_rng(6)
    errors = np.where(np.arange(count) < 3000, 5.0, 1.0) * random.random(count)
    y = random.normal(size=(count, 1))
    samples = make_samples(np.zeros((count, 1), np.float32), y.astype(np.float32))
    result = step_result(samples, samples.y + errors[:, None], np.ones(count, np.float32))  # type: ignore[arg-type]
    evaluation = Evaluation(EvaluationSpec("targets", "last_truth", 1))
    evaluation.observe(result)
    age = (count - 1) // size - np.arange(count) // size
    weights = 0.5 ** (age * size / FADING_HALF_LIFE_SAMPLES)
    fading = evaluation.quality().fading
    assert fading.measures["mae"] == pytest.approx((errors * weights).sum() / weights.sum())
    assert fading.samples == round(weights.sum())
    quality = evaluation.quality()
    assert quality.recent.measures["mae"] < fading.measures["mae"] < quality.total.measures["mae"]
