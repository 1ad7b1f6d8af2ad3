"""Further experts of the mixture: forecasts made upstream, and seasonal values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.config.loader import from_values
from learnd.core.errors import ConfigError
from learnd.core.types import Batch, Position, Records
from learnd.decoders.csv import CsvDecoder
from learnd.decoders.fields import Fields, fields_from
from learnd.decoders.float32 import Float32Decoder
from learnd.decoders.json import JsonDecoder
from learnd.learners.seasons import Seasons
from learnd.learners.weighting import Weights
from learnd.transforms.windows import Windows
from tests.support.helpers import PARTITION, make_samples, settings
from tests.support.learning import LearnerOfRows

ROWS = 3000


def _settings(**sections: Any) -> Any:
    values = {"source": {"kind": "simulator"}, "features": ["a"], "target": "y", "model": {"kind": "mlp"}, **sections}
    return from_values({key: value for key, value in values.items() if value is not None})


def _weights(learner: LearnerOfRows) -> dict[str, float]:
    mixture = learner.learning.model.mixture()
    assert mixture is not None
    return dict(mixture.weights)


# The configuration


def test_a_field_alone_names_its_expert_and_a_number_is_a_season() -> None:
    experts = _settings(learning={"experts": {"upstream": "chronos", "seasons": 24}}).learning.experts
    assert experts.upstream == {"chronos": ["chronos"]} and experts.seasons == [24]
    assert _settings(learning={"experts": {"seasons": [24, 168]}}).learning.mode == "auto"


@pytest.mark.parametrize(
    ("sections", "place", "words"),
    [
        ({"learning": {"mode": "per_sample", "experts": {"seasons": 24}}}, "learning.experts", "mode auto"),
        (
            {"learning": {"experts": {"seasons": 24}}, "task": {"kind": "classification"}},
            "learning.experts",
            "classification",
        ),
        (
            {"learning": {"experts": {"upstream": "f"}}, "target": ["y", "z"]},
            "learning.experts.upstream.f",
            "2 numbers",
        ),
        ({"learning": {"experts": {"upstream": {"m": "y"}}}}, "learning.experts.upstream.m", "also the target"),
        ({"learning": {"experts": {"upstream": {"m": "f", "n": "f"}}}}, "learning.experts.upstream", "more than once"),
    ],
)
def test_experts_without_effect_are_refused(sections: Any, place: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _settings(**sections)
    assert [(p.path, words in p.message) for p in caught.value.problems] == [(place, True)]


def test_only_named_experts_are_part_of_the_fingerprint() -> None:
    """Checkpoints from before the option remain valid."""
    assert "experts" not in _settings().fingerprint()["learning"]
    assert "experts" in _settings(learning={"experts": {"seasons": 2}}).fingerprint()["learning"]


# The way of a forecast from the record to the learner


def _fields(*features: str) -> Fields:
    chosen = settings(Path("unused"), features=list(features))
    return fields_from(chosen.features, ["y"], chosen.decode, fills_gaps=True, upstream=["f"])


def _records(*values: bytes) -> Records:
    count = len(values)
    return Records(PARTITION, range(count), list(values), [None] * count, [0] * count, Position(count))


def test_json_takes_a_missing_forecast_for_none() -> None:
    lines = (b'{"a": 1, "y": 2, "f": 3}', b'{"a": 1, "y": 2, "f": null}', b'{"a": 1, "y": 2}')
    samples, rejects = JsonDecoder(_fields("a")).decode(_records(*lines))
    assert not rejects and samples.upstream is not None
    np.testing.assert_array_equal(samples.upstream, [[3.0], [np.nan], [np.nan]])
    np.testing.assert_array_equal(samples.x, [[1.0]] * 3)


def test_a_forecast_may_be_a_feature_too() -> None:
    samples, _ = JsonDecoder(_fields("a", "f")).decode(_records(b'{"a": 1, "y": 2, "f": 3}'))
    assert samples.upstream is not None
    assert samples.x.tolist() == [[1.0, 3.0]] and samples.upstream.tolist() == [[3.0]]


def test_csv_and_float32_take_forecasts_too() -> None:
    decoder = CsvDecoder(_fields("a"), ["f", "a", "y"], ",")
    samples, rejects = decoder.decode(_records(b"3,1,2", b",1,2", b"inf,1,2"))
    assert not rejects and samples.upstream is not None
    np.testing.assert_array_equal(samples.upstream, [[3.0], [np.nan], [np.inf]])
    row = np.array([1.0, 2.0, np.nan], "<f4").tobytes()
    samples, rejects = Float32Decoder(_fields("a")).decode(_records(row))
    assert not rejects and samples.upstream is not None and np.isnan(samples.upstream).all()


@pytest.mark.parametrize("cut", [6, 1, 4])
def test_the_forecast_of_a_window_is_that_of_its_newest_reading(cut: int) -> None:
    """It was made before the readings that it forecasts, however the stream is cut."""
    options: dict[str, Any] = {"max_gap_s": None, "drop_duplicates": False, "max_keys": 9}
    windows = Windows(window=2, features=1, targets=0, horizon=2, upstream=2, **options)
    parts = []
    for rows in (range(cut), range(cut, 6)):
        values = np.array(rows, float)[:, None]
        samples = make_samples(values, values, first=rows.start, upstream=values * 10.0 + [[0.0, 1.0]])
        batch = Batch(samples, (), {PARTITION: Position(rows.stop)}, len(values), 0)
        parts.append(windows(batch).samples)
    upstream = [row for part in parts if part.upstream is not None and len(part) for row in part.upstream.tolist()]
    assert upstream == [[10.0, 11.0], [20.0, 21.0], [30.0, 31.0]]
    assert [row for part in parts for row in part.x[:, -1, 0].tolist()] == [1.0, 2.0, 3.0]


# Weights while experts are asleep


@given(st.lists(st.floats(0.0, 4.0), min_size=4, max_size=4), st.integers(1, 3))
@hypothesis_settings(max_examples=20, deadline=None)
def test_a_sleeping_experts_weight_stays(losses: list[float], count: int) -> None:
    """Apart from the share that is spread evenly among all."""
    weights = Weights(4)
    weights.logarithms.assign(tf.math.log([0.4, 0.3, 0.2, 0.1]))
    awake = tf.constant([i < count for i in range(4)])
    np.testing.assert_allclose(tf.reduce_sum(weights.value(awake)), 1.0, rtol=1e-5)
    assert (weights.value(awake).numpy()[count:] == 0.0).all()
    weights.learn(tf.constant(losses), awake)
    after = np.exp(weights.logarithms.numpy())[count:]
    np.testing.assert_allclose(after, 0.99 * np.array([0.4, 0.3, 0.2, 0.1])[count:] + 0.01 / 4, rtol=1e-4)


# Learning


@pytest.fixture(scope="module")
def _upstream() -> LearnerOfRows:
    return LearnerOfRows(
        features=2,
        decode={"kind": "json", "key": "machine"},
        learning={"experts": {"upstream": "f", "seasons": [6, 15]}},
    )


@pytest.fixture
def learner(_upstream: LearnerOfRows) -> LearnerOfRows:
    _upstream.reset()
    return _upstream


def _walk(seed: int = 0) -> tuple[Any, Any, Any]:
    """A random walk that the inputs say nothing about, and a forecast of it that is nearly right."""
    random = np.random.default_rng(seed)
    y = random.normal(size=ROWS).cumsum()
    return random.normal(size=(ROWS, 2)), y, (y + 0.1 * random.normal(size=ROWS))[:, None]


def test_a_good_forecast_from_upstream_is_followed_where_there_is_one(learner: LearnerOfRows) -> None:
    x, y, forecasts = _walk()
    present = np.random.default_rng(1).random(ROWS) < 0.7
    errors = np.abs(learner.learn(x, y, upstream=np.where(present[:, None], forecasts, np.nan)).predictions[:, 0] - y)
    late = np.arange(ROWS) > 500
    assert errors[present & late].mean() < 0.12  # its own error is 0.08, that of the last value 0.8
    naive = np.abs(np.diff(y, prepend=0.0))
    assert errors[~present & late].mean() < 1.1 * naive[~present & late].mean()
    assert sum(weight for name, weight in _weights(learner).items() if name.startswith("f")) > 0.8


def test_a_bad_forecast_from_upstream_costs_nothing(learner: LearnerOfRows) -> None:
    x, y, forecasts = _walk()
    errors = np.abs(learner.learn(x, y, upstream=1e6 - forecasts).predictions[:, 0] - y)[100:]
    assert errors.mean() < 1.05 * np.abs(np.diff(y)).mean()


def test_the_value_of_a_period_ago_is_that_of_the_same_machine(learner: LearnerOfRows) -> None:
    """Two machines whose targets repeat after 15 of their own rows, which nothing else tells."""
    random = np.random.default_rng(2)
    patterns = random.normal(size=15), 100.0 + random.normal(size=15)
    y = np.array([patterns[i % 2][i // 2 % 15] for i in range(ROWS)])
    errors = np.abs(learner.predictions(random.normal(size=(ROWS, 2)), y, keys=["a", "b"] * (ROWS // 2)) - y)
    assert errors[1000:].mean() < 0.1  # the last value is off by 1
    assert sum(weight for name, weight in _weights(learner).items() if name.startswith("season_")) > 0.5


def test_experts_do_not_depend_on_how_the_stream_is_cut(learner: LearnerOfRows) -> None:
    x, y, forecasts = _walk()
    forecasts[::3] = np.nan
    keys = [f"m{i % 7}" for i in range(ROWS)]
    whole = learner.learn(x, y, keys=keys, upstream=forecasts).predictions
    state = learner.state()
    learner.reset()
    parts = [
        learner.learn(x[cut], y[cut], keys=keys[cut], upstream=forecasts[cut]).predictions
        for cut in (slice(0, 1), slice(1, 800), slice(800, ROWS))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for name, value in learner.state().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)


# Seasonal values


def _ring(periods: list[int], horizon: int, series: Any) -> list[Any]:
    """Return for each row of one key what the ring says before the row is stored."""
    seasons = Seasons(periods, keys=3, width=series.shape[1], horizon=horizon)
    slot, said = tf.constant([1]), []
    for row in range(len(series)):
        rows, newest = tf.constant(row, tf.int64), tf.constant(series[row][None])
        values, known = seasons.values(slot, rows, newest)
        seasons.store(slot, rows, newest, values)
        said.append((values.numpy(), known.numpy()))
    return said


@pytest.mark.parametrize("periods", [[2], [3, 5]])
def test_a_target_is_compared_with_that_of_a_period_before(periods: list[int]) -> None:
    series = np.arange(24.0).reshape(12, 2)
    for row, (values, known) in enumerate(_ring(periods, 0, series)):
        for i, period in enumerate(periods):
            assert known[i] == (row >= period)
            if known[i]:
                np.testing.assert_array_equal(values[i], series[row - period])


@pytest.mark.parametrize(("periods", "horizon"), [([2], 1), ([2], 5), ([3, 5], 4)])
def test_a_forecast_repeats_the_last_period(periods: list[int], horizon: int) -> None:
    """Step h is the newest known reading that is a whole number of periods before it; the nearest step is first."""
    series = np.arange(24.0).reshape(12, 2)
    for row, (values, known) in enumerate(_ring(periods, horizon, series)):
        for i, period in enumerate(periods):
            before = [row + ahead - period * -(-ahead // period) for ahead in range(1, horizon + 1)]
            assert known[i] == (min(before) >= 0)
            if known[i]:
                np.testing.assert_array_equal(values[i].reshape(horizon, 2), series[before])


def test_keys_beyond_the_memory_have_no_season(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learnd.learners.seasons.LARGEST", 8)
    seasons = Seasons([4], keys=100, width=1, horizon=0)
    first, last = tf.constant([0]), tf.constant([99])
    for row in range(4):
        seasons.store(first, tf.constant(row, tf.int64), tf.constant([[float(row)]]), tf.zeros((1, 1), tf.float64))
        seasons.store(last, tf.constant(row, tf.int64), tf.constant([[50.0]]), tf.zeros((1, 1), tf.float64))
    rows, nothing = tf.constant(4, tf.int64), tf.zeros((1, 1))
    assert not seasons.values(last, rows, nothing)[1].numpy().any()
    values, known = seasons.values(first, rows, nothing)
    assert known.numpy().all() and values.numpy().tolist() == [[0.0]]
