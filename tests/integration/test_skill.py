"""Skill against a naive forecast, from the stream to the log, the metrics, the manifest and the card."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing

from learnd.core.quality import Errors, Figures, Quality
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import learned
from tests.support.helpers import Daemon, config_text, readings, settings

pytestmark = pytest.mark.usefixtures("shared_traces")


def walk(count: int, *, seed: int = 0) -> list[bytes]:
    """Return records whose target walks at random and whose features say nothing about it."""
    random = np.random.default_rng(seed)
    x, y = random.normal(size=(count, 3)), np.cumsum(random.normal(size=count))
    return [
        json.dumps({"a": a, "b": b, "c": c, "y": value}).encode()
        for (a, b, c), value in zip(x.tolist(), y.tolist(), strict=True)
    ]


def _daemon(folder: Path, lines: Sequence[bytes]) -> Daemon:
    path = folder / "readings.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    config = folder / "config.yaml"
    config.write_text(config_text(folder / "data", source={"kind": "file", "path": str(path)}))
    return Daemon(config)


def test_a_model_that_is_worse_than_naive_is_warned_about_once(tmp_path: Path) -> None:
    """In the last line, skill is negative, and the figures are those of the records."""
    lines = walk(3000)
    with _daemon(tmp_path, lines) as daemon:
        daemon.finish()
        finished = daemon.events("finished")[-1]
        warned = daemon.events("worse_than_naive")
    y = np.array([json.loads(line)["y"] for line in lines], np.float32)
    assert finished["since_start"]["naive_mae"] == pytest.approx(np.abs(np.diff(y)).mean(), rel=1e-4)
    assert finished["skill"] < -0.05
    assert finished["averaged_skill"] < -0.05
    assert finished["recent"]["mae"] == pytest.approx(finished["naive_error"] * (1 - finished["skill"]), rel=1e-4)
    assert sorted(event["weights"] for event in warned) == ["averaged", "live"]
    assert all(event["level"] == "warning" and event["error"] > event["naive_error"] for event in warned)


def test_a_model_that_learns_has_skill_and_is_not_warned_about(tmp_path: Path) -> None:
    """A target that the features determine."""
    with _daemon(tmp_path, readings(3000)) as daemon:
        daemon.finish()
        finished = daemon.events("finished")[-1]
        assert not daemon.events("worse_than_naive")
    assert 0.5 < finished["skill"] < 1.0
    assert finished["recent"]["mae"] < finished["fading"]["mae"] < finished["since_start"]["mae"]
    assert finished["recent"]["interval_coverage"] == pytest.approx(0.9, abs=0.03)
    assert finished["recent"]["r2"] > 0.5
    assert finished["export_skill"] is None


def _value(pipeline: Pipeline, name: str, **labels: str) -> float:
    value = pipeline.metrics.registry.get_sample_value(f"learnd_{name}", labels)
    assert value is not None
    return value


def test_metrics_manifest_and_card_have_the_skill(tmp_path: Path) -> None:
    """The same numbers in each; those of the averaged weights are the ones that the export has."""
    pipeline = learned(tmp_path, records=1500)
    errors = pipeline.evaluator.quality().recent.errors
    assert _value(pipeline, "skill", weights="live") == errors.live_skill > 0.3
    assert _value(pipeline, "skill", weights="averaged") == errors.averaged_skill
    assert _value(pipeline, "quality", figure="mae") == pipeline.evaluator.quality().recent.measures["mae"]
    latest = tmp_path / "exports" / "latest"
    document = json.loads((latest / "learnd.json").read_text())
    assert document["baseline"] == "last_truth"
    assert document["quality"]["recent"]["skill"]["averaged"] == errors.averaged_skill
    assert document["quality"]["total"]["samples"] == 1500
    fading = pipeline.evaluator.quality().fading.measures["rmse"]
    assert (
        document["quality"]["fading"]["measures"]["rmse"] == fading == _value(pipeline, "fading_quality", figure="rmse")
    )
    card = (latest / "MODEL_CARD.md").read_text()
    assert "the last known target of the same key" in card
    assert f"| averaged (in this export) | {errors.averaged_skill:.4g} |" in card


@pytest.mark.parametrize("averaging", [{"kind": "none"}, {"kind": "window", "size": 4, "every_samples": 10}])
def test_averaged_skill_is_that_of_the_averaged_weights(tmp_path: Path, averaging: dict[str, Any]) -> None:
    """Without averaging it is the live skill; with it, the averaged predictions have the averaged losses."""
    options = settings(tmp_path, averaging=averaging, learning={"mode": "per_sample", "compile": False})
    pipeline = make_pipeline(options, source=MemorySource(readings(300)))
    results = []
    learn = pipeline.model.learner.learn
    pipeline.model.learner.learn = lambda *given: results.append(learn(*given)) or results[-1]  # type: ignore
    run(pipeline, stopping=lambda: False)
    live = np.concatenate([result.predictions for result in results])
    averaged = np.concatenate([result.averaged_predictions for result in results])
    losses, averaged_losses = (
        np.concatenate([getattr(result, name) for result in results]) for name in ("losses", "averaged_losses")
    )
    y = np.concatenate([result.samples.y for result in results])
    errors = pipeline.evaluator.quality().total.errors
    if averaging["kind"] == "none":
        assert (live == averaged).all()
        assert errors.live == errors.averaged
    else:
        squares, averaged_squares = np.square(live - y)[:, 0], np.square(averaged - y)[:, 0]
        # One scale for both at each sample, so the ratio of squared errors is that of the losses.
        far = (squares > 1e-2) & (losses > 0.0)
        ratio = averaged_squares[far] / squares[far]
        np.testing.assert_allclose(ratio, (averaged_losses / losses)[far], rtol=1e-2, atol=1e-4)
        assert errors.live != errors.averaged
        assert errors.averaged == pytest.approx(np.abs(averaged - y)[1:].mean(), rel=1e-6)


TASKS: dict[str, dict[str, Any]] = {
    "classification": {"target": "k", "task": {"kind": "classification"}},
    "reconstruction": {"target": None, "task": {"kind": "reconstruction"}, "model": {"kind": "autoencoder"}},
    "forecast": {"target": None, "task": {"kind": "forecast", "window": 3, "horizon": 2}},
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_naive_forecast_and_continues_it_after_a_restart(task: str, tmp_path: Path) -> None:
    """The state of two runs is that of one, to the last bit."""
    values = readings(400)
    states = []
    for name, cuts in (("whole", [400]), ("parts", [150, 400])):
        for stop in cuts:
            options = settings(tmp_path / name, learning={"mode": "per_sample", "compile": False}, **TASKS[task])
            pipeline = make_pipeline(options, source=MemorySource(values[:stop]))
            run(pipeline, stopping=lambda: False)
        states.append(pipeline.evaluator)
    whole, parts = (evaluator.quality() for evaluator in states)
    assert repr(whole) == repr(parts)
    assert whole.total.errors.samples > 300
    assert whole.total.errors.naive > 0.0
    if task == "forecast":
        assert sorted(whole.total.parts) == ["step 1", "step 2"]
    if task == "classification":  # the keys take turns: the table knows the next one
        assert sorted(whole.total.parts) == ["m0", "m1", "m2"]


def test_the_warning_changes_sides_only_beyond_a_margin(tmp_path: Path) -> None:
    """Worse, a little better, better, worse: three events, not one per refresh."""
    pipeline = make_pipeline(settings(tmp_path), source=MemorySource([]))
    watch = pipeline.quality

    def quality(error: float, samples: int = 1000) -> Quality:
        figures = Figures(samples, Errors(error, 0.5, 1.0, 1.0, samples))
        return Quality(figures, figures)

    qualities = [quality(2.0, samples=999), *map(quality, (1.04, 1.06, 1.06, 1.02, 1.06, 0.99, 1.04, 1.06))]
    pending = itertools.chain(qualities)
    watch._evaluator = type("Scripted", (), {"quality": lambda _: next(pending)})()
    with structlog.testing.capture_logs() as logs:
        for _ in qualities:
            watch.refresh(None)
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("worse_than_naive", 1.06),
        ("no_longer_worse_than_naive", 0.99),
        ("worse_than_naive", 1.06),
    ]
