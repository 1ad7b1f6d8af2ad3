"""What every sink owes: what was put is there after a flush, and a restore takes back what came after the state."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from learnd.core.errors import ConfigError
from learnd.core.protocols import DeadLetters, Predictions
from learnd.core.types import Reject, StepResult
from learnd.sinks.dead_letter import DroppedDeadLetters, FileDeadLetters, TopicDeadLetters
from learnd.sinks.predictions import CollectedPredictions, FilePredictions, Lines, NoPredictions, TopicPredictions
from learnd.sinks.topics import TopicSink
from tests.support.helpers import PARTITION, make_samples, step_result

REJECT = Reject(PARTITION, 5, "unparsable", "no JSON", b"junk", b"key", 1000)
Count = Callable[[int], int]
LINES = Lines("targets", lambda: ["y"])


def _result() -> StepResult:
    one = np.ones((1, 1), np.float32)
    return step_result(make_samples(one, one, first=5, times_s=[0.0]), one, one[0])


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


@pytest.fixture(params=["none", "file", "collected", "topic"])
def predictions(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Predictions, Count | None]:
    if request.param == "none":
        return NoPredictions(), None
    path = tmp_path / "predictions.jsonl"
    if request.param == "file":
        return FilePredictions(path, LINES), _lines(path)
    if request.param == "collected":
        collected: list[dict[str, Any]] = []
        return CollectedPredictions(FilePredictions(path, LINES), LINES, collected), lambda expected: len(collected)
    sink, count = _topic(request)
    return TopicPredictions(sink, LINES), count


def _check(sink: Any, thing: Any, count: Count | None) -> None:
    sink.open()
    sink.restore({} if count is None else sink.state())
    sink.put(thing)
    sink.flush()
    assert sink.pending() == 0
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
    """What a crash would repeat is cut, however its path is spelled; a file that somebody rotated is left alone."""
    path = tmp_path / "dead.jsonl"
    sink = FileDeadLetters(path, "test")
    sink.open()
    sink.put([REJECT])
    state = sink.state()
    sink.put([REJECT, REJECT])
    sink.close()
    again = FileDeadLetters(tmp_path / ".." / tmp_path.name / "dead.jsonl", "test")
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


PENDING = {"pending": [[b'{"offset":5}', b"key", [["__connect.errors.offset", b"5"]]]]}


def test_another_file_keeps_what_it_holds(tmp_path: Path) -> None:
    """A configuration may name another one, and go back: the state is that of the file that it was taken of."""
    monday, tuesday = (FileDeadLetters(tmp_path / f"{day}.jsonl", "test") for day in ("monday", "tuesday"))
    for sink, count in ((monday, 5), (tuesday, 1)):
        sink.open()
        sink.put([REJECT] * count)
        sink.flush()
    monday.restore(tuesday.state())
    assert monday.state() != tuesday.state()
    assert _lines(tmp_path / "monday.jsonl")(5) == 5
    for sink in (monday, tuesday):
        sink.close()


def test_what_a_topic_has_not_taken_comes_into_the_file_that_takes_its_place(tmp_path: Path) -> None:
    """Nothing is lost by the change; where there is no sink any more, it is told."""
    letters = FileDeadLetters(tmp_path / "dead.jsonl", "test")
    predictions = FilePredictions(tmp_path / "predictions.jsonl", LINES)
    for sink in (letters, predictions):
        sink.open()
        sink.restore(PENDING)
        sink.close()
    assert json.loads((tmp_path / "dead.jsonl").read_text()) == {
        "headers": {"__connect.errors.offset": "5"},
        "timestamp_ms": -1,
        "key": "key",
        "value": '{"offset":5}',
    }
    assert json.loads((tmp_path / "predictions.jsonl").read_text()) == {"offset": 5}
    with capture_logs() as logs:
        DroppedDeadLetters().restore(PENDING)
        NoPredictions().restore(PENDING)
    assert [(log["event"], log["records"]) for log in logs] == [("deliveries_dropped", 1)] * 2


def test_what_keeps_no_lines_is_refused() -> None:
    """Nothing could be taken back there after a crash."""
    with pytest.raises(ConfigError, match=r"predictions.path: /dev/null is not a regular file"):
        FilePredictions(Path("/dev/null"), LINES).open()
