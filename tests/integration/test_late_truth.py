"""Truths that come later, with a real broker and a real SIGKILL."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from learnd.checkpoint import state_codec
from learnd.checkpoint.reading import read_arrays
from learnd.core import crash_points
from learnd.testing.kafka import KafkaCluster
from tests.support.helpers import Daemon, config_text, readings, same_arrays

RECORDS = 400
DELAYS = (1, 3, 17, 2, 40, 5)


def _questions_and_truths() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    records = [{**json.loads(value), "id": f"r{i}"} for i, value in enumerate(readings(RECORDS))]
    questions = [{name: value for name, value in record.items() if name != "y"} for record in records]
    return questions, [{name: record[name] for name in ("id", "k", "t", "y")} for record in records]


def _mixed() -> list[bytes]:
    """Return each question, and some places later its truth."""
    questions, truths = _questions_and_truths()
    placed: list[tuple[float, dict[str, Any]]] = list(enumerate(questions))
    placed += [(i + DELAYS[i % len(DELAYS)] + 0.5, truth) for i, truth in enumerate(truths)]
    return _encoded([record for _, record in sorted(placed, key=lambda pair: pair[0])])


def _encoded(records: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def _config(folder: Path, broker: KafkaCluster, *topics: str, **truth: str) -> Path:
    folder.mkdir()
    config = folder / "config.yaml"
    sections: dict[str, Any] = {
        "source": {"kind": "kafka", "bootstrap_servers": [broker.bootstrap], "topics": list(topics)},
        "decode": {"kind": "json", "key": "k", "time": "t", "time_numbers": "any"},
        "truth": {"id": "id", **truth},
        "learning": {"mode": "per_sample", "compile": False},
        "checkpoint": {"every_seconds": None, "every_samples": 50},
        "predictions": {"path": str(folder / "predictions.jsonl")},
    }
    config.write_text(config_text(folder / "data", **sections))
    return config


def _kill_and_finish(config: Path) -> None:
    with Daemon(config, environ={crash_points.VARIABLE: "checkpoint.before-rename:3"}) as daemon:
        daemon.finish(code=-signal.SIGKILL)
    with Daemon(config, "--once") as daemon:
        daemon.finish()


def test_a_killed_run_ends_bit_identical_with_truths_in_the_same_topic(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """Weights, what waits, the answers, and the file of predictions."""
    topic = kafka_broker.create_topic("late")
    kafka_broker.produce(topic, _mixed())
    broken, whole = (_config(tmp_path / name, kafka_broker, topic) for name in ("broken", "whole"))
    _kill_and_finish(broken)
    with Daemon(whole, "--once") as daemon:
        daemon.finish()
        assert daemon.events("finished")[-1]["truths"] == {"matched": RECORDS}
    arrays, state = read_arrays(whole.parent / "data" / "checkpoints")
    arrays_again, state_again = read_arrays(broken.parent / "data" / "checkpoints")
    assert state["progress"]["samples"] == RECORDS
    assert same_arrays(arrays, arrays_again) == []
    lines = [(config.parent / "predictions.jsonl").read_bytes() for config in (whole, broken)]
    assert lines[0] == lines[1]
    for one in (state, state_again):
        del one["predictions"]["path"]
    assert state_codec.encode(state) == state_codec.encode(state_again)


@pytest.mark.slow
def test_a_killed_run_learns_each_record_once_with_truths_in_a_topic_of_their_own(
    kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """In whatever order the two topics are polled before and after the kill."""
    questions, truths = kafka_broker.create_topic("questions"), kafka_broker.create_topic("truths")
    for topic, records in zip((questions, truths), _questions_and_truths(), strict=True):
        kafka_broker.produce(topic, _encoded(records))
    config = _config(tmp_path / "run", kafka_broker, questions, truths, topic=truths)
    _kill_and_finish(config)
    _, state = read_arrays(config.parent / "data" / "checkpoints")
    assert state["progress"]["samples"] == RECORDS
    lines = [json.loads(line) for line in (config.parent / "predictions.jsonl").read_text().splitlines()]
    learned = [line for line in lines if line["truth"] is not None]
    # A truth that is polled before its record makes a whole record of it, whose line evaluates nothing else.
    of = [line["answers"] or f"{questions}/0/{line['offset']}" for line in learned]
    assert sorted(of) == sorted(f"{questions}/0/{offset}" for offset in range(RECORDS))
