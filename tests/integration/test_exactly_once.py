"""Nothing lost, nothing learned twice: a real broker, a real process, a real SIGKILL."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd import statecodec
from learnd.checkpoint import read_arrays
from learnd.testing.kafka import KafkaCluster
from tests.helpers import Daemon, config_text, readings, same_arrays, until

RECORDS = 60_000
PORTION, PORTION_S = 500, 0.3
KILLS = 4
VARIANTS: dict[str, dict[str, Any]] = {
    "per_sample": {},
    "micro_batch_of_windows": {
        "decode": {"kind": "json", "key": "k", "time": "t"},
        "target": None,
        "task": {"kind": "forecast", "window": 4},
        "learning": {"mode": "micro_batch", "batch_size": 7},
    },
}


class Feed:
    """Produces the readings bit by bit on a thread, so that a daemon never comes to their end before `finish`."""

    def __init__(self, broker: KafkaCluster) -> None:
        self.topic = broker.create_topic("exactly-once")
        self._broker = broker
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        values = readings(RECORDS)
        for start in range(0, RECORDS, PORTION):
            self._broker.produce(self.topic, values[start : start + PORTION])
            self._hurry.wait(PORTION_S)

    def finish(self) -> None:
        """Until everything was produced, now without pauses."""
        self._hurry.set()
        self._thread.join()


def _config(folder: Path, broker: KafkaCluster, topic: str, **sections: Any) -> Path:
    folder.mkdir()
    config = folder / "config.yaml"
    source = {"kind": "kafka", "bootstrap_servers": [broker.bootstrap], "topics": [topic]}
    common = {
        "source": source,
        "checkpoint": {"every_seconds": None, "every_samples": 1000},
        "predictions": {"path": str(folder / "predictions.jsonl")},
    }
    config.write_text(config_text(folder / "data", **common, **sections))
    return config


def _newest_checkpoint(folder: Path) -> int:
    names = (folder / "data" / "checkpoints").glob("ckpt-*.index")
    return max((int(path.stem.partition("-")[2]) for path in names), default=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_run_ends_bit_identical_to_an_uninterrupted_one(
    variant: str, kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """Weights, slots, averages, windows, metrics, offsets and even the file of predictions are the same."""
    feed = Feed(kafka_broker)
    broken = _config(tmp_path / "broken", kafka_broker, feed.topic, **VARIANTS[variant])
    random = np.random.default_rng(len(variant))
    try:
        for _ in range(KILLS):
            reached = _newest_checkpoint(broken.parent)
            with Daemon(broken) as daemon:
                until(lambda n=reached: _newest_checkpoint(broken.parent) > n, what="a checkpoint")
                time.sleep(random.uniform(0.0, 2 * PORTION_S))
                assert daemon.process.poll() is None, daemon.log()
                daemon.kill()
    finally:
        feed.finish()
    with Daemon(broken, "--once") as daemon:
        daemon.finish()
    whole = _config(tmp_path / "whole", kafka_broker, feed.topic, **VARIANTS[variant])
    with Daemon(whole, "--once") as daemon:
        daemon.finish()

    arrays, state = read_arrays(tmp_path / "whole" / "data" / "checkpoints")
    arrays_again, state_again = read_arrays(tmp_path / "broken" / "data" / "checkpoints")
    assert state["progress"]["records"] == RECORDS
    assert int(arrays["learned"]) == state["progress"]["samples"] > RECORDS * 0.99
    assert same_arrays(arrays, arrays_again) == []
    assert statecodec.encode(state) == statecodec.encode(state_again)
    predictions = (tmp_path / "whole" / "predictions.jsonl").read_bytes()
    assert predictions == (tmp_path / "broken" / "predictions.jsonl").read_bytes()


def test_sigterm_ends_cleanly_and_the_next_start_goes_on(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Exit code 0 within 25 s with a checkpoint and an export; records that come later are learned later."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, readings(3000))
    config = _config(tmp_path / "run", kafka_broker, topic, name="stops-and-goes-on")
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
    exports = sorted(path.name for path in (tmp_path / "run" / "data" / "exports").glob("[0-9]*"))
    assert exports == ["1", "2"]


def test_offsets_are_committed_only_after_the_save(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """A run that never saves commits nothing, however much it learned."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, readings(2000))
    config = _config(tmp_path / "run", kafka_broker, topic, name="never-saves")
    text = config.read_text().replace("every_samples: 1000", "every_samples: 1000000")
    config.write_text(text)
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 2000, what="2000 samples")
        time.sleep(0.5)
        assert set(kafka_broker.committed("learnd-never-saves").values()) <= {0}, "beyond the save of the start"
        daemon.process.send_signal(signal.SIGTERM)
        daemon.finish()
    assert kafka_broker.committed("learnd-never-saves") == {(topic, 0): 2000}
