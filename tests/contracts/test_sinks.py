"""What every sink owes: what was put is there after a flush, and a restore takes back what came after the state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.protocols import DeadLetters, Predictions
from learnd.sinks.dead_letter import DroppedDeadLetters, FileDeadLetters, TopicDeadLetters
from learnd.sinks.predictions import FilePredictions, Lines, NoPredictions, TopicPredictions
from learnd.sinks.topics import TopicSink
from learnd.types import Reject, Samples, StepResult, TopicPartition

PARTITION = TopicPartition("t", 0)
REJECT = Reject(PARTITION, 5, "unparsable", "no JSON", b"junk", b"key", 1000)
Count = Callable[[int], int]
LINES = Lines("targets", lambda: ["y"])


def _result() -> StepResult:
    origins = np.empty(1, dtype=object)
    origins.fill(PARTITION)
    one = np.ones((1, 1), np.float32)
    samples = Samples(one, one, np.zeros(1), np.array(["k"], object), origins, np.array([5]))
    return StepResult(samples, one, one[0], one[0], 1, 0.0)


def _lines(path: Path) -> Count:
    return lambda expected: len([json.loads(line) for line in path.read_text().splitlines()])


def _topic(request: pytest.FixtureRequest) -> tuple[TopicSink, Count]:
    broker = request.getfixturevalue("kafka_broker")
    topic = broker.create_topic()
    sink = TopicSink(topic, {"bootstrap_servers": broker.bootstrap}, key="dead_letter.topic")
    return sink, lambda expected: len(broker.consume(topic, count=expected, timeout_s=10))


@pytest.fixture(params=["dropped", "file", "topic"])
def dead_letters(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DeadLetters, Count | None]:
    if request.param == "dropped":
        return DroppedDeadLetters(), None
    if request.param == "file":
        return FileDeadLetters(tmp_path / "dead.jsonl", "test"), _lines(tmp_path / "dead.jsonl")
    sink, count = _topic(request)
    return TopicDeadLetters(sink, "test"), count


@pytest.fixture(params=["none", "file", "topic"])
def predictions(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Predictions, Count | None]:
    if request.param == "none":
        return NoPredictions(), None
    if request.param == "file":
        path = tmp_path / "predictions.jsonl"
        return FilePredictions(path, LINES), _lines(path)
    sink, count = _topic(request)
    return TopicPredictions(sink, LINES), count


def _check(sink: Any, thing: Any, count: Count | None) -> None:
    sink.open()
    sink.restore({} if count is None else sink.state())
    sink.put(thing)
    sink.flush()
    assert count is None or count(1) == 1
    sink.put(thing)
    sink.close()
    assert count is None or count(2) == 2
    sink.close()


def test_dead_letters_arrive(dead_letters: tuple[DeadLetters, Count | None]) -> None:
    """Each once, after flush or close."""
    sink, count = dead_letters
    _check(sink, [REJECT], count)


def test_predictions_arrive(predictions: tuple[Predictions, Count | None]) -> None:
    """Each once, after flush or close."""
    sink, count = predictions
    _check(sink, _result(), count)


def test_files_take_back_what_came_after_the_state(tmp_path: Path) -> None:
    """What a crash would repeat is cut; a file that somebody rotated away is left alone."""
    path = tmp_path / "dead.jsonl"
    sink = FileDeadLetters(path, "test")
    sink.open()
    sink.put([REJECT])
    state = sink.state()
    sink.put([REJECT, REJECT])
    sink.close()
    again = FileDeadLetters(path, "test")
    again.open()
    again.restore(state)
    again.put([REJECT])
    again.close()
    assert _lines(path)(2) == 2
    path.unlink()
    rotated = FileDeadLetters(path, "test")
    rotated.open()
    rotated.restore(state)
    rotated.put([REJECT])
    rotated.close()
    assert _lines(path)(1) == 1
