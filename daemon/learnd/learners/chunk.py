"""The compiled update: one XLA call learns a chunk of samples, in exact order.

The shape is fixed and the number of real rows is an argument, so there is one compilation. An outer loop runs from
stop to stop. A stop is the next snapshot of the averager, or the border between rows that are learned and rows on hold.
It contains two inner loops, one after the other: one updates, the other only predicts. A snapshot therefore falls on a
sample count, wherever the chunks are cut. The arithmetic of a row is the same, in the same order, in any chunk. So the
weights do not depend on how chunks are cut. Rows on hold have their own loop, because a conditional inside the update
would copy the state at every row.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.protocols import Network
from learnd.core.review import Reviewer
from learnd.core.tensors import Tensor
from learnd.core.types import BoolArray, Float32Array, Float64Array, Int32Array, Int64Array
from learnd.learners.actions import Actions
from learnd.learners.answers import AnswerBook
from learnd.learners.averaged import AveragedModel
from learnd.learners.update import ChunkUpdate, UpdateResult

CHUNK_ROWS = 2048
"""Maximum number of rows per call. A call costs about 0.5 ms regardless of its rows, so a backlog needs large chunks;
the cost of a single row does not depend on this number. With 2048 instead of 1024, the throughput of the whole path
rose from 0.8 to 0.9 of that of reading alone (`tests/bench/kafka_path.py`)."""
_NEVER = 2**62


class Recalled(NamedTuple):
    """The answers that rows evaluate, instead of a prediction that is made just before they are learned.

    Attributes
    ----------
    answers : float64, shape (g, batch_rows, 2, outputs), by live and by averaged weights; nan: none
    places : int32, shape (g, batch_rows), the group of the same call that makes the answer; -1: none does
    """

    answers: Float64Array
    places: Int32Array


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of rows, one group per update, g of them.

    Attributes
    ----------
    x : float64, shape (g, batch_rows, *row_shape)
    y : float64, shape (g, batch_rows, targets)
    weights : float32, shape (g, batch_rows)
    slots : int32, shape (g, batch_rows), the places of the keys; see `learnd.core.types.Samples`
    hold : bool, shape (g,); True: the group is predicted and changes nothing
    upstream : float64, shape (g, batch_rows, columns), forecasts made upstream, nan: missing; None: all are
    recalled : the answers that rows evaluate; None: there are none
    """

    x: Float64Array
    y: Float64Array
    weights: Float32Array
    slots: Int32Array
    hold: BoolArray
    upstream: Float64Array | None = None
    recalled: Recalled | None = None

    @staticmethod
    def of_single_rows(x: Float64Array, y: Float64Array) -> "Groups":
        """Return one group per row, all of which are learned with weight 1."""
        count = len(x)
        weights, slots = np.ones((count, 1), np.float32), np.zeros((count, 1), np.int32)
        return Groups(x[:, None], y[:, None], weights, slots, np.zeros(count, np.bool_))

    def __len__(self) -> int:
        return len(self.hold)


class Outputs(NamedTuple):
    """Outputs of one call for its groups, each from before the group was learned.

    Attributes
    ----------
    predictions, averaged_predictions : float64, shape (g, batch_rows, outputs)
    losses, averaged_losses : float32, shape (g, batch_rows)
    residuals : float32, shape (g, batch_rows, outputs)
    """

    predictions: Float64Array
    losses: Float32Array
    averaged_losses: Float32Array
    residuals: Float32Array
    averaged_predictions: Float64Array


class _Traced(Protocol):
    """A traced TensorFlow function."""

    def experimental_get_tracing_count(self) -> int: ...

    def get_concrete_function(self) -> Callable[..., tuple[Tensor, ...]]: ...


class CompiledChunk:
    """The compiled function that predicts and learns up to `CHUNK_ROWS` rows per call, `batch_rows` per update.

    Parameters
    ----------
    averaged : takes the snapshots
    upstream : number of columns of forecasts made upstream
    compile : use XLA
    actions : take effect between two calls, at their sample counts
    book : the answers whose truths come later; None: there are none
    """

    def __init__(
        self,
        network: Network,
        update: ChunkUpdate,
        averaged: AveragedModel,
        *,
        batch_rows: int,
        targets: int,
        upstream: int = 0,
        compile: bool = True,
        actions: Actions | None = None,
        book: AnswerBook | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._network = network
        self._update_rows = update
        self._averaged = averaged
        self.batch_rows = batch_rows
        self.groups = max(1, CHUNK_ROWS // batch_rows)
        """Maximum number of groups per call."""
        self.targets = targets
        self._upstream = upstream
        self.row_shape = network.row_shape
        self._compile = compile
        self.book = book
        self._kind = tf.float64
        """The type of predictions."""
        if book is not None and "probabilities" in network.output_specs:
            self._kind = tf.float32
        self.actions = actions if actions is not None else Actions()
        self._clock = clock
        self.reviewer: Reviewer | None = None
        """Observes the results of each call, which then ends at a review; None: nobody does."""
        self.learned = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Samples learned since the model began."""
        self._calls: list[_Traced] = []
        # Bypasses tf.function's look-up of a trace: 0.2 of the 0.65 ms that a call with one row took.
        self._concrete: Callable[..., tuple[Tensor, ...]] | None = None

    def prepare(self) -> None:
        """Compile now, by a call without rows.

        Raises
        ------
        ConfigError
            if the model cannot be compiled.
        """
        rows = (0, self.batch_rows)
        x, y = np.empty((*rows, *self.row_shape)), np.empty((*rows, self.targets))
        try:
            self(Groups(x, y, np.empty(rows, np.float32), np.empty(rows, np.int32), np.empty(0, np.bool_)))
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            raise _uncompilable(error, compiled=self._compile) from error

    def schedule(self, action: str, at_samples: int) -> None:
        """Schedule an action; see `learnd.learners.actions`.

        Raises
        ------
        KeyError
            if there is no such action.
        ValueError
            if more than *at_samples* samples are learned already: it would take effect wherever a batch ends.
        """
        learned = int(self.learned.numpy())
        if at_samples < learned:
            raise ValueError(f"{action} at {at_samples} samples, but {learned} are learned already; name a later count")
        self.actions.schedule(action, at_samples)

    def take_actions(self) -> None:
        """Apply the actions that are due. If there are any, trace the update again at the next call."""
        if self.actions.pending and self.actions.take_effect(int(self.learned.numpy())):
            self.retrace()

    def retrace(self) -> None:
        """Trace the update again at the next call, because other variables may be trainable now."""
        self._concrete = None

    def learnable_groups(self) -> int | None:
        """Return the number of groups to learn before the next action or review; None if there will be none."""
        if self.reviewer is None and not self.actions.pending:
            return None
        learned = int(self.learned.value().numpy())
        left = self.actions.samples_left(learned)
        if self.reviewer is not None:
            to_review = self.reviewer.every_samples - learned % self.reviewer.every_samples
            left = to_review if left is None else min(left, to_review)
        return None if left is None else -(-left // self.batch_rows)

    def __call__(self, groups: Groups) -> tuple[Outputs, float]:
        """Learn, or only predict, at most `groups` groups; return the outputs and the duration in seconds."""
        started_s = self._clock()
        if self._concrete is None:
            self._concrete = self._trace()
        recalled = () if self.book is None else groups.recalled or no_recalled(len(groups), self.batch_rows, self.book)
        tensors = self._concrete(
            tf.constant(self._padded(groups.x)),
            tf.constant(self._padded(groups.y)),
            tf.constant(self._padded(groups.weights)),
            tf.constant(self._padded(groups.slots)),
            tf.constant(self._padded(self._upstream_of(groups))),
            tf.constant(self._padded(groups.hold)),
            tf.constant(self._padded(run_ends(groups.hold)).astype(np.int32)),
            tf.constant(len(groups)),
            *(tf.constant(self._padded(column)) for column in recalled),
        )
        outputs = Outputs(*(tensor.numpy()[: len(groups)] for tensor in tensors))
        return outputs, self._clock() - started_s

    def _upstream_of(self, groups: Groups) -> Float64Array:
        if groups.upstream is not None:
            return groups.upstream
        return np.full((len(groups), self.batch_rows, self._upstream), np.nan)

    @property
    def retraces(self) -> int:
        """Number of unexpected compilations; more than 0 is a defect."""
        return sum(int(call.experimental_get_tracing_count()) - 1 for call in self._calls)

    def _padded(
        self, column: "Float32Array | Float64Array | BoolArray | Int32Array | Int64Array"
    ) -> "Float32Array | Float64Array | BoolArray | Int32Array | Int64Array":
        if len(column) == self.groups:
            return column
        padded = np.zeros((self.groups, *column.shape[1:]), column.dtype)
        padded[: len(column)] = column
        return padded

    def _trace(self) -> Callable[..., tuple[Tensor, ...]]:
        rows = (self.groups, self.batch_rows)
        specs = [
            *(tf.TensorSpec((*rows, *shape), tf.float64) for shape in (self.row_shape, (self.targets,))),
            tf.TensorSpec(rows, tf.float32),
            tf.TensorSpec(rows, tf.int32),
            tf.TensorSpec((*rows, self._upstream), tf.float64),
            tf.TensorSpec((self.groups,), tf.bool),
            tf.TensorSpec((self.groups,), tf.int32),
            tf.TensorSpec((), tf.int32),
        ]
        if self.book is not None:
            outputs = self._network.outputs_per_row
            specs += [tf.TensorSpec((*rows, 2, outputs), tf.float64), tf.TensorSpec(rows, tf.int32)]
        call: _Traced = tf.function(self._chunk, autograph=False, jit_compile=self._compile, input_signature=specs)
        self._calls.append(call)
        return call.get_concrete_function()

    def _chunk(
        self,
        x: Tensor,
        y: Tensor,
        weights: Tensor,
        slots: Tensor,
        upstream: Tensor,
        hold: Tensor,
        run_end: Tensor,
        count: Tensor,
        *recalled: Tensor,
    ) -> tuple[Tensor, ...]:
        every = tf.constant(self._averaged.every_samples or _NEVER, tf.int64)
        size = tf.constant(self.batch_rows, tf.int64)
        rows, outputs = (self.groups, self.batch_rows), self._network.outputs_per_row
        wide, raw, narrow = tf.zeros((*rows, outputs)), tf.zeros((*rows, outputs), tf.float64), tf.zeros(rows)
        columns = (raw, narrow, narrow, wide, raw)

        def to_next_stop(i: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
            before = tf.identity(self.learned)
            updates = (every - before % every + size - 1) // size
            on_hold, end = tf.gather(hold, i), tf.minimum(tf.gather(run_end, i), count)
            snapshot = tf.cast(tf.minimum(tf.cast(end, tf.int64), tf.cast(i, tf.int64) + updates), tf.int32)
            i, _, *learned = tf.while_loop(
                lambda j, due, *_: (j < tf.where(on_hold, 0, snapshot)) & ~due,
                lambda j, _, *columns: self._learn(j, (x, y, weights, slots, upstream), recalled, columns),
                (i, tf.constant(False), *columns),
            )
            self._update_rows.settle()
            self._averaged.snapshot(self.learned // every > before // every)
            i, *predicted = tf.while_loop(
                lambda j, *_: j < tf.where(on_hold, end, 0),
                lambda j, *columns: self._predict(j, (x, y, slots, upstream), recalled, columns),
                (i, *learned),
            )
            return (i, *predicted)

        _, *columns = tf.while_loop(lambda i, *_: i < count, to_next_stop, (tf.constant(0), *columns))
        return tuple(columns)

    def _learn(
        self, i: Tensor, chunk: tuple[Tensor, ...], recalled: tuple[Tensor, ...], columns: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Run the update of group *i*."""
        # tf.gather, never x[i:i+1]: that slice has a dynamic bound, and XLA would pad it to the whole chunk.
        rows = [tf.gather(column, i) for column in chunk]
        evaluate = self._recall(i, rows, recalled, columns)
        result = evaluate(self._update_rows(*rows))
        self.learned.assign_add(self.batch_rows)
        i, *written = _write_outputs(i, result, columns)
        return (i, self._update_rows.settle_due(), *written)

    def _predict(
        self, i: Tensor, chunk: tuple[Tensor, ...], recalled: tuple[Tensor, ...], columns: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Predict and evaluate group *i*, without changing a variable."""
        rows = [tf.gather(column, i) for column in chunk]
        evaluate = self._recall(i, rows, recalled, columns)
        return _write_outputs(i, evaluate(self._update_rows.test(*rows)), columns)

    def _recall(
        self, i: Tensor, rows: Sequence[Tensor], recalled: tuple[Tensor, ...], columns: tuple[Tensor, ...]
    ) -> Callable[[UpdateResult], UpdateResult]:
        """Return the function that puts the answers that group *i* evaluates in the place of its predictions.

        Their losses are on the scale before the update, as those of predictions are. Residuals stay those of the
        predictions.
        """
        if not recalled:
            return lambda result: result
        x, y = rows[0], rows[1]
        answers, places = (tf.gather(column, i) for column in recalled)
        here = tf.stack([tf.maximum(places, 0), tf.zeros_like(places)], axis=1)
        made_now = tf.stack([tf.gather_nd(columns[0], here), tf.gather_nd(columns[4], here)], axis=1)
        answers = tf.where((places >= 0)[:, None, None], made_now, answers)
        known = ~tf.math.is_nan(answers[:, 0, 0])
        sound = tf.cast(tf.where(known[:, None, None], answers, tf.zeros_like(answers)), self._kind)
        live, averaged = (sound[:, number] for number in (0, 1))
        losses, averaged_losses = (self._network.losses_of(each, x, y) for each in (live, averaged))

        def evaluate(result: UpdateResult) -> UpdateResult:
            return UpdateResult(
                tf.where(known[:, None], tf.cast(live, result.predictions.dtype), result.predictions),
                tf.where(known, losses, result.losses),
                tf.where(known, averaged_losses, result.averaged_losses),
                result.residuals,
                tf.where(known[:, None], tf.cast(averaged, result.predictions.dtype), result.averaged_predictions),
            )

        return evaluate


def no_recalled(groups: int, rows: int, book: AnswerBook) -> Recalled:
    """Return the columns for rows that evaluate no answer."""
    return Recalled(np.full((groups, rows, 2, book.outputs), np.nan), np.full((groups, rows), -1, np.int32))


def _write_outputs(i: Tensor, result: UpdateResult, columns: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    written = (
        tf.tensor_scatter_nd_update(column, [[i]], tf.cast(rows, column.dtype)[None])
        for column, rows in zip(columns, result, strict=True)
    )
    return (i + 1, *written)


def run_ends(hold: BoolArray) -> Int64Array:
    """Return for each group the end of its run: the index after its last neighbour with the same value of *hold*.

    >>> run_ends(np.array([False, False, True, False])).tolist()
    [2, 2, 3, 4]
    """
    if not hold.any():
        return np.full(len(hold), len(hold))
    ends = np.append(np.flatnonzero(hold[1:] != hold[:-1]) + 1, len(hold))
    return ends[np.searchsorted(ends, np.arange(len(hold)), side="right")]


def _uncompilable(error: Exception, *, compiled: bool) -> ConfigError:
    """Return the error to report: Python errors come from tracing the model, TensorFlow's own from compiling it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = next((line for line in lines if "not compilable" in line or "unsupported" in line.lower()), lines[0])[:300]
    if compiled and isinstance(error, tf.errors.OpError):
        message = f"XLA cannot compile this model ({reason}); `compile: false` runs it without XLA, many times slower"
        return ConfigError(Problem("learning.compile", message))
    return ConfigError(Problem("model", f"an update of this model fails ({type(error).__name__}): {reason}"))
