"""The compiled update: one XLA call learns a chunk of samples, in exact order.

The shape is fixed and the number of real rows is an argument, so there is one compilation. An outer loop runs from
snapshot to snapshot of the averager and an inner one from update to update; a snapshot therefore falls on a sample
count, wherever the chunks are cut. Every row costs the same arithmetic in the same order whatever chunk it is in, so
that the weights do not depend on the cutting either.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.types import Float32Array
from learnd.learners.averaged import AveragedModel
from learnd.learners.update import Update

CHUNK_ROWS = 2048
"""A call costs about half a millisecond whatever is in it, so a backlog wants large chunks; a single row costs the
same in any (`tests/bench/kafka_path.py`: 2048 rather than 1024 took the whole path from 0.8 to 0.9 of reading)."""
_NEVER = 2**62


class CompiledChunk:
    """Predicts and learns up to `CHUNK_ROWS` rows per call, `batch_rows` of them per update.

    Parameters
    ----------
    network : see `learnd.tasks.network.Network`
    update : see `learnd.learners.update.Update`
    averaged : takes the snapshots
    compile : off, the same without XLA
    thaw, thaw_at : called once so many samples were learned; what is trainable may change there, and only there
    """

    def __init__(
        self,
        network: Any,
        update: Update,
        averaged: AveragedModel,
        *,
        batch_rows: int,
        targets: int,
        compile: bool = True,
        thaw: Callable[[], None] = lambda: None,
        thaw_at: int | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._network = network
        self._update_rows = update
        self._averaged = averaged
        self._batch_rows = batch_rows
        self._batches = max(1, CHUNK_ROWS // batch_rows)
        self.rows = self._batches * batch_rows
        self._targets = targets
        self._compile = compile
        self._thaw, self._thaw_at = thaw, thaw_at
        self._clock = clock
        self.learned = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Samples learned since the very beginning."""
        self._calls: list[Any] = []
        # Bypasses tf.function's look-up of a trace: 0.2 of the 0.65 ms that a call with one row took.
        self._concrete: Any = None

    def _trace(self) -> Any:
        row_shape = self._network.row_shape
        specs = [
            tf.TensorSpec((self._batches, self._batch_rows, *shape), tf.float32)
            for shape in (row_shape, (self._targets,), ())
        ]
        call = tf.function(
            self._chunk,
            autograph=False,
            jit_compile=self._compile,
            input_signature=[*specs, tf.TensorSpec((), tf.int32)],
        )
        self._calls.append(call)
        return call.get_concrete_function()

    def prepare(self) -> None:
        """Compile now, by learning nothing.

        Raises
        ------
        ConfigError
            if that fails, which is the model's doing.
        """
        nothing = np.empty((0, *self._network.row_shape), np.float32)
        try:
            self(nothing, np.empty((0, self._targets), np.float32))
        except (tf.errors.OpError, ValueError, TypeError, NotImplementedError) as error:
            raise _uncompilable(error, compiled=self._compile) from error

    def next_rows(self) -> int:
        """How many rows the next call may have at most."""
        if self._thaw_at is None:
            return self.rows
        left = self._thaw_at - int(self.learned.numpy())
        if left <= 0:
            self._thaw()
            self._thaw_at, self._concrete = None, None
            return self.rows
        return min(self.rows, -(-left // self._batch_rows) * self._batch_rows)

    def __call__(
        self, x: Float32Array, y: Float32Array, weights: Float32Array | None = None
    ) -> tuple[Float32Array, Float32Array, Float32Array, float]:
        """Learn all rows of one chunk; their number is a multiple of `batch_rows` and at most `next_rows`.

        Returns predictions (n, outputs), losses (n,), losses of the averaged weights (n,), and seconds taken.
        """
        n = len(x)
        started_s = self._clock()
        if self._concrete is None:
            self._concrete = self._trace()
        if weights is None:
            weights = np.ones(n, np.float32)
        outputs = self._concrete(
            tf.constant(self._shaped(x, self._network.row_shape)),
            tf.constant(self._shaped(y, (self._targets,))),
            tf.constant(self._shaped(weights, ())),
            tf.constant(n // self._batch_rows),
        )
        predictions, losses, averaged = (tensor.numpy() for tensor in outputs)
        duration_s = self._clock() - started_s
        return (
            predictions.reshape(self.rows, -1)[:n],
            losses.reshape(-1)[:n],
            averaged.reshape(-1)[:n],
            duration_s,
        )

    @property
    def retraces(self) -> int:
        """Compilations that nothing called for; more than 0 is a defect."""
        return sum(int(call.experimental_get_tracing_count()) - 1 for call in self._calls)

    def _shaped(self, rows: Float32Array, row_shape: tuple[int, ...]) -> Float32Array:
        padded = rows
        if len(rows) < self.rows:
            padded = np.zeros((self.rows, *row_shape), np.float32)
            padded[: len(rows)] = rows
        return padded.reshape(self._batches, self._batch_rows, *row_shape)

    def _chunk(self, x: Any, y: Any, weights: Any, batches: Any) -> Any:
        every = tf.constant(self._averaged.every_samples or _NEVER, tf.int64)
        size = tf.constant(self._batch_rows, tf.int64)
        shape = (self._batches, self._batch_rows)
        start = (
            tf.constant(0),
            tf.zeros((*shape, self._network.outputs_per_row)),
            tf.zeros(shape),
            tf.zeros(shape),
        )

        def to_next_snapshot(i: Any, *columns: Any) -> Any:
            before = tf.identity(self.learned)
            missing = every - before % every
            updates = (missing + size - 1) // size
            stop = tf.cast(tf.minimum(tf.cast(batches, tf.int64), tf.cast(i, tf.int64) + updates), tf.int32)
            i, *columns = tf.while_loop(
                lambda j, *_: j < stop,
                lambda j, *rows: self._update(j, (x, y, weights), rows),
                (i, *columns),
            )
            self._averaged.snapshot(self.learned // every > before // every)
            return (i, *columns)

        _, predictions, losses, averaged = tf.while_loop(lambda i, *_: i < batches, to_next_snapshot, start)
        return predictions, losses, averaged

    def _update(self, i: Any, chunk: Any, columns: Any) -> Any:
        """The *i*-th update of the chunk."""
        # tf.gather, never x[i:i+1]: the slice has a dynamic bound, and XLA would pad it to the whole chunk.
        results = self._update_rows(*(tf.gather(rows, i) for rows in chunk))
        self.learned.assign_add(self._batch_rows)
        written = (
            tf.tensor_scatter_nd_update(column, [[i]], rows[None])
            for column, rows in zip(columns, results, strict=True)
        )
        return (i + 1, *written)


def _uncompilable(error: Exception, *, compiled: bool) -> ConfigError:
    """What to tell: Python errors come from tracing the model, and only TensorFlow's own from compiling it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = next((line for line in lines if "not compilable" in line or "unsupported" in line.lower()), lines[0])[:300]
    if compiled and isinstance(error, tf.errors.OpError):
        message = f"XLA cannot compile this model ({said}); `compile: false` runs it without, many times slower"
        return ConfigError(Problem("learning.compile", message))
    return ConfigError(Problem("model", f"an update of this model fails ({type(error).__name__}): {said}"))
