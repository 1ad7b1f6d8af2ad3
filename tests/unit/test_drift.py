"""Drift in a whole pipeline: what is detected, what is done about it, and a crash in between."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import Crash, MemorySource, Pause, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import same_arrays, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

CHANGE, COUNT = 3000, 4200


def _records(*, count: int = COUNT, change: int = CHANGE) -> list[bytes]:
    """Two readings, and a target that depends on them in another way from *change* on."""
    random = np.random.default_rng(5)
    x = random.normal(size=(count, 2))
    y = x @ [2.0, -1.0] + 0.1 * random.normal(size=count)
    y[change:] = x[change:] @ [-1.0, 2.0] + 0.1 * random.normal(size=count - change)
    return [
        json.dumps({"a": a, "b": b, "y": target, "t": 60.0 * i}).encode()
        for i, ((a, b), target) in enumerate(zip(x.tolist(), y.tolist(), strict=True))
    ]


def _pipeline(folder: Path, script: list[Any], **sections: Any) -> Pipeline:
    configured = settings(
        folder / "data",
        features=["a", "b"],
        decode={"time": "t"},
        predictions={"path": str(folder / "predictions.jsonl")},
        alarm_sink={"path": str(folder / "alarms.jsonl")},
        **{"learning": {"optimizer": {"kind": "SGD", "learning_rate": 0.01}}, **sections},
    )
    return make_pipeline(configured, source=MemorySource(script), once=True)


def _drifts(folder: Path) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (folder / "alarms.jsonl").read_text().splitlines())
    return [line for line in lines if line["head"] == "drift"]


def test_a_drift_is_told_with_what_has_changed(tmp_path: Path) -> None:
    """By default in the log, the alarms sink and the metrics; and nothing before it."""
    pipeline = _pipeline(tmp_path, _records())
    with capture_logs() as logs:
        run(pipeline, stopping=lambda: False)
    [drift] = _drifts(tmp_path)
    assert CHANGE < drift["samples"] <= CHANGE + 320
    assert (drift["on"], drift["detector"], drift["reactions"]) == ("loss", "adwin", ["log"])
    assert drift["after"] > 5 * drift["before"] > 0
    [line] = [line for line in logs if line["event"] == "drift_detected"]
    assert line["samples"] == drift["samples"]
    metrics = pipeline.metrics.registry
    assert metrics.get_sample_value("learnd_drift_detections_total", {"on": "loss"}) == 1
    assert metrics.get_sample_value("learnd_drift_reactions_total", {"reaction": "log"}) == 1


RATE = {"kind": "raise_rate", "factor": 4.0, "samples": 500}


def _arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}


def _same(one: Path, other: Path) -> None:
    for name in ("predictions.jsonl", "alarms.jsonl"):
        assert (one / name).read_text() == (other / name).read_text(), name


def test_reactions_fall_on_the_same_samples_however_the_stream_is_cut(tmp_path: Path) -> None:
    """And whether the daemon was killed: between the drift and the reaction, and while the rate is raised."""
    drift = {"drift": {"reactions": [{"kind": "log"}, RATE]}}
    plain = _pipeline(tmp_path / "plain", _records())
    run(plain, stopping=lambda: False)
    whole = _pipeline(tmp_path / "whole", _records(), **drift)
    run(whole, stopping=lambda: False)
    [found] = _drifts(tmp_path / "whole")
    assert found["reactions"] == ["log", "raise_rate"]
    assert same_arrays(_arrays(whole), _arrays(plain)) != [], "the reaction does something"
    assert (tmp_path / "whole/alarms.jsonl").read_text() != (tmp_path / "plain/alarms.jsonl").read_text()

    records: list[Any] = _records()
    cuts = sorted(np.random.default_rng(3).integers(1, COUNT, 40).tolist(), reverse=True)
    for cut in cuts:
        records.insert(cut, Pause())
    in_pieces = _pipeline(tmp_path / "pieces", records, **drift)
    run(in_pieces, stopping=lambda: False)
    _same(tmp_path / "whole", tmp_path / "pieces")
    assert same_arrays(_arrays(whole), _arrays(in_pieces)) == []

    records = _records()
    for place in (found["at_samples"] + 100, found["samples"] + 20):
        records.insert(place, Crash())
    for _ in range(2):
        with pytest.raises(ScriptedCrash):
            run(_pipeline(tmp_path / "killed", records, **drift), stopping=lambda: False)
        records.remove(Crash())
    resumed = _pipeline(tmp_path / "killed", records, **drift)
    run(resumed, stopping=lambda: False)
    _same(tmp_path / "whole", tmp_path / "killed")
    assert same_arrays(_arrays(whole), _arrays(resumed)) == []
    assert whole.drifting.state() == resumed.drifting.state() == in_pieces.drifting.state()
