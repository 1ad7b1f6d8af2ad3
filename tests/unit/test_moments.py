"""The scales of inputs and targets: robust at the start, quick after a change, never blind."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.tasks.standardizer import SOFT, InvertibleStandardizer, OnlineStandardizer, TargetStandardizer

ROWS = 32_000
_STREAMS = ("usual", "glitch", "level", "unit", "huge", "wakes", "gaps", "switches", "widens")


def _streams() -> dict[str, Any]:
    random = np.random.default_rng(0)
    streams = {name: random.normal(size=ROWS) for name in _STREAMS}
    streams["glitch"][10] = 1e6
    streams["level"][20_000:] += 50.0
    streams["unit"] *= 0.3
    streams["unit"][20_000:] = (streams["unit"][20_000:] + 2.0) * 1000.0
    streams["huge"] = 1e9 + 10.0 * streams["huge"]
    streams["wakes"][5000:15_000] = streams["wakes"][5000]
    streams["gaps"][np.arange(ROWS) % 3 == 0] = np.nan
    streams["switches"] += 200.0 * (np.arange(ROWS) // 300 % 2)
    streams["widens"][8000:] *= 3.0
    return streams


@pytest.fixture(scope="module")
def scaled() -> dict[str, Any]:
    """Every stream as it was scaled, each row before it was observed."""
    streams = _streams()
    standardizer = OnlineStandardizer((len(streams),), name="inputs")

    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def run(rows: Any) -> Any:
        def step(i: Any, column: Any) -> Any:
            row = tf.gather(rows, i)[None]
            column = tf.tensor_scatter_nd_update(column, [[i]], standardizer.standardised(row))
            standardizer.observe(row)
            tf.while_loop(
                lambda due: due, lambda _: (standardizer.renew(), tf.constant(False))[1], (standardizer.due(),)
            )
            return i + 1, column

        return tf.while_loop(lambda i, _: i < ROWS, step, (0, tf.zeros(rows.shape, tf.float32)))[1]

    z = run(tf.constant(np.stack(list(streams.values()), axis=1))).numpy()
    return dict(zip(streams, z.T, strict=True))


def _rms(values: Any) -> float:
    return float(np.sqrt(np.square(values).mean()))


def test_a_usual_stream_has_mean_zero_and_spread_one(scaled: dict[str, Any]) -> None:
    assert abs(scaled["usual"][1000:].mean()) < 0.05
    assert scaled["usual"][1000:].std() == pytest.approx(1.0, abs=0.05)
    assert np.abs(scaled["usual"]).max() < 8.0  # from the first rows on


def test_one_absurd_value_among_the_first_has_bounded_influence(scaled: dict[str, Any]) -> None:
    assert scaled["glitch"][40:200].std() == pytest.approx(1.0, abs=0.4)
    assert scaled["glitch"][1000:].std() == pytest.approx(1.0, abs=0.1)


def test_a_shifted_sensor_is_followed_within_twenty_four_rows(scaled: dict[str, Any]) -> None:
    """The spread is kept: the sensor was recalibrated, and its unit is the same."""
    assert scaled["level"][20_000:20_024].min() > 20.0
    assert abs(scaled["level"][20_025:20_300].mean()) < 0.5
    assert scaled["level"][20_025:20_300].std() == pytest.approx(1.0, abs=0.2)


def test_a_new_unit_gives_a_new_spread(scaled: dict[str, Any]) -> None:
    assert scaled["unit"][20_030:21_000].std() == pytest.approx(1.0, abs=0.3)
    assert abs(scaled["unit"][20_030:21_000].mean()) < 0.5


def test_small_changes_of_a_huge_number_are_seen(scaled: dict[str, Any]) -> None:
    """In float32 neighbours of 1e9 are 64 apart, so readings of 1e9 +- 10 would all be equal."""
    assert scaled["huge"][1000:].std() == pytest.approx(1.0, abs=0.05)
    assert len(np.unique(scaled["huge"][1000:2000])) == 1000


def test_a_stream_at_standstill_does_not_blow_up_on_waking(scaled: dict[str, Any]) -> None:
    assert np.abs(scaled["wakes"][15_000:15_100]).max() < 15.0
    assert _rms(scaled["wakes"][16_000:]) == pytest.approx(1.0, abs=0.6)


def test_missing_values_scale_to_zero_and_change_nothing(scaled: dict[str, Any]) -> None:
    missing = np.arange(ROWS) % 3 == 0
    assert (scaled["gaps"][missing] == 0.0).all()
    assert scaled["gaps"][~missing][1000:].std() == pytest.approx(1.0, abs=0.05)


def test_a_machine_that_switches_between_two_levels_is_scaled_over_both(scaled: dict[str, Any]) -> None:
    """Without that, each switch would restart the scale, and the same reading would mean two things."""
    late = scaled["switches"][2000:]
    assert np.abs(late).max() < 3.0
    on = np.arange(2000, ROWS) // 300 % 2 == 1
    assert late[on].min() > late[~on].max()


def test_old_values_are_forgotten(scaled: dict[str, Any]) -> None:
    """The moments of all values so far would still be 20 % off at the end."""
    assert scaled["widens"][-4000:].std() == pytest.approx(1.0, abs=0.1)


def test_the_soft_limit_keeps_the_order_of_readings() -> None:
    scaler = TargetStandardizer((1,), name="target")
    inputs = OnlineStandardizer((1,), name="inputs")
    for part in (scaler, inputs):
        part.scale.assign([1.0])
    x = tf.constant([[-1e30], [-1e4], [-3.5], [-1.0], [2.0], [3.5], [50.0], [1e4], [1e30]])
    limited = inputs(x).numpy()[:, 0]
    assert (np.diff(limited) > 0.0).all()
    assert np.abs(limited).max() < 100.0
    np.testing.assert_array_equal(limited[3:5], [-1.0, 2.0])  # unchanged within the limit
    assert limited[5] == pytest.approx(SOFT + np.log(1.5))
    assert scaler(x).numpy()[7, 0] == 1e4  # a target within reach of a reported loss is not compressed


def test_what_stands_for_an_input_is_brought_back_exactly() -> None:
    scaler = InvertibleStandardizer((1,), name="inputs")
    for variable, value in ((scaler.scale, 0.5), (scaler.spread, 2.0), (scaler.shift, 7.0)):
        variable.assign([value])
    x = tf.constant([[7.0], [-20.0], [60.0], [1000.0]])
    np.testing.assert_allclose(scaler.restore(scaler(x)).numpy(), x.numpy(), rtol=1e-4)
