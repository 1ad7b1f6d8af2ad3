"""The evaluation of a stream: prequential losses, and figures next to a naive forecast."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from learnd.core.kinds import EvaluatedOn, NaiveKind
from learnd.core.quality import Compared, Measure, Quality
from learnd.core.types import Bounds, Float64Array, PrequentialScores, Samples, State, StepResult
from learnd.evaluation.classes import ClassEvaluation
from learnd.evaluation.labels import LabelEvaluation
from learnd.evaluation.naive import LastReading, LastTruth, Naive, RunningMean
from learnd.evaluation.numbers import NumberEvaluation, NumberMeasure
from learnd.evaluation.prequential import Prequential


class _Rows(Protocol):
    """The evaluation of rows with a target, as `NumberEvaluation` and `ClassEvaluation` do it."""

    def observe(
        self, samples: Samples, predictions: Float64Array, averaged: Float64Array, bounds: Bounds | None
    ) -> Compared: ...

    def quality(self) -> Quality: ...

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


@dataclass(frozen=True, slots=True)
class EvaluationSpec:
    """The properties of a task that its evaluation needs.

    Attributes
    ----------
    of : the reference for predictions
    naive : the naive forecast
    outputs : number of values in one prediction
    features : number of features in one reading
    parts : the outputs of each part that has figures of its own, by name
    """

    of: EvaluatedOn
    naive: NaiveKind
    outputs: int
    features: int = 1
    parts: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Evaluation:
    """The evaluator of a pipeline; see `learnd.core.protocols.Evaluator`.

    Parameters
    ----------
    classes : returns the names of the classes so far
    """

    def __init__(self, spec: EvaluationSpec, classes: Callable[[], tuple[str, ...]] = tuple) -> None:
        self._prequential = Prequential(of=spec.of)
        self._rows: _Rows
        self.measure: Measure
        """Measures errors in the units of `compared`."""
        if spec.of == "classes":
            rows = ClassEvaluation(spec.outputs, classes)
            self._rows, self.measure = rows, rows.measure
        elif spec.of == "labels":
            labels = LabelEvaluation(tuple(spec.parts))
            self._rows, self.measure = labels, labels.measure
        else:
            measure = NumberMeasure(spec.outputs, of_inputs=spec.of == "inputs")
            self._rows, self.measure = NumberEvaluation(measure, _naive(spec, measure), parts=spec.parts), measure
        self.compared: Compared | None = None

    def observe(self, result: StepResult) -> PrequentialScores:
        known = result.samples.has_target
        if known is None:
            samples, predictions, averaged = result.samples, result.predictions, result.averaged_predictions
            bounds = result.bounds
        else:
            samples = result.samples.take(known)
            predictions, averaged = result.predictions[known], result.averaged_predictions[known]
            bounds = result.bounds.take(known) if result.bounds is not None else None
        self.compared = self._rows.observe(samples, predictions, averaged, bounds) if len(samples) else None
        return self._prequential.observe(result)

    def scores(self) -> PrequentialScores:
        return self._prequential.scores()

    def quality(self) -> Quality:
        return self._rows.quality()

    def state(self) -> State:
        return {**self._prequential.state(), "rows": self._rows.state()}

    def restore(self, state: State) -> None:
        self._prequential.restore(state)
        self._rows.restore(state["rows"])


def _naive(spec: EvaluationSpec, measure: NumberMeasure) -> Naive:
    count = len(measure.outputs)
    if spec.naive == "last_reading":
        return LastReading(measure.outputs % spec.features)
    return RunningMean(count) if spec.naive == "running_mean" else LastTruth(count)
