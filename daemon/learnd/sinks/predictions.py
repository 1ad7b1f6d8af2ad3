"""What was predicted for each sample before it was learned."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from learnd.core.types import EvaluatedOn, State, StepResult
from learnd.sinks.files import LinesFile, tell_dropped


class Lines:
    """One object a sample: where it came from, the prediction and the truth, and the scores.

    Numbers go by the names of the outputs; a class by its label, with the probability that it was given. ``score`` is
    the loss by the live weights, ``averaged_score`` by the averaged ones; of a windowed reconstruction only the newest
    reading is told.

    Parameters
    ----------
    of : what predictions are compared with: the targets, the inputs, or the number of a class
    names : of the outputs; asked anew each time, for classes may come to be
    """

    def __init__(self, of: EvaluatedOn, names: Callable[[], Sequence[str]]) -> None:
        self._of = of
        self._names = names

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
            strict=True,
        )
        for origin, offset, time_s, key, said, score, averaged_score in columns:
            yield {
                "topic": origin.topic,
                "partition": origin.partition,
                "offset": offset,
                "time_s": time_s,
                "key": key,
                **said,
                "score": score,
                "averaged_score": averaged_score,
            }

    def _numbers(self, result: StepResult) -> Iterator[dict[str, Any]]:
        names, samples = self._names(), result.samples
        width = len(names)
        truth = samples.x.reshape(len(samples), -1)[:, -width:] if self._of == "inputs" else samples.y
        rows = zip(result.predictions[:, -width:].tolist(), truth.tolist(), result.with_target().tolist(), strict=True)
        for prediction, true, known in rows:
            yield {
                "prediction": dict(zip(names, prediction, strict=True)),
                "truth": dict(zip(names, true, strict=True)) if known else None,
            }

    def _classes(self, result: StepResult) -> Iterator[dict[str, Any]]:
        names = self._names()
        chosen = result.predictions.argmax(axis=1)
        probabilities = result.predictions.max(axis=1) if len(chosen) else result.losses
        truth = result.samples.y[:, 0].astype(int)
        columns = (chosen, probabilities, truth, result.with_target())
        for number, probability, true, known in zip(*(column.tolist() for column in columns), strict=True):
            # Before any class is known the answer is none.
            said = names[number] if probability > 0.0 and number < len(names) else None
            yield {"prediction": said, "probability": probability, "truth": names[true] if known else None}


class NoPredictions:
    """Where no sink is configured."""

    def open(self) -> None: ...

    def put(self, result: StepResult) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        tell_dropped(state, "predictions")


class FilePredictions:
    """One JSON object a line."""

    def __init__(self, path: Path, lines: Lines) -> None:
        self._lines = LinesFile(path, key="predictions.path")
        self._describe = lines
        self.open, self.flush, self.close = self._lines.open, self._lines.flush, self._lines.close
        self.state = self._lines.state

    def put(self, result: StepResult) -> None:
        if len(result.samples):
            self._lines.append(self._describe(result))

    def restore(self, state: State) -> None:
        """As `LinesFile.restore`; what a topic in its place had not taken yet comes here."""
        self._lines.restore(state)
        self._lines.append(msgspec.Raw(value) for value, _, _ in state.get("pending", ()))


class TopicPredictions:
    """One record a sample, its key the sample's key."""

    def __init__(self, sink: Any, lines: Lines) -> None:
        self._sink = sink
        self._describe = lines
        self._encode = msgspec.json.Encoder().encode
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close
        self.state, self.restore = sink.state, sink.restore

    def put(self, result: StepResult) -> None:
        found = self._describe(result) if len(result.samples) else ()
        self._sink.send([(self._encode(line), str(line["key"]).encode(), ()) for line in found])
