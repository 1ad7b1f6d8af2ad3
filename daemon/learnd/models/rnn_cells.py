"""Keras' LSTM and GRU with one matrix product a step: same weights, same answers, less time under XLA.

A step of Keras multiplies the reading by the kernel and the state by the recurrent kernel. Here a single row has all
its readings multiplied ahead of the loop; several rows have reading and state side by side, against both kernels as
one. Processor time of the whole compiled update with Adam, 32 steps of 4 readings, 32 units; Keras' layer takes so many
times as long:

==================================================  =====  ====
                                                      GRU  LSTM
==================================================  =====  ====
one row: readings multiplied ahead                   1.32  1.15
one row, XLA compiling small loops whole             1.16  1.47
micro-batch of 32: both kernels as one               1.15  1.11
==================================================  =====  ====

Turned down, with the same three figures. Backward pass by hand, gates computed again after the loop: GRU 1.5, 1.0, 0.5,
LSTM 1.1, 0.8, 0.5; gates stored: 1.35, 1.14, not clear, and 1.2, 1.4, not clear. Readings ahead for micro-batches: 0.83
and 0.81. Both kernels as one for single rows: 1.33 and 1.20, but 0.94 and 1.14 with small loops whole. Four steps in
one turn of the loop, multiply and sum in place of a product: slower. ``use_cudnn=False``: the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="learnd")
class Lstm(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """Answers as `keras.layers.LSTM` does, from the same weights under the same names."""

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        if not _is_plain(self, mask):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        cell = self.cell
        kernel, recurrent, bias = _values(cell)
        if sequences.shape[0] == 1:
            readings, join = _times(sequences, kernel, bias), _lstm_ahead(recurrent)
        else:
            readings, join = sequences, _side_by_side(tf.concat([kernel, recurrent], 0), bias)

        def step(reading: Any, states: Sequence[Any]) -> list[Any]:
            h, c = states
            i, f, g, o = self._gates(join(reading, h))
            sigmoid, tanh = cell.recurrent_activation, cell.activation
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            return [sigmoid(o) * tanh(c), c]

        return _answer(step, readings, initial_state, unroll=self.unroll)

    def _gates(self, joined: Any) -> Sequence[Any]:
        if not self.unroll:
            return tf.split(joined, 4, axis=1)  # type: ignore[no-any-return]
        # The first step has no use for one part: TensorFlow Lite's converter to int8 leaves such a split in float32.
        return [tf.slice(joined, (0, i * self.units), (-1, self.units)) for i in range(4)]

    def plain(self) -> Any:
        """The same of Keras' own layers, from the same weights."""
        return keras.layers.LSTM.from_config(self.get_config())


@keras.saving.register_keras_serializable(package="learnd")
class Gru(keras.layers.GRU):  # type: ignore[misc]  # Keras has no types
    """Answers as `keras.layers.GRU` does, from the same weights under the same names."""

    def inner_loop(self, sequences: Any, initial_state: Any, mask: Any, training: bool = False) -> Any:
        cell = self.cell
        if not _is_plain(self, mask) or not cell.reset_after:
            return super().inner_loop(sequences, initial_state, mask, training=training)
        kernel, recurrent, biases = _values(cell)
        bias = tf.unstack(biases)
        if sequences.shape[0] == 1:
            readings, join = _times(sequences, kernel, bias[0]), _gru_ahead(recurrent, bias[1])
        else:
            readings, join = sequences, _gru_side_by_side(kernel, recurrent, bias)

        def step(reading: Any, states: Sequence[Any]) -> list[Any]:
            (h,) = states
            z, r, candidate, memory = join(reading, h)
            z = cell.recurrent_activation(z)
            new = cell.activation(candidate + cell.recurrent_activation(r) * memory)
            return [z * h + (1.0 - z) * new]

        return _answer(step, readings, initial_state, unroll=self.unroll)

    def plain(self) -> Any:
        """The same of Keras' own layers, from the same weights."""
        return keras.layers.GRU.from_config(self.get_config())


def _is_plain(layer: Any, mask: Any) -> bool:
    """Whether *layer* is used as the built-in models use it; all else is left to Keras."""
    cell = layer.cell
    unusual = layer.go_backwards or layer.return_sequences or mask is not None
    return bool(cell.use_bias and not unusual and not cell.dropout and not cell.recurrent_dropout)


def _values(cell: Any) -> tuple[Any, Any, Any]:
    """The weights, read once: a variable that is read inside the loop is carried round by it, at 1.5 times the cost."""
    kernel, recurrent, bias = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
    return kernel, recurrent, bias


def _times(sequences: Any, kernel: Any, bias: Any) -> Any:
    """Every reading of every row by *kernel*, shape (n, steps, columns of the kernel)."""
    flat = tf.matmul(tf.reshape(sequences, (-1, sequences.shape[2])), kernel) + bias
    return tf.reshape(flat, (-1, sequences.shape[1], kernel.shape[1]))


def _side_by_side(kernels: Any, bias: Any) -> Callable[[Any, Any], Any]:
    return lambda reading, h: tf.matmul(tf.concat([reading, h], 1), kernels) + bias


def _lstm_ahead(recurrent: Any) -> Callable[[Any, Any], Any]:
    return lambda reading, h: reading + tf.matmul(h, recurrent)


def _gru_ahead(recurrent: Any, bias: Any) -> Callable[[Any, Any], Any]:
    def join(reading: Any, h: Any) -> Any:
        x_z, x_r, candidate = tf.split(reading, 3, axis=1)
        h_z, h_r, memory = tf.split(tf.matmul(h, recurrent) + bias, 3, axis=1)
        return x_z + h_z, x_r + h_r, candidate, memory

    return join


def _gru_side_by_side(kernel: Any, recurrent: Any, bias: Sequence[Any]) -> Callable[[Any, Any], Any]:
    """The candidate's two halves stay apart, since the reset gate weighs one of them: blocks of zeros beside them."""
    units = recurrent.shape[0]
    gates, candidate = tf.split(recurrent, (2 * units, units), axis=1)
    (gates_of_x, of_x), (gates_of_h, of_h) = (tf.split(b, (2 * units, units)) for b in bias)
    of_readings = tf.concat([kernel, tf.zeros((kernel.shape[0], units))], 1)
    of_states = tf.concat([gates, tf.zeros((units, units)), candidate], 1)
    biases = tf.concat([gates_of_x + gates_of_h, of_x, of_h], 0)
    product = _side_by_side(tf.concat([of_readings, of_states], 0), biases)
    return lambda reading, h: tf.split(product(reading, h), 4, axis=1)


def _answer(
    step: Callable[[Any, Sequence[Any]], list[Any]], readings: Any, states: Sequence[Any], *, unroll: bool
) -> Any:
    """What `keras.layers.RNN.inner_loop` returns: the last output, it again as a sequence of one, and the states."""
    steps = readings.shape[1]
    if unroll:
        for reading in tf.unstack(readings, axis=1):
            states = step(reading, states)
    else:
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=(readings.shape[0], readings.shape[2]))
        rows = rows.unstack(tf.transpose(readings, (1, 0, 2)))
        _, *states = tf.while_loop(
            lambda t, *_: t < steps,
            lambda t, *held: (t + 1, *step(rows.read(t), held)),
            (tf.constant(0), *states),
            maximum_iterations=steps,  # XLA needs it to differentiate the loop
        )
    return states[0], states[0][:, None], states
