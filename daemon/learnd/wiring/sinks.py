"""The wiring of the sinks."""

from collections.abc import Callable, Sequence
from typing import Any

from learnd.config.settings import Settings
from learnd.core.protocols import AlarmSink, DeadLetters, Predictions
from learnd.sinks.alarms import FileAlarmSink, NoAlarmSink, TopicAlarmSink
from learnd.sinks.dead_letter import DroppedDeadLetters, FileDeadLetters, TopicDeadLetters
from learnd.sinks.predictions import (
    CollectedPredictions,
    FilePredictions,
    Lines,
    NoPredictions,
    TopicPredictions,
)
from learnd.sinks.topics import TopicSink
from learnd.sources.kafka_auth import client_options


def make_dead_letters(settings: Settings) -> DeadLetters:
    """Return the configured sink for rejects, or one that only counts and logs them."""
    sink = settings.dead_letter
    if sink is None:
        return DroppedDeadLetters()
    if sink.path is not None:
        return FileDeadLetters(sink.path, settings.name)
    return TopicDeadLetters(_topic_sink(settings, sink.topic, "dead_letter"), settings.name)


def make_alarm_sink(settings: Settings) -> AlarmSink:
    """Return the configured sink for alarms, or none."""
    sink = settings.alarm_sink
    if sink is None:
        return NoAlarmSink()
    if sink.path is not None:
        return FileAlarmSink(sink.path)
    return TopicAlarmSink(_topic_sink(settings, sink.topic, "alarm_sink"))


def make_predictions(
    settings: Settings, names: Callable[[], Sequence[str]], *, collected: list[dict[str, Any]] | None = None
) -> Predictions:
    """Return the configured sink for predictions, or none.

    Parameters
    ----------
    names : returns the names of the outputs so far
    collected : if given, each prediction is also appended to this list
    """
    lines = Lines(settings.task.evaluated_on, names, averaged=settings.serve != "live")
    sink = _configured_predictions(settings, lines)
    return sink if collected is None else CollectedPredictions(sink, lines, collected)


def _configured_predictions(settings: Settings, lines: Lines) -> Predictions:
    sink = settings.predictions
    if sink is None:
        return NoPredictions()
    if sink.path is not None:
        return FilePredictions(sink.path, lines)
    return TopicPredictions(_topic_sink(settings, sink.topic, "predictions"), lines)


def _topic_sink(settings: Settings, topic: str | None, section: str) -> TopicSink:
    connection = settings.source.connection
    assert topic is not None and connection is not None, "the cross checks of the configuration refuse this"
    return TopicSink(topic, client_options(connection), key=f"{section}.topic")
