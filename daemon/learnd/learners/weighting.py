"""Weights of experts: exponential weights with a fixed share (Herbster and Warmuth, 1998).

Each expert's weight falls with its recent losses, on a scale that follows the mixture's own error. The fixed share lets
an expert come back quickly when the stream changes. All of it is traced.
"""

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.tensors import Tensor, TfVariable

ETA = 0.5
"""Rate at which weights follow losses."""
SHARE = 0.01
"""Share of all weight that is spread evenly at every sample."""
_FLOOR = 2.0
"""Weights below this many even shares do not enter the mixture."""
CAP = 4.0
"""Largest loss of an expert in one sample."""
FADING = 300.0
"""Number of samples over which errors are averaged."""
_SETTLED_SAMPLES = 20.0
_LARGEST_JUMP = 9.0
_LARGEST_RATIO = 10.0
SMALLEST = 1e-9
_ASLEEP = -1e9
"""The logarithm of the weight of an expert without an answer."""


class Sample(NamedTuple):
    """One sample, as the experts see it.

    Attributes
    ----------
    x, y : raw input and target, shapes (1, *row_shape) and (1, targets)
    slot : (1,), int32, the place of the sample's key
    outputs : (members, outputs), the core outputs of the members, of live and of averaged weights
    upstream : (1, columns), forecasts made upstream, raw; nan: missing
    """

    x: Tensor
    y: Tensor
    slot: Tensor
    outputs: Tensor
    upstream: Tensor


class Weights:
    """The weights of *count* experts, which start equal."""

    def __init__(self, count: int) -> None:
        self.logarithms = tf.Variable(tf.zeros(count), trainable=False)

    def value(self, awake: Tensor | None = None) -> Tensor:
        """Return the weights of the mixture, of those experts alone that are *awake*.

        Without the part that is spread evenly: it is for coming back. An expert far from the truth must not have it.
        """
        logarithms = tf.convert_to_tensor(self.logarithms)
        count: Tensor | float = float(self.logarithms.shape[0])
        if awake is not None:
            logarithms = tf.where(awake, logarithms, _ASLEEP)
            count = tf.reduce_sum(tf.cast(awake, tf.float32))
        own = tf.maximum(tf.nn.softmax(logarithms) - _FLOOR * SHARE / count, 0.0)
        total = tf.reduce_sum(own)
        weights: Tensor = tf.where(total > 0.0, own / tf.maximum(total, SMALLEST), 1.0 / count)
        return weights

    def learn(self, losses: Tensor, awake: Tensor | None = None) -> None:
        """Update the weights by the capped losses of all experts.

        Those that are not *awake* have the loss of the mixture of the others, so that their weights stay (Freund,
        Schapire, Singer and Warmuth, 1997).
        """
        if awake is not None:
            present = tf.where(awake, tf.nn.log_softmax(self.logarithms), _ASLEEP)
            mixed = tf.reduce_logsumexp(present - ETA * losses) - tf.reduce_logsumexp(present)
            losses = tf.where(awake, losses, -mixed / ETA)
        shifted = tf.nn.softmax(self.logarithms - ETA * losses)
        shared = (1.0 - SHARE) * shifted + SHARE / float(losses.shape[0])
        self.logarithms.assign(tf.math.log(shared))


class Resemblance:
    """How far each answer's error resembles its last one for the same key."""

    def __init__(self, network: Network, answers: int) -> None:
        self._network = network
        self._answers = answers
        self._products = zeros((answers, network.outputs_per_row), tf.float64)
        self._squares = zeros((answers, network.outputs_per_row), tf.float64)

    def ratio(self) -> Tensor:
        """Return the share of its last error that usually repeats, shape (answers, outputs)."""
        share: Tensor = tf.clip_by_value(self._products / tf.maximum(self._squares, 1e-12), 0.0, 1.0)
        return share

    def learn(
        self, sample: Sample, answers: Tensor, outputs: Tensor, errors: Tensor, before: Tensor, share: Tensor
    ) -> None:
        """Compare the *errors* of raw *answers* with the last ones, *before*. *outputs* are the answers of the core."""
        x = tf.repeat(sample.x, self._answers, axis=0)
        differences = (self._network.core_targets(x, answers + each) - outputs for each in (errors, before))
        now, then = (tf.cast(z, tf.float64) for z in differences)
        now, then = (tf.clip_by_value(z, -_LARGEST_RATIO, _LARGEST_RATIO) for z in (now, then))
        self._products.assign(self._products + share * (now * then - self._products))
        self._squares.assign(self._squares + share * (tf.square(then) - self._squares))

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name."""
        return {"products": self._products, "squares": self._squares}


def fading_error(error: Tensor, own: Tensor, samples: Tensor) -> Tensor:
    """Return the fading squared *error* of a mixture after a sample with the squared error *own*."""
    own = tf.where(samples > _SETTLED_SAMPLES, tf.minimum(own, _LARGEST_JUMP * error), own)
    share = 1.0 / tf.minimum(samples + 1.0, FADING)
    faded: Tensor = tf.maximum(error + share * (own - error), 1e-6)
    return faded


def relative_losses(squares: Tensor, error: Tensor) -> Tensor:
    """Return the capped losses of experts with the squared errors *squares*, relative to the mixture's."""
    # Half absolute, half squared: squares alone let one jump decide, absolute errors alone follow drift too slowly.
    ratio = squares / error
    losses: Tensor = tf.minimum(0.5 * tf.sqrt(ratio) + 0.25 * ratio, CAP)
    return losses


def zeros(shape: tuple[int, ...], dtype: object) -> TfVariable:
    """Return a variable of zeros that no optimizer trains."""
    variable: TfVariable = tf.Variable(tf.zeros(shape, dtype), trainable=False)
    return variable
