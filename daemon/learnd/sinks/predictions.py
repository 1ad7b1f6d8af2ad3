"""What was predicted for each sample before it was learned."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from learnd.sinks.files import LinesFile
from learnd.types import State, StepResult


def lines(result: StepResult, names: Sequence[str], *, reconstruction: bool) -> Iterator[dict[str, Any]]:
    """One object a sample: where it came from, the prediction and the truth by name, and the scores.

    ``score`` is the squared error in standard deviations, by the live weights, ``averaged_score`` by the averaged
    ones; of a windowed reconstruction only the newest reading is told.
    """
    samples = result.samples
    width = len(names)
    truth = samples.x.reshape(len(samples), -1)[:, -width:] if reconstruction else samples.y
    columns = zip(
        samples.origins.tolist(),
        samples.offsets.tolist(),
        samples.times_s.tolist(),
        samples.keys.tolist(),
        result.predictions[:, -width:].tolist(),
        truth.tolist(),
        result.losses.tolist(),
        result.averaged_losses.tolist(),
        strict=True,
    )
    for origin, offset, time_s, key, prediction, true, score, averaged_score in columns:
        yield {
            "topic": origin.topic,
            "partition": origin.partition,
            "offset": offset,
            "time_s": time_s,
            "key": key,
            "prediction": dict(zip(names, prediction, strict=True)),
            "truth": dict(zip(names, true, strict=True)),
            "score": score,
            "averaged_score": averaged_score,
        }


class NoPredictions:
    """Where no sink is configured."""

    def open(self) -> None: ...

    def put(self, result: StepResult) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None: ...


class FilePredictions:
    """One JSON object a line."""

    def __init__(self, path: Path, names: Sequence[str], *, reconstruction: bool) -> None:
        self._lines = LinesFile(path, key="predictions.path")
        self._names = names
        self._reconstruction = reconstruction
        self.open, self.flush, self.close = self._lines.open, self._lines.flush, self._lines.close
        self.state, self.restore = self._lines.state, self._lines.restore

    def put(self, result: StepResult) -> None:
        if len(result.samples):
            self._lines.append(lines(result, self._names, reconstruction=self._reconstruction))


class TopicPredictions:
    """One record a sample, its key the sample's key."""

    def __init__(self, sink: Any, names: Sequence[str], *, reconstruction: bool) -> None:
        self._sink = sink
        self._names = names
        self._reconstruction = reconstruction
        self._encode = msgspec.json.Encoder().encode
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close

    def put(self, result: StepResult) -> None:
        found = lines(result, self._names, reconstruction=self._reconstruction)
        self._sink.send([(self._encode(line), str(line["key"]).encode(), ()) for line in found])

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None: ...
