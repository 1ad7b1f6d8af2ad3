"""Prediction intervals from the stream to the lines, the checkpoint, the manifest, the card and who runs an export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog.testing

import learnd
from learnd.checkpoint import state_codec
from learnd.config.loader import loads
from learnd.core.errors import ConfigError
from learnd.core.quality import Errors, Figures, Quality
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import NO_EXPORT, learned
from tests.support.helpers import config_text, readings, run_forked, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

TASKS: dict[str, dict[str, Any]] = {
    "regression": {},
    "micro-batches": {"learning": {"mode": "micro_batch", "batch_size": 7}},
    "forecast": {"target": None, "task": {"kind": "forecast", "window": 3, "horizon": 2}},
}


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "lines.jsonl").read_text().splitlines()]


def _run(folder: Path, values: list[bytes], **sections: Any) -> Pipeline:
    learning = {"mode": "per_sample", "compile": False, **sections.pop("learning", {})}
    predictions = {"path": str(folder / "lines.jsonl"), "forecasts": "with_truth"}
    chosen = settings(folder / "data", learning=learning, predictions=predictions, **sections)
    pipeline = make_pipeline(chosen, source=MemorySource(values))
    run(pipeline, stopping=lambda: False)
    return pipeline


@pytest.mark.parametrize("task", TASKS)
def test_every_line_has_bounds_that_two_runs_give_as_one_does(task: str, tmp_path: Path) -> None:
    """By the names of the prediction, to the last bit; null before the first truth."""
    values = readings(400)
    whole = _run(tmp_path / "whole", values, **TASKS[task])
    for stop in (150, 400):
        parts = _run(tmp_path / "parts", values[:stop], **TASKS[task])
    assert state_codec.encode(parts.intervals.state()) == state_codec.encode(whole.intervals.state())
    lines = _lines(tmp_path / "whole")
    assert lines == _lines(tmp_path / "parts")
    assert lines[0]["lower"] is None
    assert lines[0]["upper"] is None
    for line in lines[1:]:
        assert line["lower"].keys() == line["upper"].keys() == line["prediction"].keys()
        assert all(line["lower"][name] <= line["upper"][name] for name in line["lower"])
    covered = np.array(
        [[line["lower"][n] <= line["truth"][n] <= line["upper"][n] for n in line["truth"]] for line in lines[1:]]
    )
    assert covered[100:].mean() == pytest.approx(0.9, abs=0.06)


def test_intervals_can_be_turned_off(tmp_path: Path) -> None:
    pipeline = _run(tmp_path, readings(40), intervals=False)
    assert not {"lower", "upper"} & _lines(tmp_path)[-1].keys()
    assert "interval_coverage" not in pipeline.evaluator.quality().recent.measures


def test_intervals_are_for_numbers(tmp_path: Path) -> None:
    """A classification that names them is refused; one that does not has none."""
    task = {"target": "k", "task": {"kind": "classification"}}
    with pytest.raises(ConfigError, match=r"intervals.*no effect for task.kind classification"):
        loads(config_text(tmp_path, intervals={"coverage": 0.8}, **task))
    assert settings(tmp_path, **task).interval_coverage is None
    with pytest.raises(ConfigError, match="coverage"):
        loads(config_text(tmp_path, intervals={"coverage": 1.0}))


def test_who_runs_an_export_has_the_interval_of_the_moment(tmp_path: Path) -> None:
    """In the manifest and the card; the command line and the Python API add it to predictions."""
    pipeline = learned(tmp_path, records=500, intervals={"coverage": 0.8})
    offsets = pipeline.intervals.offsets()
    assert offsets is not None
    latest = tmp_path / "exports" / "latest"
    intervals = json.loads((latest / "learnd.json").read_text())["intervals"]
    assert intervals == {
        "coverage": 0.8,
        "samples": 500,
        "lower": offsets.lower.tolist(),
        "upper": offsets.upper.tolist(),
    }
    assert "About 80 % of the truths" in (latest / "MODEL_CARD.md").read_text()
    line = readings(1, seed=9)[0].decode()
    done = run_forked("predict", str(latest), lines=line)
    answer = json.loads(done.stdout)
    row = learnd.load_export(latest).predict([json.loads(line)])
    for end in ("lower", "upper"):
        expected = answer["prediction"]["y"] + intervals[end][0]
        assert answer[end]["y"] == pytest.approx(expected, rel=1e-5)
        assert float(row[end][0, 0]) == pytest.approx(expected, rel=1e-5)


def test_an_export_without_intervals_says_so(tmp_path: Path) -> None:
    learned(tmp_path, records=60, intervals=False)
    latest = tmp_path / "exports" / "latest"
    assert json.loads((latest / "learnd.json").read_text())["intervals"] is None
    assert "Prediction intervals" not in (latest / "MODEL_CARD.md").read_text()


def test_the_figures_say_what_was_covered(tmp_path: Path) -> None:
    pipeline = learned(tmp_path, records=2000, intervals={"coverage": 0.7}, export=NO_EXPORT)
    measures = pipeline.evaluator.quality().recent.measures
    assert measures["interval_coverage"] == pytest.approx(0.7, abs=0.03)
    assert measures["averaged_interval_coverage"] == pytest.approx(0.7, abs=0.03)
    assert measures["interval_width"] > 0.0


def test_a_coverage_that_is_far_off_is_warned_about_once(tmp_path: Path) -> None:
    """Too little, still too little, right again, too much: three events; none before 1000 samples."""
    pipeline = make_pipeline(settings(tmp_path), source=MemorySource([]))
    watch = pipeline.quality

    def quality(share: float, samples: int = 1000) -> Quality:
        figures = Figures(samples, Errors(0.5, 0.5, 1.0, 1.0, samples), {"interval_coverage": share})
        return Quality(figures, figures)

    qualities = [quality(0.5, samples=999), *map(quality, (0.86, 0.84, 0.84, 0.87, 0.91, 0.96))]
    pending = iter(qualities)
    watch._evaluator = type("Scripted", (), {"quality": lambda _: next(pending)})()
    with structlog.testing.capture_logs() as logs:
        for _ in qualities:
            watch.refresh(None)
    assert [(entry["event"], entry["covered"]) for entry in logs] == [
        ("interval_coverage_off", 0.84),
        ("interval_coverage_restored", 0.91),
        ("interval_coverage_off", 0.96),
    ]


def test_a_classification_says_how_good_its_probabilities_are(tmp_path: Path) -> None:
    """In the manifest, the card and the metrics: the same numbers."""
    task = {"kind": "classification", "max_classes": 4}
    pipeline = learned(tmp_path, records=300, target="k", task=task, decode={"kind": "json"})
    measures = pipeline.evaluator.quality().recent.measures
    latest = tmp_path / "exports" / "latest"
    document = json.loads((latest / "learnd.json").read_text())["quality"]
    card = (latest / "MODEL_CARD.md").read_text()
    for name in ("roc_auc", "calibration_error", "brier"):
        assert 0.0 < measures[name] < 1.0
        assert document["recent"]["measures"][name] == measures[name]
        assert pipeline.metrics.registry.get_sample_value("learnd_quality", {"figure": name}) == measures[name]
        assert f"| {name} | {measures[name]:.4g} |" in card
