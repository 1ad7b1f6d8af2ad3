"""What prediction lines say, and the keys and headers that they get on a topic."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from learnd.config.loader import loads
from learnd.core.errors import ConfigError
from learnd.core.types import Bounds, StepResult
from learnd.sinks.predictions import Lines, TopicPredictions
from learnd.sinks.topics import Message
from tests.support.helpers import config_text, make_samples, step_result


class _Topic:
    """Remembers what is sent to it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.open = self.flush = self.close = self.restore = lambda *_: None
        self.state = dict
        self.pending = int

    def send(self, messages: Iterable[Message]) -> None:
        self.messages += messages


def _result(**columns: Any) -> StepResult:
    x = np.ones((2, 1), np.float32)
    samples = make_samples(x, x, first=5, keys=["a", "b"], **columns)
    live, averaged = np.array([[2.0], [3.0]], np.float32), np.array([[20.0], [30.0]], np.float32)
    result = step_result(samples, live, live[:, 0])
    bounds = Bounds(*(value.astype(np.float64) for value in (live - 1, live + 1, averaged - 1, averaged + 1)))
    return replace(result, averaged_predictions=averaged, bounds=bounds, versions=np.array([7, 8]))


@pytest.mark.parametrize(("averaged", "prediction"), [(False, 2.0), (True, 20.0)])
def test_the_served_weights_answer_with_their_own_interval(averaged: bool, prediction: float) -> None:
    line = next(Lines("targets", lambda: ["y"], averaged=averaged)(_result()))
    assert line["prediction"] == {"y": prediction}
    assert (line["lower"], line["upper"]) == ({"y": prediction - 1}, {"y": prediction + 1})
    assert line["model_samples"] == 7
    assert "answers" not in line


def test_a_message_has_the_key_and_the_position_of_its_input() -> None:
    """Without a key of its own it has that of the sample. An evaluation names the record that was answered."""
    topic = _Topic()
    record_keys, answered = np.array([b"\xff", None], object), np.array(["t/0/3", None], object)
    result = replace(_result(record_keys=record_keys), answered=answered)
    TopicPredictions(topic, Lines("targets", lambda: ["y"])).put(result)  # type: ignore[arg-type]
    (value, key, headers), (other_value, other_key, other_headers) = topic.messages
    assert (key, other_key) == (b"\xff", b"b")
    position = [("learnd.topic", b"t"), ("learnd.partition", b"0"), ("learnd.offset", b"5")]
    assert list(headers) == [*position, ("learnd.answers", b"t/0/3")]
    assert list(other_headers) == [*position[:2], ("learnd.offset", b"6")]
    assert [msgspec.json.decode(v or b"")["answers"] for v in (value, other_value)] == ["t/0/3", None]


def test_a_class_comes_with_the_probabilities_of_the_likeliest() -> None:
    x = np.ones((1, 1), np.float32)
    shares = np.array([[0.2, 0.7, 0.1, 0.0]], np.float32)
    (line,) = Lines("classes", lambda: ["a", "b", "c"])(step_result(make_samples(x, 0 * x), shares, x[0]))
    assert (line["prediction"], line["truth"]) == ("b", "a")
    assert list(line["probabilities"]) == ["b", "a", "c"]
    assert sum(line["probabilities"].values()) == pytest.approx(1.0)


LATE: dict[str, Any] = {"truth": {"id": "n"}}
KAFKA = {"kind": "kafka", "bootstrap_servers": ["localhost:1"], "topics": ["t"]}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"truth": {}}, "truth.id: is required without decode.time"),
        ({"truth": {"id": "a"}}, "truth.id: a has another role already"),
        ({**LATE, "decode": {"kind": "json", "missing_target": "reject"}}, "reject leaves nothing that waits"),
        ({**LATE, "task": {"kind": "forecast"}, "target": None}, "truth: has no effect for task.kind forecast"),
        ({**LATE, "alarms": {"learning": "hold"}}, "hold cannot be combined with truth"),
        ({"truth": {"id": "n", "topic": "u"}, "source": KAFKA}, "u is not read; add it to source.topics"),
        ({"truth": {"id": "n", "topic": "t"}, "source": KAFKA}, "truth.topic: needs decode.time"),
        (
            {"predictions": {"path": "a", "serve": "averaged"}, "averaging": {"kind": "none"}},
            "averaged needs averaged weights",
        ),
    ],
)
def test_what_cannot_work_is_refused(sections: dict[str, Any], message: str, tmp_path: Any) -> None:
    text = config_text(tmp_path, **{"learning": {"mode": "per_sample"}, **sections})
    with pytest.raises(ConfigError, match=message):
        loads(text)
