"""Samples that are predicted and not learned: those on hold, and those without a target."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.alarms.monitor import Monitor
from learnd.alarms.readings import readings_of
from learnd.alarms.settings import AlarmSettings
from learnd.core.types import Samples, StepResult
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, readings, same_arrays, settings, step_result

ROWS = 60


def _samples() -> Samples:
    random = np.random.default_rng(0)
    x = (random.normal(size=(ROWS, 3)) * 5 + 20).astype(np.float32)
    return make_samples(x, (x[:, :1] * 2).astype(np.float32))


def _pipeline(folder: Path, mode: str, *, compiled: bool = False) -> Pipeline:
    learning: dict[str, Any] = {"mode": mode, "compile": compiled}
    if mode == "micro_batch":
        learning["batch_size"] = 4
    return make_pipeline(settings(folder, learning=learning, averaging={"kind": "window", "every_samples": 7}))


def _arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}


def _by_offset(results: list[StepResult]) -> dict[int, tuple[Any, ...]]:
    return {
        int(offset): (*prediction.tolist(), float(loss), bool(learned))
        for result in results
        for offset, prediction, loss, learned in zip(
            result.samples.offsets, result.predictions, result.losses, result.learned, strict=True
        )
    }


@pytest.fixture
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    """Of one mode; traced once for all examples of a test."""
    return _pipeline(tmp_path, request.param)


def _start_over(pipeline: Pipeline, start: dict[str, Any]) -> None:
    for name, variable in pipeline.saving.checkpoints._live.items():
        variable.assign(start[name])
    pipeline.model.learner.restore({"actions": {"pending": [], "done": []}})


@pytest.mark.parametrize("pipeline", ["per_sample", "micro_batch"], indirect=True)
@hypothesis_settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(held=st.lists(st.booleans(), min_size=ROWS, max_size=ROWS), cuts=st.lists(st.integers(1, ROWS - 1), max_size=6))
def test_held_samples_change_nothing_however_the_stream_is_cut(
    pipeline: Pipeline, held: list[bool], cuts: list[int]
) -> None:
    """The weights are those of the other samples alone, and each prediction is the same for any cutting."""
    samples, hold = _samples(), np.array(held, np.bool_)
    learner, start = pipeline.model.learner, _arrays(pipeline)
    learner.learn(samples.take(~hold))
    others = _arrays(pipeline)
    _start_over(pipeline, start)
    whole = _by_offset([learner.learn(samples, hold)])
    assert same_arrays(others, _arrays(pipeline)) == []
    assert [offset for offset, row in whole.items() if not row[-1]] == np.flatnonzero(hold).tolist()
    _start_over(pipeline, start)
    bounds = [0, *sorted(cuts), ROWS]
    parts = [learner.learn(samples.take(slice(a, b)), hold[a:b]) for a, b in itertools.pairwise(bounds) if b > a]
    assert same_arrays(others, _arrays(pipeline)) == []
    assert _by_offset(parts) == whole
    _start_over(pipeline, start)


@pytest.mark.parametrize("mode", ["per_sample", "micro_batch"])
def test_a_held_sample_is_answered_with_the_weights_of_its_moment(mode: str, tmp_path: Path) -> None:
    """As the live network answers it, after everything before it and before everything after it; compiled by XLA."""
    samples = _samples()
    hold = np.zeros(ROWS, np.bool_)
    hold[[0, 24, 25]] = True
    pipeline = _pipeline(tmp_path, mode, compiled=True)
    result = pipeline.model.learner.learn(samples, hold)
    expected = _pipeline(tmp_path / "other", mode, compiled=True)
    expected.model.learner.learn(samples.take(slice(1, 24)))
    network = expected.model.averaged._network
    # 23 rows came before: in groups of 4 the last three of them wait, and the weights are those after 20.
    answers = np.asarray(network.call(samples.x[24:26])["prediction"])
    rows = [int(np.flatnonzero(result.samples.offsets == offset)[0]) for offset in (24, 25)]
    np.testing.assert_allclose(result.predictions[rows], answers, rtol=1e-5)
    assert int(_arrays(pipeline)["learned"]) == (ROWS - 3) - (ROWS - 3) % (4 if mode == "micro_batch" else 1)
    assert pipeline.model.retraces() == 0


def test_residuals_are_target_minus_prediction_in_standard_deviations(tmp_path: Path) -> None:
    """One per output, whose mean square is the loss."""
    result = _pipeline(tmp_path, "per_sample").model.learner.learn(_samples())
    assert result.residuals.shape == result.predictions.shape
    np.testing.assert_allclose(np.square(result.residuals).mean(axis=1), result.losses, rtol=1e-5)
    late = slice(40, None)
    signs = np.sign(result.samples.y[late] - result.predictions[late])
    np.testing.assert_array_equal(np.sign(result.residuals[late]), signs)


TASKS: dict[str, tuple[dict[str, Any], Any]] = {
    "regression": ({"target": "y"}, lambda reading: reading["y"]),
    "classification": (
        {"target": "y", "task": {"kind": "classification"}},
        lambda reading: "high" if reading["y"] > 0 else "low",
    ),
}


@pytest.mark.parametrize("mode", ["per_sample", "micro_batch"])
@pytest.mark.parametrize("task", TASKS)
def test_a_record_without_a_target_is_answered_and_not_learned(task: str, mode: str, tmp_path: Path) -> None:
    """The target is absent or null. The model equals one that never saw those records."""
    sections, label = TASKS[task]
    learning: dict[str, Any] = {"mode": mode, "compile": False}
    if mode == "micro_batch":
        learning["batch_size"] = 4
    objects = [json.loads(value) for value in readings(40)]
    complete = [{**reading, "y": label(reading)} for reading in objects]
    gaps = [
        {**reading, "y": None} if i % 5 == 0 else {k: v for k, v in reading.items() if i % 5 != 1 or k != "y"}
        for i, reading in enumerate(complete)
    ]

    def learned(values: list[dict[str, Any]], folder: Path) -> tuple[Pipeline, list[dict[str, Any]]]:
        text = settings(
            folder,
            **sections,
            learning=learning,
            predictions={"path": str(folder / "predictions.jsonl")},
        )
        source = MemorySource([json.dumps(value).encode() for value in values])
        pipeline = make_pipeline(text, source=source)
        run(pipeline, stopping=lambda: False)
        lines = (folder / "predictions.jsonl").read_text().splitlines()
        return pipeline, [json.loads(line) for line in lines]

    pipeline, lines = learned(gaps, tmp_path / "gaps")
    other, _ = learned([c for c, g in zip(complete, gaps, strict=True) if g.get("y") is not None], tmp_path / "other")
    assert same_arrays(_arrays(pipeline), _arrays(other)) == []
    assert pipeline.progress.records == 40
    assert pipeline.progress.samples == other.progress.samples == 24
    assert pipeline.status.scores.samples == 24
    without = [line for line in lines if line["truth"] is None]
    assert sorted(line["offset"] for line in without) == [i for i in range(40) if i % 5 in (0, 1)]
    assert all(line["score"] is None and line["averaged_score"] is None for line in without)
    assert all(line["score"] is not None for line in lines if line["truth"] is not None)
    complete_before = [sum(g.get("y") is not None for g in gaps[: line["offset"]]) for line in without]
    size = learning.get("batch_size", 1)
    assert [line["model_samples"] for line in without] == [count - count % size for count in complete_before]
    assert pipeline.metrics.registry.get_sample_value("learnd_samples_predicted_only_total") == 16


def test_a_record_without_a_target_is_rejected_if_that_is_configured(tmp_path: Path) -> None:
    """With ``missing_target: reject``."""
    text = settings(tmp_path, decode={"kind": "json", "missing_target": "reject"}, learning={"compile": False})
    pipeline = make_pipeline(text, source=MemorySource([b'{"a": 1, "b": 2, "c": 3}']))
    run(pipeline, stopping=lambda: False)
    assert dict(pipeline.status.rejected) == {"missing_field": 1}


def test_a_target_that_is_no_number_is_rejected_and_not_taken_for_missing(tmp_path: Path) -> None:
    """By default too: only an absent or empty target is a question. The run says that there was no target."""
    values = [b'{"a": 1, "b": 2, "c": 3, "y": "high"}', b'{"a": 1, "b": 2, "c": 3}']
    pipeline = make_pipeline(settings(tmp_path, learning={"compile": False}), source=MemorySource(values))
    run(pipeline, stopping=lambda: False)
    assert dict(pipeline.status.rejected) == {"wrong_type": 1}
    assert pipeline.targets.never_seen


def test_records_without_a_target_have_no_faulty_sensor() -> None:
    """Although the target was there before, and alarms watch it too: nobody has to send it."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(400, 1)), random.normal(size=(400, 1))
    known = np.arange(400) < 200
    samples = make_samples(x, np.where(known[:, None], y, np.nan), has_target=known)

    def faults(targets: int) -> int:
        readings_of_both = readings_of("both", 1)
        monitor = Monitor(AlarmSettings(), columns=["a", "y"], readings=readings_of_both, hold="learn", targets=targets)
        watched, _ = monitor.watch(samples)
        result = step_result(watched, x.astype(np.float32), np.ones(400, np.float32))
        alarms = monitor.evaluate(result)[0].alarms
        assert alarms is not None
        return int((alarms.faults > 0).sum())

    assert faults(0) > 0
    assert faults(1) == 0
