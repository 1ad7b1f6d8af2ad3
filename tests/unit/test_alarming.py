"""The alarms of a whole pipeline: the lines, the events, what is learned meanwhile, and a crash between two saves."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learnd.alarms.feedback import Verdict
from learnd.cli.main import main
from learnd.runtime.feedback import FeedbackFile
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import Crash, MemorySource, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import config_text, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

FAULT = slice(1000, 1200)
COUNT = 1500


def _records() -> list[bytes]:
    """Two sensors that move together; in the fault one of them does not."""
    random = np.random.default_rng(11)
    common = random.normal(size=COUNT)
    a, b = common + 0.1 * random.normal(size=COUNT), 5.0 - common + 0.1 * random.normal(size=COUNT)
    a[FAULT] += 10.0
    return [json.dumps({"a": x, "b": y, "t": 300.0 * i}).encode() for i, (x, y) in enumerate(zip(a, b, strict=True))]


def _pipeline(folder: Path, script: list[Any], **sections: Any) -> Pipeline:
    configured = settings(
        folder / "data",
        features=["a", "b"],
        target=None,
        decode={"time": "t", "time_numbers": "any"},
        task={"kind": "reconstruction"},
        model={"kind": "autoencoder", "hidden": [1]},
        predictions={"path": str(folder / "predictions.jsonl")},
        alarm_sink={"path": str(folder / "alarms.jsonl")},
        **{"learning": {"compile": False}, **sections},
    )
    return make_pipeline(configured, source=MemorySource(script), once=True)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_fault_is_named_and_not_learned(tmp_path: Path) -> None:
    """Each line says it, one alarm begins and ends, and the model does not know the fault afterwards."""
    pipeline = _pipeline(tmp_path, _records())
    run(pipeline, stopping=lambda: False)
    lines = _lines(tmp_path / "predictions.jsonl")
    assert len(lines) == COUNT
    active = np.array([line["alarm"] for line in lines])
    assert active[FAULT].mean() > 0.97
    assert active[1300:].sum() == 0
    assert pipeline.progress.samples == COUNT - active.sum()
    assert lines[1100]["alarm_features"]["a"] > 0.9
    assert lines[500]["alarm_features"] is None
    assert max(range(COUNT), key=lambda i: lines[i]["anomaly_probability"]) == FAULT.start
    scores = np.array([line["score"] for line in lines])
    assert np.median(scores[1150:1200]) > 20 * np.median(scores[800:1000])
    events = [line for line in _lines(tmp_path / "alarms.jsonl") if line["head"] == "state"]
    began, ended = events[-2:]
    assert (began["phase"], ended["phase"], began["id"]) == ("began", "ended", ended["id"])
    assert next(iter(began["features"])) == "a"
    metrics = pipeline.metrics.registry
    begun = [line for line in _lines(tmp_path / "alarms.jsonl") if line["phase"] == "began"]
    for head in ("state", "onset"):
        counted = metrics.get_sample_value("learnd_alarms_total", {"head": head})
        assert counted == sum(line["head"] == head for line in begun) > 0
    assert metrics.get_sample_value("learnd_alarms_active") == 0


def test_what_is_learned_in_alarm_can_be_chosen(tmp_path: Path) -> None:
    """With `learn`, the fault is learned like all else."""
    pipeline = _pipeline(tmp_path, _records(), alarms={"learning": "learn"})
    run(pipeline, stopping=lambda: False)
    assert pipeline.progress.samples == COUNT


def test_without_alarms_the_lines_say_nothing_of_them(tmp_path: Path) -> None:
    """The option switches everything off."""
    pipeline = _pipeline(tmp_path, _records(), alarms={"enabled": False})
    run(pipeline, stopping=lambda: False)
    assert "alarm" not in _lines(tmp_path / "predictions.jsonl")[0]
    assert (tmp_path / "alarms.jsonl").read_text() == ""


@pytest.mark.parametrize("learning", [{"compile": False}, {"compile": False, "mode": "micro_batch", "batch_size": 7}])
def test_a_crash_within_an_alarm_changes_no_line(learning: dict[str, Any], tmp_path: Path) -> None:
    """Nor an event, nor what was held: the state of the alarms is in the checkpoint."""
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(_pipeline(whole, _records(), learning=learning), stopping=lambda: False)
    script = [*_records()[:1050], Crash(), *_records()[1050:]]
    with pytest.raises(ScriptedCrash):
        run(_pipeline(cut, script, learning=learning), stopping=lambda: False)
    run(_pipeline(cut, _records(), learning=learning), stopping=lambda: False)
    for name in ("predictions.jsonl", "alarms.jsonl"):
        assert (cut / name).read_text() == (whole / name).read_text()


def test_each_line_of_feedback_is_followed_once(tmp_path: Path) -> None:
    """By the command; lines that say nothing are logged, and half a line waits for its end."""
    now_s = 0.0
    path = tmp_path / "data" / "feedback.jsonl"
    path.parent.mkdir()
    config = tmp_path / "learnd.yaml"
    config.write_text(config_text(tmp_path / "data"))
    file = FeedbackFile(path, clock=lambda: now_s)
    assert list(file.new()) == []
    assert main(["feedback", str(config), "a/0/7", "--no-anomaly"]) == 0
    assert main(["feedback", str(config), "--key", "m1", "--anomaly"]) == 0
    with path.open("a") as lines:
        lines.write('no json\n{"alarm": "a/0/8"}\n{"key": "m1", "anomaly": false}\n{"alarm": "a/0/9", "anom')
    now_s = 5.0
    with capture_logs() as logs:
        assert list(file.new()) == [Verdict(False, alarm="a/0/7"), Verdict(True, key="m1")]
    assert [line["event"] for line in logs] == ["feedback_refused"] * 3
    now_s = 10.0
    with path.open("a") as lines:
        lines.write('aly": true}\n')
    other = FeedbackFile(path, clock=lambda: now_s)
    other.restore(file.state())
    assert list(other.new()) == [Verdict(True, alarm="a/0/9")]
    now_s = 20.0
    path.write_text("")
    with capture_logs() as logs:
        assert list(other.new()) == []
    assert logs[0]["event"] == "feedback_shortened"


@pytest.mark.parametrize(
    "arguments", [["--anomaly"], ["a/0/1", "--key", "m", "--anomaly"], ["--key", "m", "--no-anomaly"], ["a/0/1"]]
)
def test_unclear_feedback_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """Neither an alarm nor a key, both, a key without an anomaly, and no verdict."""
    (tmp_path / "data").mkdir()
    config = tmp_path / "learnd.yaml"
    config.write_text(config_text(tmp_path / "data"))
    assert main(["feedback", str(config), *arguments]) == 64
    assert not (tmp_path / "data" / "feedback.jsonl").exists()


def test_feedback_reaches_a_running_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is followed while the stream is learned, and the log says so."""
    monkeypatch.setattr("learnd.runtime.feedback.EVERY_S", 0.0)
    pipeline, path = _pipeline(tmp_path, _records()), tmp_path / "data" / "feedback.jsonl"

    def write() -> None:
        if pipeline.progress.records and not path.exists():
            path.write_text('{"key": "memory/0", "anomaly": true}\n{"key": "x", "anomaly": true}\n')

    with capture_logs() as logs:
        run(pipeline, stopping=lambda: False, on_batch=write)
    said = [line["event"] for line in logs if str(line["event"]).startswith("feedback")]
    assert said.count("feedback_followed") == 1
    assert said.count("feedback_unknown") == 1
