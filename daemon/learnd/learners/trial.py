"""A trial: the learner begins again on rows of its own, with the compiled update that it has."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

import numpy as np
import tensorflow as tf

from learnd.core.rows import LearnedRows
from learnd.core.tensors import Array, TfVariable, Variable
from learnd.core.types import Float64Array
from learnd.learners.chunk import CompiledChunk, Groups

_COUNTS = ("learned", "refused", "rollbacks", "drifts")
"""Ends of the names of variables that count what has happened since the model began. They are reported."""


class LearnerTrial:
    """The learner as it was before anything was learned. See `learnd.core.review.Trial`.

    Parameters
    ----------
    variables : all that belong in a checkpoint, by name
    kept : identities of further variables that a trial does not change, such as scales
    """

    def __init__(
        self, chunk: CompiledChunk, variables: Mapping[str, Variable | TfVariable], *, kept: AbstractSet[int]
    ) -> None:
        self._chunk = chunk
        self._variables = variables
        self._kept = [name for name, v in variables.items() if id(v) in kept or name.rpartition("/")[2] in _COUNTS]
        self._first = {name: np.array(v.numpy()) for name, v in variables.items() if name not in self._kept}
        self._before: dict[str, Array] = {}

    def run(self, rows: LearnedRows, *, passes: int, scored: int) -> Float64Array:
        # References, not copies: TensorFlow gives a changed variable a new buffer.
        self._before = {name: tf.convert_to_tensor(v).numpy() for name, v in self._variables.items()}
        for name, value in self._first.items():
            self._variables[name].assign(value)
        early, late = rows.take(slice(0, len(rows) - scored)), rows.take(slice(len(rows) - scored, None))
        for _ in range(passes):
            self._learn(early, followed_by=scored)
        predictions = self._learn(late, followed_by=0)
        for name in self._kept:
            self._variables[name].assign(self._before[name])
        return predictions

    def _learn(self, rows: LearnedRows, *, followed_by: int) -> Float64Array:
        """Learn *rows* as the newest but *followed_by*; return their predictions."""
        chunk, size = self._chunk, self._chunk.batch_rows
        # Snapshots of the averager fall on counts of learned samples.
        chunk.learned.assign(int(self._before["learned"]) - followed_by - len(rows))
        index = np.arange(len(rows)).reshape(-1, size)
        predictions = []
        for start in range(0, len(index), chunk.groups):
            outputs, _ = chunk(_groups(rows, index[start : start + chunk.groups]))
            predictions.append(outputs.predictions.reshape(-1, outputs.predictions.shape[-1]))
        joined: Float64Array = np.concatenate(predictions) if predictions else np.empty((0, 1))
        return joined

    def undo(self) -> None:
        for name, value in self._before.items():
            self._variables[name].assign(value)


def _groups(rows: LearnedRows, index: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Groups:
    hold = np.zeros(len(index), np.bool_)
    return Groups(rows.x[index], rows.y[index], rows.weights[index], rows.slots[index], hold, rows.upstream[index])
