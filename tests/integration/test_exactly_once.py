"""Nothing lost, nothing learned twice: a real broker, a real process, a real SIGKILL."""

import contextlib
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint import state_codec
from learnd.checkpoint.reading import read_arrays
from learnd.core import crash_points
from learnd.testing.kafka import KafkaCluster
from tests.support import compile_cache
from tests.support.helpers import SAVED_MODEL, Daemon, config_text, readings, same_arrays, until

RECORDS = 30_000
PORTION, PORTION_S = 250, 0.3
MANY_RECORDS, MANY_PORTION_S = 600_000, 2.0
"""They last for 40 minutes, longer than fifty starts on a busy machine and what is learned in between."""
MANY_KILLS = 50
SAVING = (
    "checkpoint.before-checksums",
    "checkpoint.before-rename",
    "checkpoint.before-index",
    "checkpoint.after-save-before-commit",
    "checkpoint.half-removed",
)
PUBLISHING = ("export.before-rename", "export.after-rename", "export.before-pointer")
VARIANTS: dict[str, dict[str, Any]] = {
    "per_sample": {"export": SAVED_MODEL},
    "mixture": {
        "averaging": None,
        "decode": {"kind": "json", "key": "k"},
        "export": SAVED_MODEL,
        "drift": {  # of detectors so sensitive that there are always reactions
            "detectors": [{"kind": "page_hinkley", "block": 4, "threshold": 4, "minimum_blocks": 5}],
            "reactions": [
                {"kind": "raise_rate", "samples": 900, "cool_down_samples": 2000},
                {"kind": "challenger", "cool_down_samples": 9000, "passes": 2},
                {"kind": "hasten_scales", "cool_down_samples": 3000},
            ],
        },
    },  # the default learner
    "micro_batch_of_windows": {
        "decode": {"kind": "json", "key": "k", "time": "t", "time_numbers": "any"},
        "target": None,
        "task": {"kind": "forecast", "window": 4},
        "learning": {"mode": "micro_batch", "batch_size": 7},
    },
}


class Feed:
    """Produces the readings bit by bit on a thread, so that a daemon never comes to their end before `finish`."""

    def __init__(self, broker: KafkaCluster, records: int = RECORDS, pause_s: float = PORTION_S) -> None:
        self._records = records
        self._pause_s = pause_s
        self.topic = broker.create_topic("exactly-once")
        self._broker = broker
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        values = readings(self._records)
        for start in range(0, self._records, PORTION):
            self._broker.produce(self.topic, values[start : start + PORTION])
            self._hurry.wait(self._pause_s)

    def finish(self) -> None:
        """Until everything was produced, now without pauses."""
        self._hurry.set()
        self._thread.join()


def _config(folder: Path, broker: KafkaCluster, topic: str, **sections: Any) -> Path:
    folder.mkdir()
    config = folder / "config.yaml"
    source = {"kind": "kafka", "bootstrap_servers": [broker.bootstrap], "topics": [topic]}
    common: dict[str, Any] = {
        "source": source,
        "checkpoint": {"every_seconds": None, "every_samples": 500},
        "predictions": {"path": str(folder / "predictions.jsonl")},
    }
    config.write_text(config_text(folder / "data", **{**common, **sections}))
    return config


def _newest_checkpoint(folder: Path) -> int:
    names = (folder / "data" / "checkpoints").glob("ckpt-*.index")
    return max((int(path.stem.partition("-")[2]) for path in names), default=0)


@pytest.mark.parametrize(
    "variant", [pytest.param("per_sample", marks=pytest.mark.slow), "mixture", "micro_batch_of_windows"]
)
def test_killed_run_ends_bit_identical_to_an_uninterrupted_one(
    variant: str, kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """Weights, slots, averages, windows, metrics, offsets and even the file of predictions are the same."""
    feed = Feed(kafka_broker)
    broken = _config(tmp_path / "broken", kafka_broker, feed.topic, **VARIANTS[variant])
    random = np.random.default_rng(len(variant))
    points = SAVING[2:4] if variant == "micro_batch_of_windows" else SAVING[:2]
    try:
        for point in points:
            _kill_at(broken, f"{point}:3")
        _kill_some_time_after_a_save(broken, random)
    finally:
        feed.finish()
    if variant != "micro_batch_of_windows":
        _kill_at(broken, "export.before-rename", "--once")
    _compare_with_an_uninterrupted_run(broken, kafka_broker, feed.topic, RECORDS, VARIANTS[variant])


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("variant", VARIANTS)
def test_fifty_kills_lose_nothing_and_repeat_nothing(
    variant: str, kafka_broker: KafkaCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same, killed fifty times: at every named point, in the start, and whenever chance will have it."""
    for name, value in compile_cache.WITHOUT.items():
        monkeypatch.setenv(name, value)  # as it is without tests: each start compiles by itself
    feed = Feed(kafka_broker, MANY_RECORDS, MANY_PORTION_S)
    sections = {
        **VARIANTS[variant],
        "checkpoint": {"every_seconds": None, "every_samples": 300},
        "export": {"every_samples": 2000, "formats": ["tflite"], "keep": 2},
    }
    broken = _config(tmp_path / "broken", kafka_broker, feed.topic, **sections)
    random = np.random.default_rng(50 + len(variant))
    named = [f"{point}:{random.integers(1, 5)}" for point in 5 * SAVING] + [*PUBLISHING, "export.before-rename"]
    kills: list[str | None] = [*named, *[None] * (MANY_KILLS - len(named))]
    random.shuffle(kills)  # type: ignore[arg-type]
    told = []
    try:
        for point in kills:
            if point is None:
                told.append(_kill_at_any_time(broken, random))
            else:
                _kill_at(broken, point)
                told.append(point)
    finally:
        feed.finish()
    assert len(told) == MANY_KILLS
    until(lambda: not _processes_of(broken.parent), what="the end of the exporting children", timeout_s=10)
    assert {"in the start", "while learning"} < set(told)
    _compare_with_an_uninterrupted_run(broken, kafka_broker, feed.topic, MANY_RECORDS, sections)


def _processes_of(folder: Path) -> list[int]:
    """Those that have *folder* in their command: daemons and exporting children, stopped ones too."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def _kill_at(config: Path, point: str, *arguments: str) -> None:
    """The daemon's own SIGKILL, at *point*."""
    with Daemon(config, *arguments, environ={crash_points.VARIABLE: point}) as daemon:
        daemon.finish(code=-signal.SIGKILL)


def _kill_some_time_after_a_save(config: Path, random: np.random.Generator) -> None:
    reached = _newest_checkpoint(config.parent)
    with Daemon(config) as daemon:
        until(lambda: _newest_checkpoint(config.parent) > reached, what="a checkpoint")
        time.sleep(random.uniform(0.0, 2 * PORTION_S))
        assert daemon.process.poll() is None, daemon.log()
        daemon.kill()


def _kill_at_any_time(config: Path, random: np.random.Generator) -> str:
    """From the first moment of the process on; some come in its start, most while it learns."""
    with Daemon(config, installed=True) as daemon:
        if in_the_start := random.random() < 0.2:
            time.sleep(random.uniform(0.0, 5.0))
        else:
            daemon.wait_for("state_restored" if _newest_checkpoint(config.parent) else "http_listening")
            time.sleep(random.uniform(0.0, 3.0))
        assert daemon.process.poll() is None, daemon.log()
        daemon.kill()
    return "in the start" if in_the_start else "while learning"


def _differs(one: Any, other: Any) -> list[str]:
    """Return the names of the parts of a state that differ."""
    if not isinstance(one, dict):
        return ["it"] if state_codec.encode({"it": one}) != state_codec.encode({"it": other}) else []
    return [*(name for name in one if _differs(one[name], other.get(name))), *(other.keys() - one.keys())]


def _compare_with_an_uninterrupted_run(
    broken: Path, broker: KafkaCluster, topic: str, records: int, sections: dict[str, Any]
) -> None:
    """Both to the end of the stream; then everything that either has on disk."""
    with Daemon(broken, "--once") as daemon:
        daemon.finish()
        assert not daemon.events("checkpoint_damaged"), "a crash is no damage"
    folder = broken.parent.parent
    whole = _config(folder / "whole", broker, topic, **sections)
    with Daemon(whole, "--once", installed=True) as daemon:  # another hash seed than all that were killed
        daemon.finish()
    arrays, state = read_arrays(folder / "whole" / "data" / "checkpoints")
    arrays_again, state_again = read_arrays(folder / "broken" / "data" / "checkpoints")
    assert state["progress"]["records"] == state_again["progress"]["records"] == records
    assert int(arrays["learned"]) == state["progress"]["samples"] > records * 0.99
    assert same_arrays(arrays, arrays_again) == []
    for one in (state, state_again):
        del one["predictions"]["path"]
    assert [name for name in state if _differs(state[name], state_again[name])] == []
    assert all(link["made"] for link in state["drift"]["chain"]["links"] if "drift" in sections)
    predictions = (folder / "whole" / "predictions.jsonl").read_bytes()
    assert predictions == (folder / "broken" / "predictions.jsonl").read_bytes()
    lines = [json.loads(line) for line in predictions.splitlines()]
    if "task" in sections:  # besides, each full window has been answered before its truth was known
        answered = [f"{line['topic']}/{line['partition']}/{line['offset']}" for line in lines if line["truth"] is None]
        lines = [line for line in lines if line["truth"] is not None]
        assert {line["answers"] for line in lines} < set(answered)
        assert len(set(answered)) == len(answered)
    offsets = [line["offset"] for line in lines]
    held = sum(line["alarm"] for line in lines) if "task" in sections else 0
    assert len(offsets) == state["progress"]["samples"] + held
    if held:  # a held record does not wait for its micro-batch to fill, so it may overtake some
        offsets.sort()
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "one prediction a record, in order"


def test_sigterm_ends_cleanly_and_the_next_start_goes_on(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Exit code 0 within 25 s with a checkpoint and an export; records that come later are learned later."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, readings(3000))
    config = _config(tmp_path / "run", kafka_broker, topic, name="stops-and-goes-on", export=SAVED_MODEL)
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 3000, what="3000 samples")
        assert daemon.terminate() < 25.0
        assert daemon.events("export_published")
        assert daemon.events("finished")[-1]["samples"] == 3000
    kafka_broker.produce(topic, readings(500, seed=1))
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_model_samples") == 3500, what="the later records")
        assert daemon.metric("learnd_samples_learned_total") == 500
        daemon.terminate()
    assert kafka_broker.committed("learnd-stops-and-goes-on") == {(topic, 0): 3500}
    assert len(list((tmp_path / "run" / "data" / "exports").glob("[0-9]*"))) == 2


def test_offsets_are_committed_only_after_the_save(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """A run that never saves commits nothing, however much it learned."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, readings(2000))
    config = _config(tmp_path / "run", kafka_broker, topic, name="never-saves")
    text = config.read_text().replace("every_samples: 500", "every_samples: 1000000")
    config.write_text(text)
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 2000, what="2000 samples")
        time.sleep(0.5)
        assert set(kafka_broker.committed("learnd-never-saves").values()) <= {0}, "beyond the save of the start"
        daemon.process.send_signal(signal.SIGTERM)
        daemon.finish()
    assert kafka_broker.committed("learnd-never-saves") == {(topic, 0): 2000}
