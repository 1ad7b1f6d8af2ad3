"""The answers whose truths come later: each is evaluated as it was given, not as it would be given now."""

from dataclasses import dataclass, replace

import numpy as np

from learnd.core.types import Bounds, Float64Array, State, StepResult

_BOUNDS = ("lower", "upper", "averaged_lower", "averaged_upper")


@dataclass(slots=True)
class _Answer:
    """One answer; the arrays are empty until the answer is made.

    Attributes
    ----------
    predictions : (2, outputs), by live and by averaged weights
    bounds : (4, outputs), the ends of their intervals; nan: unknown
    version : samples that the weights had learned
    position : topic, partition and offset of the record that was answered, as text
    """

    predictions: Float64Array | None = None
    bounds: Float64Array | None = None
    version: int = 0
    position: str = ""


class AnswerBook:
    """The answers that wait for their truth, by number. Part of the checkpoint.

    Who joins truths with records decides which answers are kept: it calls `expect` before the answer is made, and
    `forget` if the truth will not come. The learner fills in the predictions, and `recall` the rest.

    Parameters
    ----------
    outputs : number of values in one prediction
    size : maximum number of answers; beyond it the oldest is dropped
    """

    def __init__(self, outputs: int, *, size: int) -> None:
        self.outputs = outputs
        self._size = size
        self._answers: dict[int, _Answer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def expect(self, number: int) -> None:
        """Keep the answer *number* once it is made."""
        self._answers[number] = _Answer()
        if len(self._answers) > self._size:
            del self._answers[next(iter(self._answers))]

    def forget(self, number: int) -> None:
        """Drop the answer *number*: its truth does not come."""
        self._answers.pop(number, None)

    def predictions(self, number: int) -> Float64Array | None:
        """Return the predictions of the answer *number*, shape (2, outputs); None if it is not made or not kept."""
        answer = self._answers.get(number)
        return None if answer is None else answer.predictions

    def put(self, number: int, predictions: Float64Array) -> None:
        """Take over the *predictions* of the answer *number*, if it is expected."""
        answer = self._answers.get(number)
        if answer is not None:
            answer.predictions = predictions

    def recall(self, result: StepResult) -> StepResult:
        """Return *result* with intervals and versions as they were answered; remember those of new answers."""
        samples = result.samples
        answered = np.full(len(samples), None, object)
        if samples.answers is None or not samples.answers.any():
            return replace(result, answered=answered)
        known = result.with_target()
        versions = None if result.versions is None else result.versions.copy()
        bounds = _stacked(result.bounds)
        for row in np.flatnonzero(samples.answers).tolist():
            number = int(samples.answers[row])
            if not known[row]:
                if (new := self._answers.get(number)) is not None:
                    new.version = 0 if versions is None else int(versions[row])
                    new.bounds = None if bounds is None else bounds[:, row].copy()
                    new.position = position_text(samples.origins[row], int(samples.offsets[row]))
                continue
            old = self._answers.pop(number, None)
            if old is None:
                continue
            answered[row] = old.position
            if versions is not None:
                versions[row] = old.version
            if bounds is not None and old.bounds is not None:
                bounds[:, row] = old.bounds
        return replace(result, answered=answered, versions=versions, bounds=None if bounds is None else Bounds(*bounds))

    def state(self) -> State:
        answers = list(self._answers.values())
        unknown = np.full((4, self.outputs), np.nan)
        none = np.full((2, self.outputs), np.nan)
        return {
            "numbers": list(self._answers),
            "predictions": np.array([none if a.predictions is None else a.predictions for a in answers]),
            "bounds": np.array([unknown if a.bounds is None else a.bounds for a in answers]),
            "versions": [answer.version for answer in answers],
            "positions": [answer.position for answer in answers],
        }

    def restore(self, state: State) -> None:
        columns = (state["predictions"], state["bounds"], state["versions"], state["positions"])
        rows = zip(state["numbers"], *columns, strict=True)
        self._answers = {int(n): _Answer(np.array(p), np.array(b), int(v), str(at)) for n, p, b, v, at in rows}


def position_text(origin: tuple[str, int], offset: int) -> str:
    """Return the position of a record as text.

    >>> position_text(("boiler.sensors", 0), 17)
    'boiler.sensors/0/17'
    """
    return f"{origin[0]}/{origin[1]}/{offset}"


def _stacked(bounds: Bounds | None) -> Float64Array | None:
    """Return the ends of all intervals, shape (4, n, outputs)."""
    return None if bounds is None else np.array([getattr(bounds, name) for name in _BOUNDS])
