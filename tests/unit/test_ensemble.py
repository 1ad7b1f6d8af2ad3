"""``learning.mode: auto``: several learners, mixed by how well they predict."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from learnd.config.loader import from_values, loads
from learnd.core.errors import ConfigError
from learnd.learners.ensemble import EnsembleUpdate
from tests.support.learning import LearnerOfRows

ROWS = 6000


def _update(learner: LearnerOfRows) -> EnsembleUpdate:
    update = learner.learning.model.learner._chunk._update_rows  # type: ignore[attr-defined]
    assert isinstance(update, EnsembleUpdate)
    return update


def _weights(learner: LearnerOfRows) -> dict[str, float]:
    pool = _update(learner).pool
    return dict(zip(pool.names, pool.weights().numpy().tolist(), strict=True))


def _curve(rows: int = ROWS, *, seed: int = 0) -> tuple[Any, Any]:
    """A smooth function of four inputs of different units, with noise of 0.1."""
    random = np.random.default_rng(seed)
    u = random.normal(size=(rows, 4))
    y = u[:, 0] + np.sin(2.0 * u[:, 1]) + 0.5 * u[:, 2] + 0.1 * random.normal(size=rows)
    return u * [1.0, 5.0, 0.1, 20.0] + [0.0, 50.0, 1.0, -100.0], y


@pytest.fixture(scope="module")
def _regression() -> LearnerOfRows:
    return LearnerOfRows(features=4, decode={"kind": "json", "key": "machine"})


@pytest.fixture
def regression(_regression: LearnerOfRows) -> Iterator[LearnerOfRows]:
    """One compiled learner for all tests of numbers, as new."""
    _regression.reset()
    return _regression  # type: ignore[return-value]


@pytest.fixture(scope="module")
def _classes() -> LearnerOfRows:
    return LearnerOfRows(
        features=2, task={"kind": "classification", "max_classes": 4}, decode={"kind": "json", "key": "machine"}
    )


@pytest.fixture
def classes(_classes: LearnerOfRows) -> LearnerOfRows:
    _classes.reset()
    return _classes


# The choice of the mode


def _mode(**sections: Any) -> str:
    values = {"source": {"kind": "simulator"}, "features": ["a"], "target": "y", "model": {"kind": "mlp"}, **sections}
    return from_values({key: value for key, value in values.items() if value is not None}).learning.mode


def test_a_new_built_in_model_learns_by_itself() -> None:
    assert _mode() == "auto"
    assert _mode(learning={"loss": "mae", "threads": 2}) == "auto"
    assert _mode(task={"kind": "forecast", "window": 4}, target=None, model={"kind": "gru"}) == "auto"


@pytest.mark.parametrize(
    "sections",
    [
        {"learning": {"optimizer": {"kind": "sgd"}}},
        {"learning": {"replay": {}}},
        {"averaging": {"kind": "ema"}},
        {"model": {"kind": "autoencoder"}, "task": {"kind": "reconstruction"}, "target": None},
        {"model": {"kind": "factory", "factory": "a:b"}},
        {"model": {"load": "a.keras"}},
    ],
    ids=lambda sections: str(next(iter(sections.items()))),
)
def test_what_belongs_to_a_single_learner_chooses_it(sections: Any) -> None:
    """An option of a single learner, averaging of one's own, a model or a task that cannot be mixed."""
    assert _mode(**sections) == "per_sample"


@pytest.mark.parametrize(
    ("sections", "place", "words"),
    [
        ("learning: {mode: auto, replay: {}}", "learning.replay", "per_sample"),
        ("learning: {mode: auto}\naveraging: {kind: window}", "averaging.kind", "averages by itself"),
        ("learning: {mode: auto}\ntask: {kind: reconstruction}", "learning.mode", "reconstruction"),
    ],
)
def test_options_without_effect_are_refused(sections: str, place: str, words: str) -> None:
    text = "source: {kind: simulator}\nfeatures: [a]\nmodel: {kind: mlp}\n"
    target = "" if "reconstruction" in sections else "target: y\n"
    with pytest.raises(ConfigError) as caught:
        loads(text + target + sections)
    assert [(p.path, words in p.message) for p in caught.value.problems] == [(place, True)]


# Learning


def _cuts(rows: int) -> list[slice]:
    ends = [1, 32, 33, 700, 2748, rows]
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def test_numbers_do_not_depend_on_how_the_stream_is_cut(regression: LearnerOfRows) -> None:
    """Bit for bit, through a shifted sensor, several machines, and a drift that empties the reservoir."""
    x, y = _curve()
    x[3000:, 1] += 300.0
    y[3000:] *= -1.0
    keys = [f"m{i % 3}" for i in range(ROWS)]
    whole = regression.predictions(x, y, keys=keys)
    state = regression.state()
    assert int(_update(regression).drifts.numpy()) >= 1
    regression.reset()
    parts = [regression.predictions(x[cut], y[cut], keys=keys[cut]) for cut in _cuts(ROWS)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for name, value in regression.state().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)


def test_a_restored_state_goes_on_with_the_same_bits(classes: LearnerOfRows) -> None:
    x, y = _rings(2000)
    classes.learn(x[:1200], y[:1200])
    state = classes.state()
    onwards = classes.learn(x[1200:], y[1200:]).predictions
    classes.reset()
    classes.restore(state)
    np.testing.assert_array_equal(classes.learn(x[1200:], y[1200:]).predictions, onwards)


def test_a_row_on_hold_is_predicted_and_changes_nothing(regression: LearnerOfRows) -> None:
    x, y = _curve(300)
    regression.learn(x[:299], y[:299])
    before = regression.state()
    held = regression.learn(x[299:], y[299:], has_target=np.array([False]))
    for name, value in regression.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    learned = regression.learn(x[299:], y[299:])
    np.testing.assert_allclose(held.predictions, learned.predictions, rtol=1e-5)
    assert np.isnan(held.losses[0]) and np.isfinite(learned.losses[0])


# What it is good for: each with the error that noise alone makes, 0.08


@pytest.mark.parametrize(
    ("change", "largest"),
    [
        ("none", 0.12),
        ("reading of 1e6 in row 10", 0.12),
        ("target of 1e6 in row 10", 0.12),
        ("sensor shifted by 50 spreads", 0.13),
        ("unit of a sensor times 1000", 0.13),
        ("target shifted by 50", 0.13),
        ("target rises forever", 0.25),
        ("sensor of 1e9", 0.12),
    ],
)
def test_nothing_that_happens_to_sensors_blinds_it(change: str, largest: float, regression: LearnerOfRows) -> None:
    """The mean error of the last quarter, well after the change."""
    rows = 12_000
    x, y = _curve(rows)
    if change.startswith("reading"):
        x[10, 1] = 1e6
    elif change.startswith("target of"):
        y[10] = 1e6
    elif change.startswith("sensor shifted"):
        x[6000:, 1] += 250.0
    elif change.startswith("unit"):
        x[6000:, 1] *= 1000.0
    elif change.startswith("target shifted"):
        y[6000:] += 50.0
    elif change.startswith("target rises"):
        y += 0.01 * np.arange(rows)
    elif change.startswith("sensor of"):
        x[:, 1] += 1e9
    errors = np.abs(regression.predictions(x, y) - y)[-rows // 4 :]
    assert errors.mean() < largest


def test_it_is_not_much_worse_than_the_last_value(regression: LearnerOfRows) -> None:
    """A random walk that the inputs say nothing about: nothing beats the last value."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(ROWS, 4)), random.normal(size=ROWS).cumsum()
    errors = np.abs(regression.predictions(x, y) - y)[100:]
    naive = np.abs(np.diff(y))[99:]
    assert errors.mean() < 1.05 * naive.mean()


def test_the_last_value_is_that_of_the_same_machine(regression: LearnerOfRows) -> None:
    """Two machines far apart, in turns: the last value of the stream is always that of the other."""
    random = np.random.default_rng(2)
    x, walks = random.normal(size=(4000, 4)), 0.1 * random.normal(size=(2000, 2)).cumsum(axis=0) + [0.0, 100.0]
    keys = ["a", "b"] * 2000
    errors = np.abs(regression.predictions(x, walks.ravel(), keys=keys) - walks.ravel())[2000:]
    assert errors.mean() < 0.2  # the machines are 100 apart; the last value alone is off by 0.08
    assert (
        _weights(regression)["last_value"]
        + sum(weight for name, weight in _weights(regression).items() if name.endswith("_corrected"))
        > 0.9
    )


def test_a_drift_empties_the_reservoir_and_no_drift_hardly_does(regression: LearnerOfRows) -> None:
    """While a young network improves, one false alarm may occur; it costs the older half of what is replayed."""
    x, y = _curve(8000)
    regression.learn(x[:4000], y[:4000])
    update = _update(regression)
    assert update.reservoir is not None and update.recent.replay is not None and update.reservoir.replay is not None
    before = int(update.drifts.numpy())
    assert before <= 1
    errors = np.abs(regression.predictions(x[4000:], -y[4000:]) + y[4000:])
    assert int(update.drifts.numpy()) > before
    assert errors[-1000:].mean() < 0.15
    stored = update.reservoir.replay.variables()
    assert int(stored["stored"].numpy()) < 4000  # no row from before the drift


def test_the_weights_that_stand_best_are_published(regression: LearnerOfRows) -> None:
    """And the losses that are called averaged are theirs. Sixteen rounds, so that averages are ahead."""
    x, y = _curve(3400)
    result = regression.learn(x, y)
    update, averaged = _update(regression), regression.learning.model.averaged
    chosen = regression.learning.model.chosen()
    assert chosen is not None and chosen.name.endswith("_average")
    assert chosen.losses[chosen.name] < 1.03 * min(chosen.losses.values())
    number = ["recent", "reservoir", "recent_average", "reservoir_average"].index(chosen.name)
    published = averaged.weights()
    for candidate, weight in zip(update.published_candidates()[number], published, strict=False):
        np.testing.assert_array_equal(candidate.numpy(), weight)
    before = regression.state()
    answer = averaged.predict(x[:1].astype(np.float32), published)["prediction"]
    regression.restore(before)
    held = regression.learn(x[:1], y[:1], has_target=np.array([False]))
    np.testing.assert_allclose(held.averaged_predictions, answer, rtol=1e-3)
    assert np.isfinite(result.averaged_losses).all()


def _rings(rows: int) -> tuple[Any, Any]:
    random = np.random.default_rng(3)
    x = random.normal(size=(rows, 2))
    return x, (np.hypot(x[:, 0], x[:, 1]) > 1.2).astype(float)


def test_classes_are_told_apart(classes: LearnerOfRows) -> None:
    x, y = _rings(4000)
    result = classes.learn(x, y)
    right = (result.predictions.argmax(axis=1) == y)[-1000:]
    assert right.mean() > 0.95
    np.testing.assert_allclose(result.predictions[1:].sum(axis=1), 1.0, atol=1e-4)


def test_what_follows_the_last_class_is_known(classes: LearnerOfRows) -> None:
    """Inputs say nothing, and the next class follows from the last one of the same machine."""
    x = np.random.default_rng(4).normal(size=(3000, 2))
    machines = np.arange(3000) % 2
    y = (np.arange(3000) // 2 + machines) % 3
    right = classes.learn(x, y, keys=[f"m{m}" for m in machines]).predictions.argmax(axis=1) == y
    assert right[1000:].mean() > 0.98


def test_a_forecast_is_mixed_without_errors_that_are_not_known_yet() -> None:
    task = {"kind": "forecast", "window": 4, "horizon": 3}
    learner = LearnerOfRows(features=1, task=task, target=None, model={"kind": "gru", "units": 4})
    names = _update(learner).pool.names
    assert names == ("recent", "linear", "recent_average", "linear_average", "last_value", "mean")
    random = np.random.default_rng(5)
    series = np.sin(np.arange(3000) / 5.0) + 0.01 * random.normal(size=3000)
    spans = np.lib.stride_tricks.sliding_window_view(series, 7)
    x, y = spans[:, :4, None], spans[:, 4:]
    errors = np.abs(learner.learn(x, y).predictions - y)[-500:].mean()
    assert errors < 0.3 * np.abs(y - x[:, -1])[-500:].mean()
