"""Learning and predicting samples in groups: the common part of both learners."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from learnd.core.tensors import Array
from learnd.core.types import BoolArray, Float32Array, Int64Array, Samples, StepResult
from learnd.learners.answers import AnswerBook
from learnd.learners.chunk import CompiledChunk, Groups, Outputs, Recalled, no_recalled

_ABSENT = -1
"""The row number of padding in a group with fewer rows."""


def hold_mask(samples: Samples, hold: BoolArray | None) -> BoolArray:
    """Return a mask of the rows that are only predicted: those on *hold*, and those without a target."""
    mask = np.zeros(len(samples), np.bool_) if hold is None else hold
    return mask if samples.has_target is None else mask | ~samples.has_target


def single_rows(count: int) -> Int64Array:
    """Return groups of one row each, as row numbers of shape (count, 1)."""
    return np.arange(count)[:, None]


def in_groups(hold: BoolArray, size: int) -> tuple[Int64Array, Int64Array]:
    """Return the row numbers by group, shape (groups, size), and the rows that wait for their group to fill.

    Rows that are learned fill groups of *size* rows in order. A row on *hold* is a group of its own, with padding (-1).
    It does not wait: it comes after the last group that was full before it.

    >>> in_groups(np.array([False, True, False, False]), 2)
    (array([[ 1, -1],
           [ 0,  2]]), array([3]))
    """
    rows = np.flatnonzero(~hold)
    full = len(rows) - len(rows) % size
    groups = rows[:full].reshape(-1, size)
    alone = np.full((int(hold.sum()), size), _ABSENT)
    alone[:, 0] = np.flatnonzero(hold)
    all_groups = np.concatenate([groups, alone])
    order = np.argsort(np.concatenate([groups[:, -1], alone[:, 0]]), kind="stable")
    return all_groups[order], rows[full:]


def learn_in_groups(chunk: CompiledChunk, samples: Samples, index: Int64Array, hold: BoolArray) -> StepResult:
    """Run the groups of *index*, shape (groups, batch_rows), in as many compiled calls as needed.

    The result has the rows of *index* in order, without padding.
    """
    # A call with one sample takes half a millisecond; each NumPy call here is a hundredth of that.
    padded = len(index) > 0 and bool(index.min() < 0)
    group_hold = hold[index[:, 0]]
    parts: list[Outputs] = []
    duration_s = 0.0
    start = 0
    while start < len(index):
        chunk.take_actions()
        stop = _stop(start, group_hold, chunk)
        groups = _take(samples, index[start:stop], group_hold[start:stop], padded=padded)
        book, numbers = chunk.book, samples.answers
        if book is not None and numbers is not None and numbers.any():
            groups = replace(groups, recalled=_recalled(samples, index[start:stop], book))
        outputs, seconds = chunk(groups)
        if groups.recalled is not None and book is not None:
            _note_answers(samples, index[start:stop], outputs, book)
        parts.append(outputs)
        duration_s += seconds
        if chunk.reviewer is not None:
            part = index[start:stop]
            chunk.reviewer.observe(_result(samples, part, group_hold[start:stop], [outputs], seconds))
        start = stop
    return _result(samples, index, group_hold, parts, duration_s)


def _result(
    samples: Samples, index: Int64Array, group_hold: BoolArray, parts: list[Outputs], duration_s: float
) -> StepResult:
    """Return the outputs of the groups of *index*, in *parts*, as one result without padding."""
    rows = index.ravel()
    present = None if len(rows) == 0 or rows.min() >= 0 else rows != _ABSENT
    ordered = samples if _is_plain(rows, len(samples)) else samples.take(_only(rows, present))
    if not parts:
        return _nothing(ordered)
    predictions, losses, averaged, residuals, averaged_predictions = (
        _only(_flat(column[0] if len(column) == 1 else np.concatenate(column)), present)
        for column in zip(*parts, strict=True)
    )
    learned = _only(~group_hold if index.shape[1] == 1 else np.repeat(~group_hold, index.shape[1]), present)
    if ordered.has_target is not None:
        unknown = ~ordered.has_target
        losses, averaged, residuals = (_without(column, unknown) for column in (losses, averaged, residuals))
    updates = len(group_hold) - int(np.count_nonzero(group_hold))
    return StepResult(
        ordered, predictions, losses, averaged, residuals, learned, updates, duration_s, averaged_predictions
    )


def _recalled(samples: Samples, index: Int64Array, book: AnswerBook) -> Recalled:
    """Return the answers that the rows of *index* evaluate: those in the *book*, and the places of those made now."""
    recalled = no_recalled(len(index), index.shape[1], book)
    made_here: dict[int, int] = {}
    numbers, known = _answers_of(samples, index)
    for group, row in zip(*np.nonzero(numbers), strict=True):
        number = int(numbers[group, row])
        if not known[group, row]:
            made_here[number] = int(group)
        elif number in made_here:
            recalled.places[group, row] = made_here[number]
        elif (answer := book.predictions(number)) is not None:
            recalled.answers[group, row] = answer
    return recalled


def _note_answers(samples: Samples, index: Int64Array, outputs: Outputs, book: AnswerBook) -> None:
    """Write the answers that a call has made into the *book*."""
    numbers, known = _answers_of(samples, index)
    for group, row in zip(*np.nonzero((numbers > 0) & ~known), strict=True):
        both = (outputs.predictions[group, row], outputs.averaged_predictions[group, row])
        book.put(int(numbers[group, row]), np.array(both, np.float64))


def _answers_of(samples: Samples, index: Int64Array) -> tuple[Int64Array, BoolArray]:
    """Return the numbers of the answers of all rows, 0 for none, and a mask of those with a target."""
    assert samples.answers is not None
    numbers = np.where(index == _ABSENT, 0, samples.answers[index])
    known = np.ones(index.shape, np.bool_) if samples.has_target is None else samples.has_target[index]
    return numbers, known


def _stop(start: int, group_hold: BoolArray, chunk: CompiledChunk) -> int:
    """Return the index of the group after the next call, which is full or ends at the next action."""
    stop = min(start + chunk.groups, len(group_hold))
    limit = chunk.learnable_groups()
    if limit is None:
        return stop
    # Right behind the last group before the action or review: held groups that follow come after it, wherever the
    # stream is cut.
    reached = np.flatnonzero(np.cumsum(~group_hold[start:stop]) >= limit)
    return start + int(reached[0]) + 1 if len(reached) else stop


def _only(column: Array, present: BoolArray | None) -> Array:
    """Return the rows of *column* that are not padding; without a mask there is none."""
    return column if present is None else column[present]


def _take(samples: Samples, index: Int64Array, group_hold: BoolArray, *, padded: bool) -> Groups:
    # Padding repeats the group's first row. Any numbers would do, because nothing is learned from that group.
    rows = np.where(index == _ABSENT, index[:, :1], index) if padded else index
    weights = np.ones(rows.shape, np.float32) if samples.weights is None else samples.weights[rows]
    slots = np.zeros(rows.shape, np.int32) if samples.slots is None else samples.slots[rows]
    upstream = None if samples.upstream is None else samples.upstream[rows]
    return Groups(samples.x[rows], samples.y[rows], weights, slots, group_hold, upstream)


def _is_plain(rows: Int64Array, count: int) -> bool:
    return len(rows) == count and bool((rows == np.arange(count)).all())


def _flat(column: Float32Array) -> Float32Array:
    return column.reshape(column.shape[0] * column.shape[1], *column.shape[2:])


def _without(column: Float32Array, unknown: npt.NDArray[np.bool_]) -> Float32Array:
    column = column.copy()
    column[unknown] = np.nan
    return column


def _nothing(samples: Samples) -> StepResult:
    none = np.empty(0, np.float32)
    raw = np.empty((0, 1))
    return StepResult(samples, raw, none, none, none.reshape(0, 1), np.empty(0, np.bool_), 0, 0.0, raw)
