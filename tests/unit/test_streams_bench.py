"""The benchmark of streams: what is made breaks as it says, and figures are counted as they are named."""

import numpy as np
import pytest

from tests.bench.made_streams import BROKEN, BROKEN_ROWS, DRIFTS, Stream, naive
from tests.bench.stream_tables import ratio_to_best, tables

_SOUND = BROKEN["nothing broken"]()


def _noiseless() -> np.ndarray:
    """Return the target of the sound sensors without its noise, from what the generator's docstring says."""
    u = (_SOUND.x - [0.0, 50.0, 1.0, -100.0]) / [1.0, 5.0, 0.1, 20.0]
    return np.asarray(u[:, 0] + np.sin(u[:, 1]) + 0.5 * u[:, 2])


@pytest.mark.parametrize("name", BROKEN)
def test_only_noise_is_left_to_who_knows_the_change(name: str) -> None:
    """In the rows that count, the best possible error is the stated one."""
    stream = BROKEN[name]()
    change = stream.y - _SOUND.y
    assert stream.x.shape == (BROKEN_ROWS, 4)
    assert stream.figure(_noiseless() + change) == pytest.approx(stream.floor, rel=0.05)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("nothing broken", 0),
        ("reading of 1e6", 1),
        ("target of 1e6", 1),
        ("late reading of 1e6", 1),
        ("sensor shifted", 5000),
        ("unit changed", 5000),
        ("target shifted", 5000),
        ("sensor of 1e9", BROKEN_ROWS),
    ],
)
def test_a_change_touches_one_column_in_its_rows(name: str, rows: int) -> None:
    """The other readings are those of the sound sensors."""
    stream = BROKEN[name]()
    different = np.column_stack([stream.x != _SOUND.x, stream.y != _SOUND.y])
    assert np.count_nonzero(different.any(axis=0)) == min(rows, 1)
    assert np.count_nonzero(different) == rows


def test_a_shifted_sensor_moves_by_fifty_spreads() -> None:
    stream = BROKEN["sensor shifted"]()
    moved = stream.x[-1, 1] - _SOUND.x[-1, 1]
    assert moved / _SOUND.x[:, 1].std() == pytest.approx(50.0, rel=0.02)


def test_standing_still_repeats_one_row() -> None:
    stream = BROKEN["standstill"]()
    assert np.all(np.ptp(stream.x[5000:15_000], axis=0) == 0.0)
    assert np.array_equal(stream.x[15_000:], _SOUND.x[15_000:])


@pytest.mark.parametrize("name", DRIFTS)
def test_streams_repeat(name: str) -> None:
    """A fixed seed gives the same stream, so that figures of two runs compare."""
    assert np.array_equal(DRIFTS[name]().y, DRIFTS[name]().y)


def test_drifts_share_their_rows_before_the_drift() -> None:
    abrupt, gradual = DRIFTS["abrupt drift"](), DRIFTS["gradual drift"]()
    assert np.array_equal(abrupt.y[:7500], gradual.y[:7500])
    assert not np.array_equal(abrupt.y[7500:], gradual.y[7500:])
    assert np.array_equal(abrupt.y[9500:], gradual.y[9500:])


def test_the_mean_error_leaves_the_first_row_out() -> None:
    stream = Stream(np.zeros((3, 1)), np.array([100.0, 1.0, 3.0]))
    assert stream.figure(np.zeros(3)) == 2.0


def test_the_accuracy_of_classes_is_the_share_that_is_right() -> None:
    stream = Stream(np.zeros((5, 1)), np.array([0.0, 1.0, 1.0, 0.0, 1.0]), classes=2)
    assert stream.figure(np.array([1.0, 1.0, 0.0, 0.0, -1.0])) == 0.5


def test_a_sum_counts_its_rows_alone() -> None:
    stream = Stream(np.zeros((4, 1)), np.array([9.0, 1.0, 2.0, 9.0]), counted=(1, 3), as_sum=True, noise=0.5)
    assert stream.figure(np.zeros(4)) == 3.0
    assert stream.floor == 1.0


def test_the_simple_rule_of_numbers_is_the_last_one() -> None:
    assert naive(Stream(np.zeros((3, 1)), np.array([4.0, 5.0, 6.0]))).tolist() == [0.0, 4.0, 5.0]


@pytest.mark.parametrize(("labels", "best"), [([0, 0, 1, 0, 0, 1, 0, 0], "frequent"), ([0, 0, 0, 1, 1, 1], "last")])
def test_the_simple_rule_of_classes_is_the_better_one(labels: list[int], best: str) -> None:
    """The last class where classes come in runs, otherwise the most frequent one so far."""
    y = np.array(labels, float)
    rules = {"last": y[:-1].tolist(), "frequent": [0.0] * (len(y) - 1)}
    assert naive(Stream(np.zeros((len(y), 1)), y, classes=2))[1:].tolist() == rules[best]


@pytest.mark.parametrize(
    ("figures", "smaller_is_better", "ratio"),
    [
        ({"naive": [4.0], "linear": [2.0], "learnd": [0.9, 1.1]}, True, 0.5),
        ({"naive": [0.6], "linear": [0.8], "learnd": [0.9]}, False, 0.5),
        ({"naive": [4.0], "linear": [float("nan")], "learnd": [2.0]}, True, 0.5),
        ({"naive": [4.0], "single": [1.0], "export": [1.0], "learnd": [2.0]}, True, 0.5),
        ({"learnd": [2.0]}, True, ""),
    ],
)
def test_the_ratio_compares_errors_with_the_best_rival(
    figures: dict[str, list[float]], smaller_is_better: bool, ratio: object
) -> None:
    """Means over the seeds; of accuracies, the shares that are wrong; without other settings of learnd itself."""
    got = ratio_to_best({"figures": figures, "smaller_is_better": smaller_is_better})
    assert got == (pytest.approx(ratio) if ratio else "")


def test_the_tables_have_a_column_per_measured_side() -> None:
    figures = {"naive": [2.0], "learnd": [1.0, 3.0], "export": [3.0], "export: naive": [1.5]}
    measured = {"what": "mean error", "floor": 0.08, "smaller_is_better": True, "chosen_on": False, "figures": figures}
    predictions, standing = tables({"made": measured}).split("\n\n")
    assert predictions.splitlines()[-1] == "| made | mean error | 0.08 | 2 | 2 | 1 to 3 | 1 | looked at afterwards |"
    assert standing.splitlines()[-1] == "| made | 1.5 | 3 | 2 |"
