"""The linear member of an ensemble: normalised least mean squares (Nagumo and Noda, 1967), with a running average."""

from collections.abc import Mapping

import tensorflow as tf

from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.member import Objective, average_share

_RATE = 0.3
_LARGEST_GRADIENT = 5.0


class LinearMember:
    """One affine map of the core's flattened inputs. It learns fast where a network is still far from the truth.

    Parameters
    ----------
    objective : losses to minimise, shape (1,), from core targets and outputs
    """

    def __init__(self, inputs: int, outputs: int, objective: Objective) -> None:
        self._objective = objective
        self._live = [_zeros((inputs, outputs)), _zeros((outputs,))]
        self._average = [_zeros((inputs, outputs)), _zeros((outputs,))]
        self._updates = tf.Variable(0, dtype=tf.int64, trainable=False)

    def answer(self, inputs: Tensor) -> Tensor:
        """Return the outputs, shape (1, outputs), for one row of core *inputs*."""
        return _affine(self._live, inputs)

    def averaged_answer(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the averaged weights, shape (1, outputs)."""
        return _affine(self._average, inputs)

    def learn(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Take one step on a row; return its outputs from before the step. Traced."""
        outputs = self.answer(inputs)
        row = tf.reshape(inputs, (-1, 1))
        with tf.GradientTape() as tape:
            tape.watch(outputs)
            loss = self._objective(targets, outputs)
        gradient = tape.gradient(loss, outputs)
        square = 1.0 + tf.reduce_sum(tf.square(row))
        norm = tf.sqrt(square * tf.reduce_sum(tf.square(gradient)))
        clipped = gradient * tf.minimum(1.0, _LARGEST_GRADIENT / tf.maximum(norm, 1e-12))
        step = clipped * (_RATE / square) * tf.reshape(weights, (1, 1))
        step = tf.where(tf.math.is_finite(norm), step, tf.zeros_like(step))
        kernel, bias = self._live
        kernel.assign(kernel - row * step)
        bias.assign(bias - step[0])
        share = average_share(self._updates)
        for average, live in zip(self._average, self._live, strict=True):
            average.assign(average + share * (live - average))
        self._updates.assign_add(1)
        return outputs

    def restart(self) -> None:
        """Let the average begin again from the next weights. Between two compiled calls."""
        self._updates.assign(0)

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name."""
        kernel, bias = self._live
        average_kernel, average_bias = self._average
        return {
            "kernel": kernel,
            "bias": bias,
            "average_kernel": average_kernel,
            "average_bias": average_bias,
            "updates": self._updates,
        }


def _affine(weights: list[TfVariable], inputs: Tensor) -> Tensor:
    kernel, bias = weights
    outputs: Tensor = tf.matmul(tf.reshape(inputs, (1, -1)), kernel) + bias
    return outputs


def _zeros(shape: tuple[int, ...]) -> TfVariable:
    variable: TfVariable = tf.Variable(tf.zeros(shape), trainable=False)
    return variable
