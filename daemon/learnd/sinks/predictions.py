"""Sinks for the prediction that was made for each sample before it was learned."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from learnd.core.kinds import EvaluatedOn
from learnd.core.protocols import Predictions
from learnd.core.types import BoolArray, Float64Array, State, StepResult
from learnd.sinks.files import LinesFile, log_dropped
from learnd.sinks.topics import TopicSink

NAMED_CLASSES = 10
"""Number of classes whose probabilities are in a line."""
_NO_DETAILS: dict[str, Any] = {"alarm_features": None, "sensor_faults": None}


class Lines:
    """Conversion of results to one object per sample: its origin, the prediction, the truth and the scores.

    Numbers are labelled with the names of the outputs. A class is given by its label and its predicted probability;
    ``probabilities`` has those of the likeliest classes. ``model_samples`` is the version of the model.
    ``score`` is the loss of the live weights, ``averaged_score`` that of the averaged weights. With alarms,
    ``anomaly_probability`` and ``onset`` are of the onset head, ``alarm`` is of the state head, and ``alarm_features``
    are the shares of the features in either. ``sensor_faults`` names sensors that are stuck or missing.
    For a reconstruction of windows, only the newest reading is included. ``lower`` and ``upper`` are the bounds of the
    prediction's interval, null before the first truth; they are absent if there are no intervals.

    Parameters
    ----------
    of : what predictions are compared with: the targets, the inputs, or the number of a class
    names : returns the names of the outputs; called for every result, because new classes may appear
    averaged : deliver the predictions of the averaged weights, instead of those of the live ones
    """

    def __init__(self, of: EvaluatedOn, names: Callable[[], Sequence[str]], *, averaged: bool = False) -> None:
        self._of = of
        self._names = names
        self._averaged = averaged

    def __call__(self, result: StepResult) -> Iterator[dict[str, Any]]:
        samples = result.samples
        columns = zip(
            samples.origins.tolist(),
            samples.offsets.tolist(),
            samples.times_s.tolist(),
            samples.keys.tolist(),
            self._classes(result) if self._of == "classes" else self._numbers(result),
            result.losses.tolist(),
            result.averaged_losses.tolist(),
            repeat(None, len(samples)) if result.versions is None else result.versions.tolist(),
            repeat({}, len(samples)) if result.answered is None else ({"answers": at} for at in result.answered),
            _alarms(result),
            strict=True,
        )
        for origin, offset, time_s, key, answer, score, averaged_score, version, answers, alarms in columns:
            yield {
                "topic": origin.topic,
                "partition": origin.partition,
                "offset": offset,
                "time_s": time_s,
                "key": key,
                **answer,
                "score": score,
                "averaged_score": averaged_score,
                "model_samples": version,
                **answers,
                **alarms,
            }

    def _numbers(self, result: StepResult) -> Iterator[dict[str, Any]]:
        names, samples = self._names(), result.samples
        width = len(names)
        truth = samples.x.reshape(len(samples), -1)[:, -width:] if self._of == "inputs" else samples.y
        predictions = _by_name(names, self._served(result)[:, -width:])
        truths = _by_name(names, truth, ~result.with_target())
        bounds = result.bounds
        if bounds is None:
            for prediction, true in zip(predictions, truths, strict=True):
                yield {"prediction": prediction, "truth": true}
            return
        low, high = bounds.lower, bounds.upper
        if self._averaged:
            low, high = bounds.averaged_lower, bounds.averaged_upper
        unknown = np.isnan(low[:, 0])
        ends = (_by_name(names, low, unknown), _by_name(names, high, unknown))
        for prediction, lower, upper, true in zip(predictions, *ends, truths, strict=True):
            yield {"prediction": prediction, "lower": lower, "upper": upper, "truth": true}

    def _served(self, result: StepResult) -> Float64Array:
        return result.averaged_predictions if self._averaged else result.predictions

    def _classes(self, result: StepResult) -> Iterator[dict[str, Any]]:
        names, predictions = self._names(), self._served(result)
        classes = predictions.argmax(axis=1)
        probabilities = predictions.max(axis=1) if len(classes) else result.losses
        truth = result.samples.y[:, 0].astype(int)
        # A new class has no probability before its first sample is learned.
        likeliest = np.argsort(-predictions[:, : len(names)], axis=1, kind="stable")[:, :NAMED_CLASSES]
        columns = (classes, probabilities, truth, result.with_target(), predictions, likeliest)
        for number, probability, true, known, row, order in zip(*(c.tolist() for c in columns), strict=True):
            # Before the first class is known there is no prediction.
            label = names[number] if probability > 0.0 and number < len(names) else None
            yield {
                "prediction": label,
                "probability": probability,
                "probabilities": {names[i]: row[i] for i in order if row[i] > 0.0},
                "truth": names[true] if known else None,
            }


def _alarms(result: StepResult) -> Iterable[dict[str, Any]]:
    """Return the fields about alarms of each line; none where alarms are switched off."""
    alarms = result.alarms
    if alarms is None:
        return repeat({}, len(result.samples))
    columns = zip(alarms.probabilities.tolist(), alarms.raised.tolist(), alarms.active.tolist(), strict=True)
    lines: list[dict[str, Any]] = [
        {"anomaly_probability": probability, "onset": raised, "alarm": active, **_NO_DETAILS}
        for probability, raised, active in columns
    ]
    for row in np.flatnonzero(alarms.raised | alarms.active).tolist():
        lines[row]["alarm_features"] = alarms.shares(row)
    for row in np.flatnonzero(alarms.faults.any(axis=1)).tolist():
        lines[row]["sensor_faults"] = alarms.sensor_faults(row)
    return lines


def _by_name(
    names: Sequence[str], rows: Float64Array, unknown: BoolArray | None = None
) -> list[dict[str, float] | None]:
    """Return each of *rows* as an object with the *names* of its numbers; None for those that are *unknown*."""
    if unknown is None or not unknown.any():
        return [dict(zip(names, row, strict=True)) for row in rows.tolist()]
    pairs = zip(rows.tolist(), unknown.tolist(), strict=True)
    return [None if absent else dict(zip(names, row, strict=True)) for row, absent in pairs]


class NoPredictions:
    """The sink used when no predictions sink is configured: it writes nothing."""

    def open(self) -> None: ...

    def put(self, result: StepResult) -> None: ...

    def flush(self) -> None: ...

    def pending(self) -> int:
        return 0

    def close(self) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        log_dropped(state, "predictions")


class CollectedPredictions:
    """A sink that appends each prediction to a list in memory, and passes it on to the configured sink.

    Its state is that of the configured sink: the list belongs to one run and is never restored.

    Parameters
    ----------
    into : receives one object per sample, as `Lines` describes it
    """

    def __init__(self, sink: Predictions, lines: Lines, into: list[dict[str, Any]]) -> None:
        self._sink = sink
        self._describe = lines
        self._into = into
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close
        self.state, self.restore, self.pending = sink.state, sink.restore, sink.pending

    def put(self, result: StepResult) -> None:
        self._sink.put(result)
        if len(result.samples):
            self._into.extend(self._describe(result))


class FilePredictions:
    """A file with one JSON object per line."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self._lines = LinesFile(path, key="predictions.path")
        self._describe = lines
        self.open, self.flush, self.close = self._lines.open, self._lines.flush, self._lines.close
        self.state, self.pending = self._lines.state, self._lines.pending

    def put(self, result: StepResult) -> None:
        if len(result.samples):
            self._lines.append(self._describe(result))

    def restore(self, state: State) -> None:
        """Restore as `LinesFile.restore` does, then append what a topic in this place had not confirmed."""
        self._lines.restore(state)
        self._lines.append(msgspec.Raw(value) for value, _, _ in state.get("pending", ()))


class TopicPredictions:
    """A topic with one record per sample.

    Its key is the Kafka key of the input; without one, the sample's key. Headers hold the input's topic, partition and
    offset, so that a reader can drop what a crash repeated.
    """

    def __init__(self, sink: TopicSink, lines: Lines) -> None:
        self._sink = sink
        self._describe = lines
        self._encode = msgspec.json.Encoder().encode
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close
        self.state, self.restore, self.pending = sink.state, sink.restore, sink.pending

    def put(self, result: StepResult) -> None:
        if not len(result.samples):
            return
        keys = result.samples.record_keys
        own_keys: Iterable[bytes | None] = repeat(None, len(result.samples)) if keys is None else keys.tolist()
        self._sink.send(
            [
                (self._encode(line), str(line["key"]).encode() if key is None else key, _headers(line))
                for line, key in zip(self._describe(result), own_keys, strict=True)
            ]
        )


def _headers(line: Mapping[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """Return the position of the input record, and of the record whose answer is evaluated, as Kafka headers."""
    answers = line.get("answers")
    return (
        ("learnd.topic", line["topic"].encode()),
        ("learnd.partition", str(line["partition"]).encode()),
        ("learnd.offset", str(line["offset"]).encode()),
        *([("learnd.answers", answers.encode())] if answers is not None else []),
    )
