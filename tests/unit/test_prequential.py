"""The prequential error: means over a window and over all, however the stream was cut."""

from collections.abc import Sequence

import numpy as np
import pytest

from learnd.core.types import Float32Array, StepResult
from learnd.evaluation.prequential import LARGEST, Prequential
from tests.support.helpers import make_samples, step_result

COUNT, WINDOW = 50, 20
_RANDOM = np.random.default_rng(0)
Y = _RANDOM.normal(size=(COUNT, 2)).astype(np.float32)
PREDICTIONS = _RANDOM.normal(size=(COUNT, 2)).astype(np.float32)
LOSSES = _RANDOM.uniform(size=COUNT).astype(np.float32)


def _result(rows: slice, *, losses: Float32Array = LOSSES, predictions: Float32Array = PREDICTIONS) -> StepResult:
    y = Y[rows]
    return step_result(make_samples(y + 1.0, y), predictions[rows], losses[rows], 2 * losses[rows])


def _observed(cuts: Sequence[int]) -> Prequential:
    evaluator = Prequential(window_samples=WINDOW)
    for start, stop in zip([0, *cuts], [*cuts, COUNT], strict=True):
        evaluator.observe(_result(slice(start, stop)))
    return evaluator


def test_before_the_first_sample_there_is_no_error() -> None:
    """A batch of none changes nothing."""
    signal = Prequential().observe(_result(slice(0, 0)))
    assert signal.samples == 0
    assert np.isnan([signal.loss, signal.averaged_loss, signal.absolute_error, signal.mean_loss]).all()


@pytest.mark.parametrize("cuts", [[], [1], [19, 20, 21], [45], range(1, COUNT)], ids=str)
def test_means_over_the_newest_samples_and_over_all(cuts: Sequence[int]) -> None:
    """To the last bit the same wherever the stream is cut, and after a restart amid it."""
    evaluator = _observed(cuts)
    signal = evaluator.scores()
    newest = slice(COUNT - WINDOW, COUNT)
    assert signal.samples == COUNT
    assert signal.loss == pytest.approx(LOSSES[newest].mean())
    assert signal.averaged_loss == pytest.approx(2 * LOSSES[newest].mean())
    assert signal.absolute_error == pytest.approx(np.abs(PREDICTIONS - Y)[newest].mean())
    assert signal.mean_loss == pytest.approx(LOSSES.mean())
    assert signal == _observed([]).scores()
    again = Prequential(window_samples=WINDOW)
    again.restore(evaluator.state())
    assert again.observe(_result(slice(0, 5))) == evaluator.observe(_result(slice(0, 5)))


def test_one_absurd_error_hides_the_others_for_no_longer_than_the_window() -> None:
    """No number, or an infinite one, counts as a very large one."""
    evaluator = Prequential(window_samples=WINDOW)
    losses = LOSSES.copy()
    losses[0], losses[1], losses[2] = np.nan, np.inf, 1e30
    assert evaluator.observe(_result(slice(0, 4), losses=losses)).loss == pytest.approx(0.75 * LARGEST)
    signal = evaluator.observe(_result(slice(4, COUNT)))
    assert signal.loss == pytest.approx(LOSSES[COUNT - WINDOW :].mean())
    assert signal.mean_loss == pytest.approx(3 * LARGEST / COUNT)


def test_an_error_is_that_of_the_task() -> None:
    """A class is wrong or right, a reconstruction is compared with the input."""
    rows = slice(0, COUNT)
    inputs = Prequential(of="inputs").observe(_result(rows))
    assert inputs.absolute_error == pytest.approx(np.abs(PREDICTIONS - Y - 1.0).mean())
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]], np.float32)
    classes = np.array([[0], [1], [1], [1]], np.float32)
    result = step_result(make_samples(classes, classes), shares, LOSSES[:4])
    assert Prequential(of="classes").observe(result).absolute_error == 0.25
