"""The two heads of the alarms: what they remember, when they speak, and that neither cuts nor restarts change it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from learnd.alarms.decision import decide
from learnd.alarms.episodes import Alarm
from learnd.alarms.feedback import Verdict
from learnd.alarms.monitor import Monitor
from learnd.alarms.onset import observe_readings
from learnd.alarms.ranges import BLOCKS, MEMORY, make_ranges, observe
from learnd.alarms.settings import AlarmSettings
from learnd.alarms.threshold import make_threshold, observe_score
from learnd.core.types import Samples, StepResult
from tests.support.helpers import make_samples, step_result

DAY_S = 86_400.0


def _monitor(columns: int = 1, *, hold: str = "hold", **options: Any) -> Monitor:
    names = [f"x{i}" for i in range(columns)]
    return Monitor(AlarmSettings(**options), columns=names, readings=lambda samples: samples.x, hold=hold)


def _samples(x: Any, *, step_s: float = 300.0, keys: Sequence[str] | None = None, first: int = 0) -> Samples:
    x = np.asarray(x, np.float64)
    x = x[:, None] if x.ndim == 1 else x
    times_s = (first + np.arange(len(x))) * step_s
    return make_samples(x, np.zeros((len(x), 1)), first=first, times_s=times_s, keys=keys)


def _result(samples: Samples, losses: Any = None) -> StepResult:
    count = len(samples)
    losses = np.ones(count, np.float32) if losses is None else np.asarray(losses, np.float32)
    return step_result(samples, np.zeros((count, 1), np.float32), losses)


def _run(monitor: Monitor, samples: Samples, losses: Any = None) -> tuple[Any, list[Alarm]]:
    watched, _ = monitor.watch(samples)
    result, events = monitor.evaluate(_result(watched, losses))
    return result.alarms, [event for _, event in events]


def _noise(count: int, *, seed: int = 7, columns: int = 1) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, columns))


def _starts(active: npt.NDArray[np.bool_]) -> int:
    return int((active[1:] & ~active[:-1]).sum()) + int(active[0])


def test_the_evidence_is_that_of_the_remembered_blocks() -> None:
    """Against a calculation from the whole history, by NumPy's own quantiles."""
    values = np.cumsum(_noise(5000, seed=3)[:, 0]) + _noise(5000, seed=4)[:, 0]
    ranges = make_ranges(1)
    computed = np.array([observe(ranges, 0, value, True) for value in values])
    expected = np.zeros(len(values))
    for length in BLOCKS:
        ends = np.cumsum([length // 4] * 4 + [length] * 100)
        starts = np.concatenate([[0], ends[:-1]])
        for i, value in enumerate(values):
            closed = int((ends <= i).sum())
            if not closed:
                continue
            blocks = [values[starts[b] : ends[b]] for b in range(max(0, closed - MEMORY // length), closed)]
            high = np.quantile([block.max() for block in blocks], 0.98)
            low = np.quantile([block.min() for block in blocks], 0.02)
            distance = max(value - high, low - value, 0.0) / (high - low)
            expected[i] += np.log1p(min(distance, 10.0) / 0.02) / len(BLOCKS)
    assert (expected > 1.0).sum() > 50
    np.testing.assert_allclose(computed, expected, atol=1e-9)


def test_a_reading_beyond_all_others_raises_one_alarm_of_the_onset() -> None:
    """One per episode: the readings after it are as far out."""
    x = _noise(2000)[:, 0]
    x[1500:1520] += 40.0
    alarms, events = _run(_monitor(), _samples(x))
    raised = np.flatnonzero(alarms.raised)
    assert raised.tolist()[-1] == 1500
    assert alarms.probabilities[1500] > 0.95
    assert alarms.probabilities[1501:1515].max() == 0.0
    onset = [event for event in events if event.head == "onset"][-1]
    assert onset.id.endswith("/1500/onset")
    assert onset.features == {"x0": 1.0}


def test_within_an_episode_much_stronger_evidence_raises_another_alarm() -> None:
    """At four times the evidence."""
    x = np.random.default_rng(0).uniform(size=2000)
    x[1500], x[1520], x[1540] = 1.15, 1.3, 99.0
    alarms, _ = _run(_monitor(), _samples(x))
    first, second, third = alarms.evidence[[1500, 1520, 1540]].sum(axis=1)
    assert first > 2.0
    assert 2.0 < second < 4 * first < third
    assert np.flatnonzero(alarms.raised)[-2:].tolist() == [1500, 1540]


def test_the_residual_against_the_profile_finds_a_usual_value_at_an_unusual_time() -> None:
    """At three in the morning it is as warm as at noon: never so at that time, and often at others."""
    steps = np.arange(288 * 12)
    x = 10.0 * np.sin(2 * np.pi * steps / 288) + 0.3 * _noise(len(steps))[:, 0]
    place = 288 * 10 + 216  # the coldest part of the day
    x[place : place + 12] = 9.0
    with_day, _ = _run(_monitor(), _samples(x))
    without, _ = _run(_monitor(periods_s=[]), _samples(x))
    assert with_day.probabilities[place] > 0.9
    assert without.probabilities[place : place + 12].max() < 0.9


def test_a_median_that_leaves_its_range_is_evidence_while_no_reading_does() -> None:
    """Readings inside the range of all readings, but for once all on one side."""
    x = np.tile([-1.0, 1.0], 1500) + 0.01 * _noise(3000)[:, 0]
    x[2500:2540] = 0.9
    alarms, _ = _run(_monitor(periods_s=[]), _samples(x))
    assert np.flatnonzero(alarms.raised)[-1] == 2500  # the median of an even number of readings moves at once


def test_the_models_loss_is_evidence_of_its_own() -> None:
    """The readings are as ever, but nothing can be predicted any more."""
    losses = np.exp(0.1 * _noise(3000)[:, 0])
    losses[2000:2020] *= 50.0
    alarms, events = _run(_monitor(periods_s=[]), _samples(np.tile([0.0, 1.0], 1500)), losses)
    assert np.flatnonzero(alarms.raised)[-1] == 2000
    assert events[-1].features == {"loss": 1.0}


def test_an_unknown_loss_is_no_evidence() -> None:
    """Samples without a target have none."""
    alarms, _ = _run(_monitor(), _samples(np.tile([0.0, 1.0], 1000)), np.full(2000, np.nan))
    assert alarms.probabilities.max() == 0.0


def test_the_first_readings_raise_nothing() -> None:
    """300 for the onset, 400 for the state."""
    x = _noise(600)[:, 0]
    x[50:300] *= 100.0
    alarms, _ = _run(_monitor(), _samples(x))
    assert not alarms.raised[:300].any()
    assert not alarms.active[:400].any()


def test_a_fault_is_named_as_long_as_it_lasts_and_is_over_when_it_ends() -> None:
    """And its rows are held: the fault of 3000 rows that the issue names."""
    x = _noise(9000)[:, 0]
    x[4000:7000] += 12.0
    watched, hold = _monitor().watch(_samples(x))
    _, events = _run(_monitor(), _samples(x))
    assert watched.weights is None
    assert hold is not None
    assert hold[4005:7000].all()
    assert not hold[:4000].any()
    assert not hold[7080:].any()
    began, ended = (event for event in events if event.head == "state")
    assert (began.phase, ended.phase) == ("began", "ended")
    assert began.id == ended.id
    assert began.began_s == ended.began_s
    assert ended.ended_s is not None
    assert 7000 <= ended.ended_s / 300.0 < 7080
    assert 2995 <= ended.records < 3080
    assert ended.severity in ("major", "critical")
    assert ended.features == {"x0": 1.0}


def test_a_shift_that_lasts_is_accepted_after_the_stated_time() -> None:
    """Then the new level is normal, and the way back is an alarm."""
    x = _noise(4000)[:, 0]
    x[1000:3000] += 12.0
    alarms, events = _run(_monitor(accept_after=500), _samples(x))
    assert alarms.active[1010:1490].all()
    assert not alarms.active[1520:2990].any()
    assert alarms.active[3010:3400].all()
    assert next(event.accepted for event in events if event.phase == "ended") is True


def test_an_alarm_can_wait_for_a_minimum_of_readings() -> None:
    """A burst that is shorter raises none."""
    x = _noise(3000)[:, 0]
    x[2000:2012] += 15.0
    assert _run(_monitor(), _samples(x))[0].active.any()
    assert not _run(_monitor(minimum_readings=40), _samples(x))[0].active.any()


def test_a_cool_down_keeps_two_bursts_in_one_alarm() -> None:
    """Consecutive readings near normal that end it."""
    x = _noise(3000)[:, 0]
    x[2000:2020] += 15.0
    x[2080:2100] += 15.0
    assert _starts(_run(_monitor(), _samples(x))[0].active) == 2
    assert _starts(_run(_monitor(cool_down_readings=100), _samples(x))[0].active) == 1


def test_samples_in_alarm_weigh_less_if_told() -> None:
    """With `learning: weigh`; with `learn` nothing changes."""
    x = _noise(3000)[:, 0]
    x[2000:2500] += 15.0
    weighed, hold = _monitor(hold="weigh", held_weight=0.1).watch(_samples(x))
    assert hold is None
    assert weighed.weights is not None
    assert weighed.weights[2100] == np.float32(0.1)
    assert weighed.weights[1000] == 1.0
    learned, hold = _monitor(hold="learn").watch(_samples(x))
    assert (learned.weights, hold) == (None, None)


def test_a_missing_reading_changes_nothing() -> None:
    """Rows of nan between others leave both heads where they were."""
    x = _noise(1500, columns=2)
    x[1200:] += 10.0
    gaps = np.insert(x, np.repeat([700, 1300], 5), np.nan, axis=0)
    plain, _ = _run(_monitor(2), _samples(x, step_s=0.0))
    broken, _ = _run(_monitor(2), _samples(gaps, step_s=0.0))
    kept = ~np.isnan(gaps[:, 0])
    np.testing.assert_array_equal(broken.active[kept], plain.active)
    np.testing.assert_array_equal(broken.strengths[kept], plain.strengths)
    assert broken.active[~kept].tolist() == [False] * 5 + [True] * 5


def test_each_key_has_heads_of_its_own() -> None:
    """Two keys at different levels, one after the other, are as two streams."""
    a, b = _noise(2000, seed=1)[:, 0], 1000.0 + _noise(2000, seed=2)[:, 0]
    a[1500:] += 15.0
    mixed = np.stack([a, b], axis=1).ravel()
    alarms, events = _run(_monitor(), _samples(mixed, keys=["a", "b"] * 2000, step_s=0.0))
    alone, _ = _run(_monitor(), _samples(a, step_s=0.0))
    np.testing.assert_array_equal(alarms.active[::2], alone.active)
    np.testing.assert_array_equal(alarms.probabilities[::2], alone.probabilities)
    assert {event.key for event in events if event.head == "state"} == {"a"}


def test_the_key_unseen_for_longest_gives_up_its_place() -> None:
    """The third of two starts anew, and so does the first, which returns at another level."""
    x = _noise(2000)[:, 0]
    x[1500:] += 50.0
    keys = ["a"] * 500 + ["b"] * 500 + ["c"] * 500 + ["a"] * 500
    alarms, _ = _run(_monitor(max_keys=2), _samples(x, keys=keys))
    for start in (0, 500, 1000, 1500):
        part = slice(start, start + 500)
        alone, _ = _run(_monitor(), _samples(x[part], first=start))
        np.testing.assert_array_equal(alarms.active[part], alone.active)
        np.testing.assert_array_equal(alarms.probabilities[part], alone.probabilities)


@pytest.mark.parametrize("draw", ["normal", "standard_t", "exponential"])
@pytest.mark.parametrize("per", [500, 2000])
def test_the_chosen_rate_of_false_alarms_is_met(draw: str, per: int) -> None:
    """Within a factor of 1.5, on stationary noise of light and heavy tails, and again after its scale has changed."""
    arguments = {"standard_t": (3,)}.get(draw, ())
    x = getattr(np.random.default_rng(5), draw)(*arguments, size=(120_000, 2))
    x[60_000:] = 7.0 * x[60_000:] + 30.0
    alarms, _ = _run(_monitor(2, false_alarms_per=per, accept_after=200), _samples(x))
    for part in (slice(10_000, 60_000), slice(61_000, 120_000)):
        active = alarms.active[part]
        rate = _starts(active) * per / len(active)
        assert 1 / 1.5 < rate < 1.5
        assert alarms.raised[part].sum() * per / len(active) < 1.5


def test_a_rate_per_day_counts_event_time() -> None:
    """One reading a minute: one alarm in 1440 of them."""
    x = _noise(150_000, seed=8)
    alarms, _ = _run(_monitor(false_alarms_per="day"), _samples(x, step_s=60.0))
    days = 140_000 * 60.0 / DAY_S
    assert days / 1.5 < _starts(alarms.active[10_000:]) < days * 1.5


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 1500), max_size=6), restart=st.integers(0, 1500), estimated=st.booleans())
@example(cuts=[], restart=650, estimated=True)
def test_neither_cuts_nor_a_restart_change_anything(cuts: list[int], restart: int, estimated: bool) -> None:
    """The lines, the held rows and the events are the same to the last bit, keys that lose their places included."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 2))
    x[900:1100] += 15.0
    x[600:760, 1] = 0.25
    x[rng.random(x.shape) < 0.02] = np.nan
    keys = ["c" if row in (437, 1312) else "b" if row % 20 == 7 else "a" for row in range(1500)]
    losses = rng.exponential(size=1500)
    options: dict[str, Any] = {
        "max_keys": 2,
        "warm_up": 50,
        "periods_s": [3600.0],
        "false_alarms_per": 300 if estimated else None,
    }

    def learn(edges: list[int]) -> tuple[Any, ...]:
        monitor, parts, events = _monitor(2, **options), [], []
        for start, stop in pairwise(edges):
            if start == restart:
                state, monitor = monitor.state(), _monitor(2, **options)
                monitor.restore(state)
            rows = slice(start, stop)
            alarms, new = _run(monitor, _samples(x[rows], keys=keys[rows], first=start), losses[rows])
            parts.append(alarms)
            events += [event.as_line() for event in new]
        columns = ("probabilities", "raised", "active", "evidence", "strengths", "faults")
        joined = [np.concatenate([getattr(part, name) for part in parts]) for name in columns]
        return (*joined, events)

    whole, cut = learn([0, 1500]), learn(sorted({0, restart, 1500, *cuts}))
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one, other)
    assert all(column.any() for column in (whole[1], whole[2], whole[5]))


def test_other_columns_start_the_alarms_again() -> None:
    """An added feature: nothing that was remembered fits."""
    old = _monitor(1)
    _run(old, _samples(_noise(500)))
    new = _monitor(2)
    new.restore(old.state())
    alarms, _ = _run(new, _samples(100.0 * _noise(300, columns=2)))
    assert not alarms.raised.any()


def test_a_planned_stop_is_neither_watched_nor_learned() -> None:
    """Whether a field of the record marks it or the calendar; afterwards all is as if it had not been."""
    x = _noise(1200)[:, 0]
    stopped = np.insert(x, 900, np.full(100, -80.0))
    mask = np.zeros(len(stopped), np.bool_)
    mask[900:1000] = True
    by_field = replace(_samples(stopped, step_s=0.001), planned_stop=mask)
    times = {"from": "1970-01-01T00:00:00.9Z", "to": "1970-01-01T00:00:01Z"}
    for monitor, samples in (
        (_monitor(hold="learn"), by_field),
        (_monitor(hold="hold", planned_stops=[times]), _samples(stopped, step_s=0.001)),
    ):
        watched, hold = monitor.watch(samples)
        assert hold is not None
        np.testing.assert_array_equal(hold, mask)
        result, _ = monitor.evaluate(_result(watched))
        plain, _ = _run(_monitor(), _samples(x, step_s=0.001))
        assert result.alarms is not None
        np.testing.assert_allclose(result.alarms.probabilities[~mask], plain.probabilities, atol=1e-12)
        assert result.alarms.probabilities[mask].max() == 0.0


def test_a_suppressed_reading_raises_nothing() -> None:
    """Of one feature of one key; the others do."""
    x = _noise(2400, columns=2)
    x[2000:, 0] += 20.0
    keys = ["a", "b"] * 1200
    alarms, events = _run(_monitor(2, suppress=[{"feature": "x0", "key": "a"}]), _samples(x, keys=keys))
    assert {event.key for event in events if event.head == "state"} == {"b"}
    assert not alarms.active[::2].any()


def test_the_loss_of_a_held_row_is_no_evidence() -> None:
    """The model stands still, so its loss stays high as long as the fault: that is not one news after another."""
    x, losses = np.tile([0.0, 1.0], 1500), np.exp(0.1 * _noise(3000)[:, 0])
    losses[2000:] *= 1000.0
    monitor = _monitor(periods_s=[])
    result = _result(monitor.watch(_samples(x))[0], losses)
    held = replace(result, learned=np.arange(3000) < 2000)
    assert not monitor.evaluate(held)[0].alarms.raised[2000:].any()


def test_a_stuck_sensor_is_a_fault_of_the_sensor() -> None:
    """It is named from its 50th equal reading to the next other one, and no head says a word."""
    x = _noise(2000, columns=2)
    x[1500:1700, 1] = 0.5
    alarms, events = _run(_monitor(2), _samples(x))
    assert [event.head for event in events if event.began_s > 1400 * 300.0] == ["sensor", "sensor"]
    began, ended = events[-2:]
    assert (began.fault, began.phase, ended.phase, began.id) == ("stuck", "began", "ended", ended.id)
    assert (began.features, began.began_s, ended.ended_s) == ({"x1": 1.0}, 1549 * 300.0, 1700 * 300.0)
    assert alarms.sensor_faults(1600) == {"x1": "stuck"}
    assert alarms.sensor_faults(1700) == {}


def test_missing_readings_are_a_fault_of_the_sensor() -> None:
    """After fifty in a row, where so many never were missing before."""
    x = _noise(2000, columns=2)
    x[500:520, 0] = np.nan
    x[1500:1700, 0] = np.nan
    alarms, _ = _run(_monitor(2), _samples(x))
    missing = [row for row in range(2000) if alarms.sensor_faults(row)]
    assert missing == list(range(1579, 1700))
    assert alarms.sensor_faults(1650) == {"x0": "missing"}


def test_a_sensor_that_often_stands_still_is_not_stuck() -> None:
    """A valve that is open for 40 readings and shut for 40, and a switch that has hardly ever moved."""
    valve = np.repeat(np.arange(60) % 2, 40).astype(float)
    switch = np.repeat([0.0, 1.0, 0.0], [1000, 1000, 400])
    alarms, _ = _run(_monitor(2), _samples(np.stack([valve, switch], axis=1)))
    assert not alarms.faults.any()


def test_a_person_can_accept_the_new_level() -> None:
    """The alarm ends at once, and the same shift raises no alarm again soon: the threshold is higher."""
    x = _noise(3000)[:, 0]
    x[1000:] += 12.0
    monitor = _monitor()
    _, events = _run(monitor, _samples(x[:1200]))
    began = next(event for event in events if event.head == "state" and event.began_s >= 300_000.0)
    assert monitor.correct(Verdict(False, alarm=began.id))
    restored = _monitor()
    restored.restore(monitor.state())
    for one in (monitor, restored):
        alarms, events = _run(one, _samples(x[1200:], first=1200))
        assert not alarms.active[1:].any()
        assert [event.phase for event in events if event.id == began.id] == ["ended"]
    assert monitor._level.arrays.threshold.factor[0] == 1.25


def test_a_missed_anomaly_lowers_both_thresholds() -> None:
    """Of its key, down to half; a key or an alarm that nobody knows is refused."""
    monitor = _monitor()
    samples = _samples(_noise(10))
    _run(monitor, samples)
    key = str(samples.keys[0])
    assert all(monitor.correct(Verdict(True, key=key)) for _ in range(20))
    assert monitor._level.arrays.threshold.factor[0] == 0.5
    assert monitor._decision.arrays.threshold.factor[0] == 0.5
    assert not monitor.correct(Verdict(True, key="another"))
    assert not monitor.correct(Verdict(False, alarm="another/0/1"))


def test_arrays_of_another_layout_are_not_compiled_for_again() -> None:
    """Read-only ones from a checkpoint, and columns of a larger array; compiling takes seconds."""
    monitor = _monitor(2)
    monitor.prepare()
    before = [len(function.signatures) for function in (observe_readings, decide)]  # type: ignore[attr-defined]
    samples = _samples(_noise(20, columns=4)[:, ::2])
    times_s = np.stack([samples.times_s] * 2, axis=1)[:, 0]
    times_s.flags.writeable = False
    _run(monitor, replace(samples, times_s=times_s))
    assert [len(function.signatures) for function in (observe_readings, decide)] == before  # type: ignore[attr-defined]


def test_alarms_that_were_raised_correct_the_threshold() -> None:
    """The same scores: more alarms than accepted end in a higher threshold, none in a lower one."""
    scores = np.abs(_noise(20_000)[:, 0])
    ends = []
    for every in (100_000, 500, 100):
        threshold = make_threshold(4.0, floor=0.0, estimated=True)
        for row, score in enumerate(scores):
            observe_score(threshold, 0, score, row % every == every - 1, float(row), 500.0, 0.0)
        ends.append(float(threshold.value[0]))
    assert ends[0] < ends[1] - 0.3
    assert ends[1] < ends[2] - 0.3
