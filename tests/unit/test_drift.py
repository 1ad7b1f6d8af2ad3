"""Drift in a whole pipeline: what is detected, what is done about it, and a crash in between."""

import json
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learnd.alarms.monitor import sound_readings
from learnd.config.loader import from_values
from learnd.core.errors import ConfigError
from learnd.core.rows import NewestRows
from learnd.drift.chain import Chain, Limits
from learnd.drift.channel import Channel, Drift
from learnd.drift.detectors import DETECTORS
from learnd.drift.detectors.settings import AdwinSettings
from learnd.drift.monitor import DriftMonitor
from learnd.drift.reactions.reaction import Surroundings
from learnd.drift.reactions.settings import LogSettings, WebhookSettings
from learnd.drift.reactions.webhook import Webhook
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import Crash, MemorySource, Pause, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, same_arrays, settings, step_result, until

pytestmark = pytest.mark.usefixtures("shared_traces")

CHANGE, COUNT = 3000, 4200


class _Seen(Channel):
    """A channel that remembers what it was shown, and at which counts of samples."""

    def __init__(self, name: str) -> None:
        settings = AdwinSettings(kind="adwin", on=[name])
        super().__init__(name, settings, DETECTORS["adwin"].load()(settings, seed=0))
        self.shown: list[tuple[float, int]] = []

    def observe(self, values: Any, samples: Any) -> list[Drift]:
        self.shown += zip(values.tolist(), samples.tolist(), strict=True)
        return []


def _monitor(*names: str, every_samples: int = 10) -> tuple[DriftMonitor, dict[str, _Seen]]:
    """A monitor of single values, and what each of its channels was shown."""
    channels = {name: _Seen(name) for name in names}
    monitor = DriftMonitor(
        list(channels.values()),
        Chain([]),
        names=["a", "b"],
        readings=lambda samples: samples.x,
        rows=NewestRows(0),
        sound=sound_readings,
        every_samples=every_samples,
    )
    return monitor, channels


def _records(*, count: int = COUNT, change: int = CHANGE) -> list[bytes]:
    """Two readings, and a target that depends on them in another way from *change* on."""
    random = np.random.default_rng(5)
    x = random.normal(size=(count, 2))
    y = x @ [2.0, -1.0] + 0.1 * random.normal(size=count)
    y[change:] = x[change:] @ [-1.0, 2.0] + 0.1 * random.normal(size=count - change)
    return [
        json.dumps({"a": a, "b": b, "y": target, "t": 1.7e9 + 60.0 * i}).encode()
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


def test_what_is_in_alarm_faulty_held_or_unknown_is_not_shown() -> None:
    """Each reading by itself; a loss only if all readings of its row are as usual."""
    x = np.arange(12.0).reshape(6, 2)
    watched = np.zeros((6, 6, 2))
    watched[1, 2, 0] = 1.0  # reading a is in alarm
    watched[2, 4, 1] = 2.0  # sensor b is missing
    has_target = np.array([True, True, True, True, False, True])
    samples = make_samples(x, np.zeros((6, 1)), watched=watched, has_target=has_target)
    result = step_result(samples, np.zeros((6, 1)), np.arange(6.0))
    learned = np.array([True, True, True, False, False, True])  # row 3 is in a planned stop
    monitor, seen = _monitor("loss", "a", "b")
    monitor.observe(replace(result, learned=learned, losses=np.where(has_target, result.losses, np.nan)))
    monitor.state()
    assert seen["loss"].shown == [(0.0, 1), (5.0, 4)]
    assert seen["a"].shown == [(0.0, 1), (4.0, 3), (8.0, 3), (10.0, 4)]
    assert seen["b"].shown == [(1.0, 1), (3.0, 2), (9.0, 3), (11.0, 4)]


def test_limits_count_drifts_and_reactions() -> None:
    """The first drift is let pass, then at most two reactions, and none too soon after another."""
    settings = LogSettings(kind="log", from_detection=2, cool_down_samples=50, at_most=2, within_samples=1000)
    limits, made = Limits(settings), []
    for samples in (100, 200, 230, 300, 400, 1150, 1350, 1360, 5000):
        if limits.allow(samples):
            limits.note(samples)
            made.append(samples)
    assert made == [200, 300, 1350]


def test_a_webhook_delivers_what_an_earlier_process_did_not() -> None:
    """A refused request is sent again; what is delivered leaves the state, and the address is never logged."""
    received: list[dict[str, Any]] = []
    answers = [500, 204, 204]

    class _Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0))
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/?token=secret"
    options = WebhookSettings(kind="webhook", url=address, attempts=3)  # type: ignore[arg-type]
    surroundings: Any = Surroundings(None, lambda: None, NewestRows(0), 1, "press")  # type: ignore[arg-type]
    drift = Drift(700, "loss", "adwin", "mean", 0.1, 0.9)
    ended = Webhook(options, surroundings)
    ended.close()
    ended.react(drift, 768)
    saved = ended.state()
    assert len(saved["pending"]) == 1
    with capture_logs() as logs:
        resumed = Webhook(options, surroundings)
        resumed.restore(saved)
        resumed.review(1024)
        resumed.react(replace(drift, samples=900), 1024)
        until(lambda: resumed.state() == {"pending": []}, what="the delivery", timeout_s=30)
        resumed.close()
    server.shutdown()
    assert [line["samples"] for line in received] == [700, 700, 900]
    assert received[0] == {
        "event": "drift_detected",
        "name": "press",
        "samples": 700,
        "on": "loss",
        "detector": "adwin",
        "statistic": "mean",
        "before": 0.1,
        "after": 0.9,
        "at_samples": 768,
    }
    assert [line["error"] for line in logs] == ["HTTP status 500"]
    assert "secret" not in repr((logs, options))


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        (
            {"detectors": [{"kind": "adwin", "on": "flaw"}]},
            "drift.detectors[0].on: flaw is no feature; did you mean flow",
        ),
        (
            {"reactions": [{"kind": "log", "on": "flaw"}]},
            "drift.reactions[0].on: flaw is no feature; did you mean flow",
        ),
        ({"reactions": [{"kind": "webhook", "url": "ftp://x"}]}, "must begin with https:// or http://"),
        ({"reactions": [{"kind": "raise_rate"}]}, "needs a learning rate that is a number"),
        ({"reactions": [{"kind": "weigh_replay"}]}, "needs learning.replay"),
    ],
)
def test_what_can_have_no_effect_is_refused(drift: dict[str, Any], message: str) -> None:
    """With the place and the way out."""
    rate = {"kind": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_steps": 100, "decay_rate": 0.9}
    values = {
        "source": {"kind": "simulator"},
        "features": ["flow"],
        "target": "y",
        "model": {"kind": "mlp"},
        "learning": {"mode": "per_sample", "optimizer": {"kind": "sgd", "learning_rate": rate}},
        "drift": drift,
    }
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_values(values)
