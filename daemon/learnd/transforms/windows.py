"""The transform that makes windows of the last readings of each key."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from learnd.core.protocols import Answers
from learnd.core.reasons import SkipReason
from learnd.core.types import Batch, BoolArray, Float64Array, Samples, State, Transformed


@dataclass(slots=True)
class _Series:
    """The recent readings of one key."""

    history: Float64Array
    """Shape (depth, features), the newest reading last. Rows before the first reading are zeros."""
    run: int = 0
    """Number of consecutive readings without a gap, at most the length of a window."""
    last_s: float = -np.inf
    answers: list[int] = field(default_factory=list)
    """The numbers of the answers of the last *horizon* readings, 0 for none."""


class Windows:
    """Windows of the last *window* readings of a key, shape (n, window, features), in place of a sample's features.

    With a *horizon* of h, the window ends h readings before the sample. The h readings after it, up to the sample's
    own, become its target, flattened, the earliest first; of each, only the first *readings* numbers. Without a horizon
    (0), the window ends with the sample, and the target is unchanged. Per key:

    - a reading that is not newer than all readings before it is skipped with *drop_duplicates*, and used without;
    - after a gap longer than *max_gap_s*, the window fills again, so that no window spans the gap;
    - readings of keys beyond the first *max_keys* are skipped.

    *upstream* forecasts are those of the window's newest reading, which were made before the readings after it.

    With *answers*, each reading whose window is full also makes a sample without a target, whose window ends with it.
    It comes after the sample of the readings before. The number of its answer is that of the sample, a *horizon* later,
    that evaluates it.

    The result does not depend on how the stream was cut into batches.
    """

    def __init__(
        self,
        *,
        window: int,
        features: int,
        readings: int | None = None,
        targets: int,
        horizon: int = 0,
        max_gap_s: float | None,
        drop_duplicates: bool,
        max_keys: int,
        upstream: int = 0,
        answers: Answers | None = None,
    ) -> None:
        self._answers = answers
        self._next = 1
        """The number of the next answer."""
        self._window = window
        self._features = features
        # With a horizon, a window's forecasts arrive before its sample, so they wait next to the readings.
        self._columns = features + (upstream if horizon else 0)
        self._readings = features if readings is None else readings
        self._targets = self._readings * horizon if horizon else targets
        self._horizon = horizon
        # The number of readings in a window and its target together.
        self._span = window + horizon
        self._max_gap_s = np.inf if max_gap_s is None else max_gap_s
        self._drop_duplicates = drop_duplicates
        self._max_keys = max_keys
        # The number of readings before the current one that a window needs.
        self._depth = self._span - 1
        self._series: dict[str, _Series] = {}

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        if not len(samples):
            x = np.empty((0, self._window, self._features), np.float64)
            return Transformed(replace(samples, x=x, y=np.empty((0, self._targets), np.float64)))
        readings = samples.x
        if self._columns > self._features and samples.upstream is not None:
            readings = np.concatenate([samples.x, samples.upstream], axis=1)
        spans = np.empty((len(samples), self._span, self._columns), np.float64)
        used, ready, full = np.zeros((3, len(samples)), bool)
        skipped: Counter[SkipReason] = Counter()
        for key, rows in _rows_by_key(samples.keys).items():
            series = self._series.get(key)
            if series is None:
                if len(self._series) >= self._max_keys:
                    skipped[SkipReason.TOO_MANY_KEYS] += len(rows)
                    continue
                series = self._series[key] = _Series(np.zeros((self._depth, self._columns), np.float64))
            fresh = self._in_time(series, samples.times_s[rows])
            skipped[SkipReason.DUPLICATE_TIME] += len(rows) - int(fresh.sum())
            rows = rows[fresh]
            if len(rows):
                runs = self._cut(series, readings[rows], samples.times_s[rows], rows, spans)
                filled = runs > self._depth
                ready[rows[filled]] = True
                used[rows], full[rows] = True, runs >= self._window
                skipped[SkipReason.WINDOW_FILLING] += len(rows) - int(filled.sum())
        whole = spans[ready]
        if not self._horizon:
            return Transformed(replace(samples.take(ready), x=whole), skipped=+skipped)
        features = self._features
        ahead = whole[:, self._window :, : self._readings].reshape(len(whole), self._targets)
        x = np.ascontiguousarray(whole[:, : self._window, :features])
        upstream = whole[:, self._window - 1, features:].copy() if self._columns > features else None
        learned = replace(samples.take(ready), x=x, y=ahead, upstream=upstream)
        if self._answers is not None:
            learned = self._with_answers(samples, learned, spans, used, ready, full)
        return Transformed(learned, skipped=+skipped)

    def _with_answers(
        self,
        samples: Samples,
        learned: Samples,
        spans: Float64Array,
        used: BoolArray,
        ready: BoolArray,
        full: BoolArray,
    ) -> Samples:
        """Return the *learned* rows with an answer after each reading of a full window.

        *used*, *ready* and *full* mark the readings of *samples*: that were not skipped, that complete a target, and
        that complete a window.
        """
        numbers, evaluated = np.zeros(len(samples), np.int64), np.zeros(len(samples), np.int64)
        for row, key in enumerate(samples.keys.tolist()):
            if used[row]:
                series = self._series[key]
                numbers[row], evaluated[row] = self._number(series, ready=bool(ready[row]), full=bool(full[row]))
        learned = replace(
            learned,
            has_target=np.ones(len(learned), np.bool_),
            answers=evaluated[ready],
            repeated=np.zeros(len(learned), np.bool_),
        )
        count = int(full.sum())
        answers = replace(
            samples.take(full),
            x=np.ascontiguousarray(spans[full][:, self._horizon :, : self._features]),
            y=np.zeros((count, self._targets)),
            has_target=np.zeros(count, np.bool_),
            answers=numbers[full],
            repeated=np.ones(count, np.bool_),
        )
        order = np.argsort(np.concatenate([np.flatnonzero(ready), np.flatnonzero(full)]), kind="stable")
        return Samples.concat([learned, answers]).take(order) if count else learned

    def _number(self, series: _Series, *, ready: bool, full: bool) -> tuple[int, int]:
        """Return the numbers of the answer to a reading and of the answer that it completes, 0 for none."""
        assert self._answers is not None
        evaluated = series.answers.pop(0) if len(series.answers) == self._horizon else 0
        if evaluated and not ready:  # a gap came after it
            self._answers.forget(evaluated)
            evaluated = 0
        number = 0
        if full:
            number, self._next = self._next, self._next + 1
            self._answers.expect(number)
        series.answers.append(number)
        return number, evaluated

    def _in_time(self, series: _Series, times_s: Float64Array) -> npt.NDArray[np.bool_]:
        """Return a mask of the readings that are newer than all before them; all without *drop_duplicates*."""
        if not self._drop_duplicates:
            return np.ones(len(times_s), bool)
        newest = np.maximum.accumulate(np.concatenate([[series.last_s], times_s]))[:-1]
        return times_s > newest

    def _cut(
        self,
        series: _Series,
        readings: Float64Array,
        times_s: Float64Array,
        rows: npt.NDArray[np.int64],
        spans: Float64Array,
    ) -> npt.NDArray[np.int64]:
        """Write what ends at each of *readings* into *spans*; return how many readings without a gap end there."""
        count = len(readings)
        gaps_s = np.diff(times_s, prepend=series.last_s)
        broken = gaps_s > self._max_gap_s
        if not np.isfinite(series.last_s):
            broken[0] = True
        runs = _run_lengths(broken, series.run)
        recent = np.concatenate([series.history, readings])
        windows = np.lib.stride_tricks.sliding_window_view(recent, self._span, axis=0)
        spans[rows] = np.moveaxis(windows[:count], -1, 1)
        series.history = recent[len(recent) - self._depth :].copy()
        series.run = min(int(runs[-1]), self._depth + 1)
        series.last_s = float(times_s[-1] if not self._drop_duplicates else times_s.max())
        return runs

    def state(self) -> State:
        """Return the state of all series, as columns."""
        series = list(self._series.values())
        shape = (len(series), self._depth, self._columns)
        return {
            "keys": list(self._series),
            "history": np.array([s.history for s in series], np.float64).reshape(shape),
            "run": np.array([s.run for s in series], np.int64),
            "last_s": np.array([s.last_s for s in series], np.float64),
            # Copies: a checkpoint is written while the stream goes on.
            **({} if self._answers is None else {"answers": [[*s.answers] for s in series], "next": self._next}),
        }

    def restore(self, state: State) -> None:
        columns = zip(state["keys"], state["history"], state["run"], state["last_s"], strict=True)
        self._series = {
            key: _Series(np.array(history), int(run), float(last_s)) for key, history, run, last_s in columns
        }
        self._next = int(state.get("next", 1))
        for series, answers in zip(self._series.values(), state.get("answers", ()), strict=False):
            series.answers = [int(number) for number in answers]


def _rows_by_key(keys: Sequence[Any] | npt.NDArray[Any]) -> dict[str, npt.NDArray[np.int64]]:
    """Return the row numbers of each key, ascending, the keys in order of appearance."""
    rows: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return {key: np.array(numbers) for key, numbers in rows.items()}


def _run_lengths(broken: npt.NDArray[np.bool_], before: int) -> npt.NDArray[np.int64]:
    """Return the number of consecutive readings that end at each position; *before* of them precede the first.

    >>> _run_lengths(np.array([False, False, True, False]), 3).tolist()
    [4, 5, 1, 2]
    """
    position = np.arange(len(broken))
    started = np.maximum.accumulate(np.where(broken, position, -1))
    return np.where(started < 0, position + 1 + before, position - started + 1)
