"""LSTM and GRU with one matrix product per step: same weights and results as Keras' layers, less time under XLA.

Per step, Keras multiplies the reading by the kernel and the state by the recurrent kernel. Here, a single row has all
its readings multiplied before the loop. Several rows have reading and state concatenated and multiplied by both kernels
as one matrix. The table compares processor time of the whole compiled update with Adam, for 32 steps of 4 readings and
32 units. A figure above 1 says how many times as long Keras' layer takes:

==================================================  =====  ====
                                                      GRU  LSTM
==================================================  =====  ====
one row: readings multiplied before the loop         1.32  1.15
one row, XLA compiling small loops whole             1.16  1.47
micro-batch of 32: both kernels as one               1.15  1.11
==================================================  =====  ====

Rejected variants, with the same three figures:

- Backward pass by hand, with the gates computed again after the loop: GRU 1.5, 1.0, 0.5, LSTM 1.1, 0.8, 0.5.
- The same with stored gates: GRU 1.35, 1.14, not clear, LSTM 1.2, 1.4, not clear.
- Readings before the loop for micro-batches: GRU 0.83, LSTM 0.81.
- Both kernels as one for single rows: GRU 1.33, LSTM 1.20, but 0.94 and 1.14 with small loops compiled whole.
- Four steps per turn of the loop, and multiplication and sum in place of a matrix product: slower.
- ``use_cudnn=False``: the same.
"""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

import keras
import tensorflow as tf

from learnd.core.tensors import Layer, Tensor

States: TypeAlias = Sequence[Tensor]
"""States of a layer, each (n, units)."""
Step: TypeAlias = Callable[[Tensor, States], States]
"""From the reading of one step, (n, columns), and the states before it to the states after it."""


class _Cell(Protocol):
    """The cell of a Keras LSTM or GRU layer."""

    kernel: object
    recurrent_kernel: object
    bias: object
    use_bias: bool
    dropout: float
    recurrent_dropout: float


class _RecurrentLayer(Protocol):
    """A Keras LSTM or GRU layer."""

    cell: _Cell
    go_backwards: bool
    return_sequences: bool


@keras.saving.register_keras_serializable(package="learnd")
class Lstm(keras.layers.LSTM):  # type: ignore[misc]  # Keras has no types
    """LSTM layer equal to `keras.layers.LSTM`, with the same weights under the same names."""

    def inner_loop(
        self, sequences: Tensor, initial_state: States, mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, States]:
        """Return what `keras.layers.RNN.inner_loop` returns: the last output, it as a sequence of one, the states."""
        if not _is_supported(self, mask):
            return super().inner_loop(sequences, initial_state, mask, training=training)  # type: ignore[no-any-return]
        cell = self.cell
        kernel, recurrent, bias = _weights(cell)
        if sequences.shape[0] == 1:
            readings, product = _multiply(sequences, kernel, bias), _lstm_product_of_state(recurrent)
        else:
            readings, product = sequences, _joint_product(tf.concat([kernel, recurrent], 0), bias)

        def step(reading: Tensor, states: States) -> States:
            h, c = states
            i, f, g, o = self._gates(product(reading, h))
            sigmoid, tanh = cell.recurrent_activation, cell.activation
            c = sigmoid(f) * c + sigmoid(i) * tanh(g)
            return [sigmoid(o) * tanh(c), c]

        return _run(step, readings, initial_state, unroll=self.unroll)

    def _gates(self, joined: Tensor) -> Sequence[Tensor]:
        if not self.unroll:
            return tf.split(joined, 4, axis=1)  # type: ignore[no-any-return]
        # The first step does not use one of the parts. TensorFlow Lite's int8 converter leaves such a split in float32.
        return [tf.slice(joined, (0, i * self.units), (-1, self.units)) for i in range(4)]

    def plain(self) -> Layer:
        """Return an equal layer of Keras' own, for the same weights."""
        layer: Layer = keras.layers.LSTM.from_config(self.get_config())
        return layer


@keras.saving.register_keras_serializable(package="learnd")
class Gru(keras.layers.GRU):  # type: ignore[misc]  # Keras has no types
    """GRU layer equal to `keras.layers.GRU`, with the same weights under the same names."""

    def inner_loop(
        self, sequences: Tensor, initial_state: States, mask: Tensor | None, training: bool = False
    ) -> tuple[Tensor, Tensor, States]:
        """Return what `keras.layers.RNN.inner_loop` returns: the last output, it as a sequence of one, the states."""
        cell = self.cell
        if not _is_supported(self, mask) or not cell.reset_after:
            return super().inner_loop(sequences, initial_state, mask, training=training)  # type: ignore[no-any-return]
        kernel, recurrent, biases = _weights(cell)
        bias = tf.unstack(biases)
        if sequences.shape[0] == 1:
            readings, product = _multiply(sequences, kernel, bias[0]), _gru_product_of_state(recurrent, bias[1])
        else:
            readings, product = sequences, _gru_joint_product(kernel, recurrent, bias)

        def step(reading: Tensor, states: States) -> States:
            (h,) = states
            z, r, candidate, memory = product(reading, h)
            z = cell.recurrent_activation(z)
            new = cell.activation(candidate + cell.recurrent_activation(r) * memory)
            return [z * h + (1.0 - z) * new]

        return _run(step, readings, initial_state, unroll=self.unroll)

    def plain(self) -> Layer:
        """Return an equal layer of Keras' own, for the same weights."""
        layer: Layer = keras.layers.GRU.from_config(self.get_config())
        return layer


def _is_supported(layer: _RecurrentLayer, mask: Tensor | None) -> bool:
    """Return whether *layer* is used as the built-in models use it. Keras' own loop runs in all other cases."""
    cell = layer.cell
    unusual = layer.go_backwards or layer.return_sequences or mask is not None
    return bool(cell.use_bias and not unusual and not cell.dropout and not cell.recurrent_dropout)


def _weights(cell: _Cell) -> tuple[Tensor, Tensor, Tensor]:
    """Return kernel, recurrent kernel and bias, read once.

    The loop would carry a variable that is read inside it through every step, at 1.5 times the cost.
    """
    kernel, recurrent, bias = map(tf.convert_to_tensor, (cell.kernel, cell.recurrent_kernel, cell.bias))
    return kernel, recurrent, bias


def _multiply(sequences: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """Return every reading of every row times *kernel* plus *bias*, shape (n, steps, columns of the kernel)."""
    flat = tf.matmul(tf.reshape(sequences, (-1, sequences.shape[2])), kernel) + bias
    product: Tensor = tf.reshape(flat, (-1, sequences.shape[1], kernel.shape[1]))
    return product


def _joint_product(kernels: Tensor, bias: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from a reading and a state to their concatenation times *kernels* plus *bias*."""
    return lambda reading, h: tf.matmul(tf.concat([reading, h], 1), kernels) + bias


def _lstm_product_of_state(recurrent: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from a multiplied reading and a state to the gates, side by side."""
    return lambda reading, h: reading + tf.matmul(h, recurrent)


def _gru_product_of_state(recurrent: Tensor, bias: Tensor) -> Callable[[Tensor, Tensor], Sequence[Tensor]]:
    """Return the function from a multiplied reading and a state to both gates and the candidate's two halves."""

    def product(reading: Tensor, h: Tensor) -> Sequence[Tensor]:
        x_z, x_r, candidate = tf.split(reading, 3, axis=1)
        h_z, h_r, memory = tf.split(tf.matmul(h, recurrent) + bias, 3, axis=1)
        return x_z + h_z, x_r + h_r, candidate, memory

    return product


def _gru_joint_product(
    kernel: Tensor, recurrent: Tensor, bias: Sequence[Tensor]
) -> Callable[[Tensor, Tensor], Sequence[Tensor]]:
    """Return the function from a reading and a state to both gates and the candidate's two halves.

    The halves stay apart, because the reset gate weighs only one of them. Blocks of zeros in the joint kernel keep them
    apart.
    """
    units = recurrent.shape[0]
    gates, candidate = tf.split(recurrent, (2 * units, units), axis=1)
    (gates_of_x, of_x), (gates_of_h, of_h) = (tf.split(b, (2 * units, units)) for b in bias)
    of_readings = tf.concat([kernel, tf.zeros((kernel.shape[0], units))], 1)
    of_states = tf.concat([gates, tf.zeros((units, units)), candidate], 1)
    biases = tf.concat([gates_of_x + gates_of_h, of_x, of_h], 0)
    product = _joint_product(tf.concat([of_readings, of_states], 0), biases)
    return lambda reading, h: tf.split(product(reading, h), 4, axis=1)


def _run(step: Step, readings: Tensor, states: States, *, unroll: bool) -> tuple[Tensor, Tensor, States]:
    """Return what `keras.layers.RNN.inner_loop` returns: the last output, it as a sequence of one, and the states."""
    steps = readings.shape[1]
    if unroll:
        for reading in tf.unstack(readings, axis=1):
            states = step(reading, states)
    else:
        rows = tf.TensorArray(tf.float32, size=steps, element_shape=(readings.shape[0], readings.shape[2]))
        rows = rows.unstack(tf.transpose(readings, (1, 0, 2)))
        _, *states = tf.while_loop(
            lambda t, *_: t < steps,
            lambda t, *states_before: (t + 1, *step(rows.read(t), states_before)),
            (tf.constant(0), *states),
            maximum_iterations=steps,  # XLA needs it to differentiate the loop
        )
    return states[0], states[0][:, None], states
