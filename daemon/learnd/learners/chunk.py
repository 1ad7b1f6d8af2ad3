"""The compiled update: one XLA call learns a chunk of samples, in exact order.

The shape is fixed and the number of real rows is an argument, so there is one compilation. An outer loop runs from
snapshot to snapshot of the averager and an inner one from update to update; a snapshot therefore falls on a sample
count, wherever the chunks are cut. Every row costs the same arithmetic in the same order whatever chunk it is in, so
that the weights do not depend on the cutting either.
"""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from learnd.types import Float32Array

CHUNK_ROWS = 2048
"""A call costs about half a millisecond whatever is in it, so a backlog wants large chunks; a single row costs the
same in any (`tests/bench/kafka_path.py`: 2048 rather than 1024 took the whole path from 0.8 to 0.9 of reading)."""
_NEVER = 2**62


class CompiledChunk:
    """Predicts and learns up to `CHUNK_ROWS` rows per call, `batch_rows` of them per update.

    Parameters
    ----------
    network : see `learnd.tasks.network.Network`
    optimizer : a Keras optimizer, built for the network's trainable variables
    averager : see `learnd.protocols.Averager`, built for the network's averaged weights
    """

    def __init__(
        self,
        network: Any,
        optimizer: Any,
        averager: Any,
        *,
        batch_rows: int,
        targets: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._network = network
        self._optimizer = optimizer
        self._averager = averager
        self._batch_rows = batch_rows
        self._batches = max(1, CHUNK_ROWS // batch_rows)
        self.rows = self._batches * batch_rows
        self._targets = targets
        self._clock = clock
        self.learned = tf.Variable(0, dtype=tf.int64, trainable=False)
        """Samples learned since the very beginning."""
        x_spec = tf.TensorSpec((self._batches, batch_rows, *network.row_shape), tf.float32)
        y_spec = tf.TensorSpec((self._batches, batch_rows, targets), tf.float32)
        self._call = tf.function(
            self._chunk,
            autograph=False,
            jit_compile=True,
            input_signature=[x_spec, y_spec, tf.TensorSpec((), tf.int32)],
        )
        # Bypasses tf.function's look-up of a trace: 0.2 of the 0.65 ms that a call with one row took.
        self._concrete: Any = None

    def __call__(self, x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array, Float32Array, float]:
        """Learn all rows of one chunk; their number is a multiple of `batch_rows` and at most `rows`.

        Returns predictions (n, outputs), losses (n,), losses of the averaged weights (n,), and seconds taken.
        """
        n = len(x)
        started_s = self._clock()
        if self._concrete is None:
            self._concrete = self._call.get_concrete_function()
        outputs = self._concrete(
            tf.constant(self._shaped(x, self._network.row_shape)),
            tf.constant(self._shaped(y, (self._targets,))),
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
        """Compilations beyond the first; more than 0 is a defect."""
        return max(0, int(self._call.experimental_get_tracing_count()) - 1)

    def _shaped(self, rows: Float32Array, row_shape: tuple[int, ...]) -> Float32Array:
        padded = rows
        if len(rows) < self.rows:
            padded = np.zeros((self.rows, *row_shape), np.float32)
            padded[: len(rows)] = rows
        return padded.reshape(self._batches, self._batch_rows, *row_shape)

    def _chunk(self, x: Any, y: Any, batches: Any) -> Any:
        every = tf.constant(self._averager.every_samples or _NEVER, tf.int64)
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
                lambda j, *rows: self._update(j, x, y, rows),
                (i, *columns),
            )
            self._averager.observe(self.learned // every > before // every)
            return (i, *columns)

        _, predictions, losses, averaged = tf.while_loop(lambda i, *_: i < batches, to_next_snapshot, start)
        return predictions, losses, averaged

    def _update(self, i: Any, x: Any, y: Any, columns: Any) -> Any:
        """Test, then train, on batch *i*."""
        predictions, losses, averaged_losses = columns
        network = self._network
        # tf.gather, never x[i:i+1]: the slice has a dynamic bound, and XLA would pad it to the whole chunk.
        x_i, y_i = tf.gather(x, i), tf.gather(y, i)
        with tf.GradientTape() as tape:
            prediction, loss = network.judge(x_i, y_i, training=True)
            total = tf.reduce_mean(loss)
        averaged_loss = self._averaged_loss(x_i, y_i, loss)
        gradients = tape.gradient(total, network.trainable_variables)
        self._optimizer.apply(gradients, network.trainable_variables)
        network.observe(x_i, y_i)
        self.learned.assign_add(self._batch_rows)
        return (
            i + 1,
            tf.tensor_scatter_nd_update(predictions, [[i]], prediction[None]),
            tf.tensor_scatter_nd_update(losses, [[i]], loss[None]),
            tf.tensor_scatter_nd_update(averaged_losses, [[i]], averaged_loss[None]),
        )

    def _averaged_loss(self, x: Any, y: Any, live_loss: Any) -> Any:
        averages = self._averager.averages()
        if averages is None:
            return live_loss
        mapping = list(zip(self._network.averaged_weights(), averages, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            prediction, _ = self._network.judge(x, y, training=False)
        averaged_loss = self._network.losses_of(prediction, x, y)
        return tf.where(self._averager.ready(), averaged_loss, live_loss)
