"""Errors of predicted numbers next to those of a naive forecast, in the units of the stream."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from learnd.core.quality import Compared, Errors, Figures, Quality
from learnd.core.types import Bounds, Float64Array, Samples, State
from learnd.evaluation.block_sums import WINDOW_SAMPLES, BlockSums
from learnd.evaluation.naive import Naive

MOST_OUTPUTS = 16
"""Maximum number of outputs that are evaluated. Of more, evenly spaced ones are, to bound time and memory."""
MOST_PARTS = 8
"""Maximum number of targets or steps ahead with figures of their own. Of more, evenly spaced ones have them."""
_ROWS = 256
"""Number of rows that are evaluated at once, so that they fit into the processor's cache."""
LARGEST = 1e12
"""Largest error that is added, which also replaces nan: one nan must not hide all other errors."""

(_TRUTH, _SQUARE, _BIAS, _ERROR, _SQUARED, _AVERAGED, _AVERAGED_SQUARED) = range(7)
(_LIVE_KNOWN, _AVERAGED_KNOWN, _NAIVE, _NAIVE_SQUARED, _KNOWN) = range(7, 12)
(_COVERED, _WIDTH, _AVERAGED_COVERED, _AVERAGED_WIDTH, _SPANNED) = range(12, 17)
_COLUMNS = 17
"""Sums per output: of the truth less the first truth; of errors; of errors where there is a naive forecast; and of
truths within their intervals, of the widths of these, and of how many there are."""

_SPANS = {
    "interval_coverage": _COVERED,
    "interval_width": _WIDTH,
    "averaged_interval_coverage": _AVERAGED_COVERED,
    "averaged_interval_width": _AVERAGED_WIDTH,
}


def spaced(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return the indices 0 to *count* - 1, or *most* of them, evenly spaced, with the first and the last.

    >>> spaced(3, 8).tolist(), spaced(100, 4).tolist()
    ([0, 1, 2], [0, 33, 66, 99])
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


class NumberMeasure:
    """The absolute errors of numbers, of at most `MOST_OUTPUTS` outputs.

    Parameters
    ----------
    outputs : number of values in one prediction
    of_inputs : the predictions are compared with the inputs, not with the targets
    """

    def __init__(self, outputs: int, *, of_inputs: bool = False) -> None:
        self.outputs = spaced(outputs, MOST_OUTPUTS)
        """The indices of the evaluated outputs."""
        self._all = len(self.outputs) == outputs
        self._of_inputs = of_inputs

    def truth(self, samples: Samples) -> Float64Array:
        """Return the numbers to predict, shape (n, k)."""
        values = samples.x.reshape(len(samples), -1) if self._of_inputs else samples.y
        return self.evaluated(values)

    def evaluated(self, values: Float64Array) -> Float64Array:
        """Return the evaluated outputs of *values*, shape (n, k)."""
        return (values if self._all else values[:, self.outputs]).astype(np.float64)

    def errors(self, truth: Float64Array, predictions: Float64Array) -> Float64Array:
        """Return the absolute errors, shape (n, k)."""
        return bounded(np.abs(self.evaluated(predictions) - truth))


class NumberEvaluation:
    """The errors of live weights, averaged weights and the naive forecast, summed by output. Part of the checkpoint.

    Parameters
    ----------
    parts : the outputs of each part that has figures of its own, by name
    """

    def __init__(
        self,
        measure: NumberMeasure,
        naive: Naive,
        *,
        parts: Mapping[str, Sequence[int]],
        window_samples: int = WINDOW_SAMPLES,
    ) -> None:
        self.measure = measure
        self._naive = naive
        self._sums = BlockSums((_COLUMNS, len(measure.outputs)), window_samples=window_samples)
        self._first: Float64Array | None = None
        """The first truth, which is subtracted: a square of 1e9 would lose a deviation of 10."""
        place = {output: i for i, output in enumerate(measure.outputs.tolist())}
        columns = {name: [place[o] for o in outputs if o in place] for name, outputs in parts.items()}
        shown = [(name, found) for name, found in columns.items() if found]
        self._parts = dict(shown[i] for i in spaced(len(shown), MOST_PARTS)) if shown else {}

    def observe(
        self, samples: Samples, predictions: Float64Array, averaged: Float64Array, bounds: Bounds | None = None
    ) -> Compared:
        """Evaluate samples that have a target; return the naive errors on them."""
        truth = self.measure.truth(samples)
        if self._first is None and len(truth):
            self._first = truth[0].copy()
        forecasts = self._naive.forecast(samples, truth)
        known = ~np.isnan(forecasts[:, 0])
        naive = bounded(np.abs(forecasts - truth)) if known.all() else self._naive_errors(forecasts, truth, known)
        for start in range(0, len(truth), _ROWS):
            part = slice(start, start + _ROWS)
            spans = None if bounds is None else bounds.take(part)
            self._add(truth[part], predictions[part], averaged[part], naive[part], known[part], spans)
        return Compared(truth, naive[None], known)

    def _add(
        self,
        truth: Float64Array,
        predictions: Float64Array,
        averaged: Float64Array,
        naive: Float64Array,
        known: npt.NDArray[np.bool_],
        bounds: Bounds | None,
    ) -> None:
        rows = np.empty((len(truth), _COLUMNS, truth.shape[1]))
        rows[:, _TRUTH] = truth if self._first is None else truth - self._first
        rows[:, _BIAS] = bounded(self.measure.evaluated(predictions) - truth)
        rows[:, _ERROR] = np.abs(rows[:, _BIAS])
        rows[:, _AVERAGED] = self.measure.errors(truth, averaged)
        rows[:, _SQUARE] = np.square(rows[:, _TRUTH])
        rows[:, _SQUARED] = np.square(rows[:, _BIAS])
        rows[:, _AVERAGED_SQUARED] = np.square(rows[:, _AVERAGED])
        rows[:, _KNOWN] = known[:, None]
        rows[:, _LIVE_KNOWN] = rows[:, _ERROR] * rows[:, _KNOWN]
        rows[:, _AVERAGED_KNOWN] = rows[:, _AVERAGED] * rows[:, _KNOWN]
        rows[:, _NAIVE] = naive
        rows[:, _NAIVE_SQUARED] = np.square(naive)
        self._add_spans(rows[:, _COVERED:], truth, bounds)
        self._sums.add(rows)

    def _add_spans(self, rows: Float64Array, truth: Float64Array, bounds: Bounds | None) -> None:
        """Write into *rows* whether each truth lies within its intervals, and their widths; 0 where there are none."""
        if bounds is None:
            rows[:] = 0.0
            return
        pairs = ((bounds.lower, bounds.upper), (bounds.averaged_lower, bounds.averaged_upper))
        for i, (lower, upper) in enumerate(pairs):
            low, high = self.measure.evaluated(lower), self.measure.evaluated(upper)
            rows[:, 2 * i] = (low <= truth) & (truth <= high)
            with np.errstate(invalid="ignore"):  # infinity less infinity
                rows[:, 2 * i + 1] = high - low
        rows[:, 4] = 1.0
        unknown = ~np.isfinite(rows[:, 1] + rows[:, 3]).all(axis=1)
        if unknown.any():  # before the first truth, and around a prediction that is not finite
            rows[unknown] = 0.0

    @staticmethod
    def _naive_errors(forecasts: Float64Array, truth: Float64Array, known: npt.NDArray[np.bool_]) -> Float64Array:
        """Return the errors of the naive forecasts, 0 where there is none."""
        errors = np.zeros_like(truth)
        errors[known] = bounded(np.abs(forecasts[known] - truth[known]))
        return errors

    def quality(self) -> Quality:
        """Return the figures."""
        sums, total = self._sums, self._sums.total()
        return Quality(
            self._figures(sums.recent(), sums.recent_samples, total),
            self._figures(total, sums.samples, total),
            self._figures(sums.fading(), sums.fading_samples, total),
        )

    def _figures(self, sums: Float64Array, samples: float, total: Float64Array) -> Figures:
        if not samples:
            return Figures()
        known = sums[_KNOWN, 0]
        weights = weights_of(_variance(sums, samples))
        with np.errstate(invalid="ignore"):  # without a naive forecast: 0 / 0 is nan
            live, averaged, naive = (
                float((sums[row] * weights).mean() / known) for row in (_LIVE_KNOWN, _AVERAGED_KNOWN, _NAIVE)
            )
            usual_naive = float((total[_NAIVE] * weights).mean() / total[_KNOWN, 0])
        parts = {name: _measures(sums[:, columns], samples) for name, columns in self._parts.items()}
        errors = Errors(live, averaged, naive, usual_naive, round(known))
        return Figures(round(samples), errors, _measures(sums, samples), parts)

    def state(self) -> State:
        first = None if self._first is None else self._first.copy()
        return {"sums": self._sums.state(), "naive": self._naive.state(), "first": first}

    def restore(self, state: State) -> None:
        self._sums.restore(state["sums"])
        self._naive.restore(state["naive"])
        self._first = None if state["first"] is None else np.array(state["first"])


def bounded(errors: Float64Array) -> Float64Array:
    """Return *errors* within plus and minus `LARGEST`, which also replaces nan."""
    inside: Float64Array = np.where(np.abs(errors) < LARGEST, errors, np.where(errors < 0, -LARGEST, LARGEST))
    return inside


def _variance(sums: Float64Array, samples: float) -> Float64Array:
    """Return the variance of each output's truth."""
    return variance_of(sums[_TRUTH], sums[_SQUARE], samples)


def variance_of(total: Float64Array, squares: Float64Array, samples: float) -> Float64Array:
    """Return the variance of each output, given its sum and the sum of its squares."""
    if not samples:
        return np.zeros(len(total))
    mean = total / samples
    variance: Float64Array = squares / samples - np.square(mean)
    # What is left of a constant is rounding.
    return np.where(variance > 1e-12 * np.square(mean), variance, 0.0)


def weights_of(variance: Float64Array) -> Float64Array:
    """Return the weight of each output's error: 1 for a single output or if all are constant, 0 for a constant one.

    >>> weights_of(np.array([4.0])), weights_of(np.array([4.0, 0.0])), weights_of(np.zeros(2))
    (array([1.]), array([0.5, 0. ]), array([1., 1.]))
    """
    if len(variance) == 1 or not variance.any():
        return np.ones(len(variance))
    return np.divide(1.0, np.sqrt(variance), out=np.zeros(len(variance)), where=variance > 0.0)


def _measures(sums: Float64Array, samples: float) -> dict[str, float]:
    """Return the figures of some outputs. Errors are means over the outputs; R2 is the mean of each output's own."""
    variance = _variance(sums, samples)
    explained = 1.0 - sums[_SQUARED][variance > 0] / (samples * variance[variance > 0])
    known = float(sums[_KNOWN, 0])
    measures = {
        "mae": float(sums[_ERROR].mean()) / samples,
        "rmse": math.sqrt(float(sums[_SQUARED].mean()) / samples),
        "r2": float(explained.mean()) if len(explained) else math.nan,
        "bias": float(sums[_BIAS].mean()) / samples,
        "averaged_mae": float(sums[_AVERAGED].mean()) / samples,
        "averaged_rmse": math.sqrt(float(sums[_AVERAGED_SQUARED].mean()) / samples),
        "naive_mae": float(sums[_NAIVE].mean()) / known if known else math.nan,
        "naive_rmse": math.sqrt(float(sums[_NAIVE_SQUARED].mean()) / known) if known else math.nan,
    }
    if spanned := float(sums[_SPANNED, 0]):
        for name, row in _SPANS.items():
            measures[name] = float(sums[row].mean()) / spanned
    return measures
