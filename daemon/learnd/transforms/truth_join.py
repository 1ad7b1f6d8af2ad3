"""The second half of late truths: records wait with their features, and are learned when their truth comes."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from learnd.core.protocols import Answers
from learnd.core.reasons import TruthOutcome
from learnd.core.types import Batch, Float64Array, Samples, State, Transformed
from learnd.transforms.truth_matching import Match, TruthMatcher


@dataclass(frozen=True, slots=True)
class _Row:
    """One record that waits, as it was answered."""

    x: Float64Array
    time_s: float
    key: str
    id: str | None
    record_key: bytes | None
    weight: float | None
    planned_stop: bool | None
    upstream: Float64Array | None


class TruthJoin:
    """Keeps the features of answered records, and turns them into samples when `TruthMatcher` finds their truth.

    Comes after the transforms that change features. A sample stands where its truth was in the stream. Its position is
    that of the truth; its time, key and features are those of the record. A record that another transform has rejected
    or skipped has no features here, so its truth is of no use.
    """

    def __init__(self, matcher: TruthMatcher, answers: Answers) -> None:
        self._matcher = matcher
        self._answers = answers
        self._rows: dict[int, _Row] = {}

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        self._store(samples)
        found = [(match, row) for match in self._matcher.matches if (row := self._rows.pop(match.number, None))]
        for number in self._matcher.forgotten:
            self._answers.forget(number)
            self._rows.pop(number, None)
        missed = len(self._matcher.matches) - len(found)
        outcomes = {TruthOutcome.UNMATCHED: missed, TruthOutcome.MATCHED: -missed} if missed else {}
        if not found:
            return Transformed(samples, truths=outcomes)
        late = _late_samples(found, samples)
        order = np.argsort(_places(samples, [match for match, _ in found]), kind="stable")
        return Transformed(Samples.concat([samples, late]).take(order), truths=outcomes)

    def _store(self, samples: Samples) -> None:
        if samples.answers is None or samples.has_target is None:
            return
        for row in np.flatnonzero((samples.answers > 0) & ~samples.has_target).tolist():
            number = int(samples.answers[row])
            self._answers.expect(number)
            self._rows[number] = _Row(
                samples.x[row].copy(),
                float(samples.times_s[row]),
                str(samples.keys[row]),
                None if samples.ids is None else samples.ids[row],
                None if samples.record_keys is None else samples.record_keys[row],
                None if samples.weights is None else float(samples.weights[row]),
                None if samples.planned_stop is None else bool(samples.planned_stop[row]),
                None if samples.upstream is None else samples.upstream[row].copy(),
            )

    def state(self) -> State:
        rows = list(self._rows.values())
        columns = {column.name: [getattr(row, column.name) for row in rows] for column in fields(_Row)}
        return {"numbers": list(self._rows), **columns}

    def restore(self, state: State) -> None:
        columns = [state[column.name] for column in fields(_Row)]
        rows = zip(state["numbers"], *columns, strict=True)
        self._rows = {int(number): _Row(*values) for number, *values in rows}


def _late_samples(found: Sequence[tuple[Match, _Row]], like: Samples) -> Samples:
    """Return the rows whose truth has come, with the columns that *like* has."""
    count = len(found)
    matches, rows = [match for match, _ in found], [row for _, row in found]

    def objects(values: Sequence[Any]) -> Any:
        column = np.empty(count, object)
        column[:] = values
        return column

    def optional(name: str, dtype: type) -> Any:
        values = [getattr(row, name) for row in rows]
        return None if values[0] is None else np.array(values, dtype)

    origins = np.empty(count, object)
    for i, match in enumerate(matches):
        origins[i] = match.origin
    labels = None if like.labels is None else objects([match.truth[1] for match in matches])
    return Samples(
        x=np.array([row.x for row in rows]),
        y=np.array([match.truth[0] for match in matches], np.float64).reshape(count, like.y.shape[1]),
        times_s=np.array([row.time_s for row in rows]),
        keys=objects([row.key for row in rows]),
        origins=origins,
        offsets=np.array([match.offset for match in matches], np.int64),
        weights=optional("weight", np.float32),
        labels=labels,
        has_target=np.ones(count, np.bool_),
        planned_stop=optional("planned_stop", np.bool_),
        upstream=optional("upstream", np.float64),
        record_keys=objects([row.record_key for row in rows]),
        ids=objects([row.id for row in rows]),
        answers=np.array([match.number for match in matches], np.int64),
        repeated=np.ones(count, np.bool_),
    )


def _places(samples: Samples, matches: Sequence[Match]) -> Float64Array:
    """Return numbers by which *samples*, and after them the rows of *matches*, are to be sorted.

    A truth stands before the first sample of its partition that came after it; without one, after the last sample.
    """
    count = len(samples)
    origins, offsets = samples.origins.tolist(), samples.offsets
    places = np.empty(count + len(matches))
    places[:count] = np.arange(count)
    rows_of = {origin: np.array([i for i, o in enumerate(origins) if o == origin]) for origin in dict.fromkeys(origins)}
    for i, match in enumerate(matches):
        rows = rows_of.get(match.origin)
        later = np.empty(0, np.int64) if rows is None else rows[offsets[rows] > match.offset]
        places[count + i] = later[0] - 0.5 if len(later) else (count if rows is None else rows[-1] + 0.5)
    return places
