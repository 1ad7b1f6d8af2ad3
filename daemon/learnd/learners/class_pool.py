"""The mixture of experts for classes."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.pool import Mixture
from learnd.learners.weighting import CAP, SMALLEST, Sample, Weights, zeros

_FORGETTING = 0.998
_SMOOTHING = 0.5
_LARGEST_TABLE = 512
"""Largest number of classes with a table of which class follows which."""


class ClassPool:
    """Mixture for classes: the members' probabilities, what followed the key's last class, and how often each came.

    Parameters
    ----------
    members : names of the members
    keys : number of places for keys
    """

    def __init__(self, network: Network, members: Sequence[str], *, keys: int) -> None:
        self._network = network
        self._members = len(members)
        classes = network.outputs_per_row
        self._follows = classes <= _LARGEST_TABLE
        self.names: Sequence[str] = (*members, *(("last_class",) if self._follows else ()), "class_frequency")
        self._weights = Weights(len(self.names))
        self._last = zeros((keys,), tf.int32)
        """The number of the key's last class, plus 1."""
        self._followers = zeros((classes if self._follows else 1, classes), tf.float32)
        self._frequencies = zeros((classes,), tf.float32)

    def weights(self) -> Tensor:
        return self._weights.value()

    def predict(self, sample: Sample) -> Mixture:
        network, count = self._network, self._members
        x, y = tf.repeat(sample.x, count, axis=0), tf.repeat(sample.y, count, axis=0)
        evaluated = network.evaluate(x, y, sample.outputs)
        known = self._known()
        experts = [evaluated.predictions]
        last = tf.gather(self._last, sample.slot)
        if self._follows:
            row = tf.gather(self._followers, tf.maximum(last - 1, 0))
            experts.append(_smoothed(tf.where(last[:, None] > 0, row, 0.0), known))
        experts.append(_smoothed(self._frequencies[None], known))
        probabilities = tf.concat(experts, axis=0)
        mixed = tf.reduce_sum(probabilities * self.weights()[:, None], axis=0, keepdims=True)
        return Mixture(
            tf.cast(mixed, tf.float64),
            network.losses_of(mixed, sample.x, sample.y),
            self._one_hot(sample.y) - mixed,
            evaluated.losses,
            evaluated.predictions,
            probabilities,
            last,
        )

    def learn(self, sample: Sample, mixture: Mixture) -> Tensor:
        chosen = self._one_hot(sample.y)
        of_class = tf.reduce_sum(mixture.experts * chosen, axis=1)
        # A new class surprises every expert alike.
        new = tf.reduce_sum(tf.where(self._known(), chosen, 0.0)) < 0.5
        losses = tf.where(new, 0.0, tf.minimum(-tf.math.log(tf.maximum(of_class, SMALLEST)), CAP))
        self._weights.learn(losses)
        number = tf.cast(sample.y[:, 0], tf.int32)
        if self._follows:
            last = mixture.memory
            place = tf.maximum(last - 1, 0)
            row = tf.gather(self._followers, place)
            self._followers.scatter_nd_update(
                place[:, None], tf.where(last[:, None] > 0, row * _FORGETTING + chosen, row)
            )
        self._frequencies.assign(self._frequencies * _FORGETTING + chosen[0])
        self._last.scatter_nd_update(sample.slot[:, None], number + 1)
        of_members: Tensor = losses[: self._members]
        return of_members

    def _known(self) -> Tensor:
        """Return a mask of the classes that are known, shape (1, classes)."""
        count = self._network.class_count
        assert count is not None
        known: Tensor = (tf.range(self._network.outputs_per_row) < count.value)[None]
        return known

    def _one_hot(self, y: Tensor) -> Tensor:
        rows: Tensor = tf.one_hot(tf.cast(y[:, 0], tf.int32), self._network.outputs_per_row)
        return rows

    def variables(self) -> Mapping[str, TfVariable]:
        return {
            "weights": self._weights.logarithms,
            "last": self._last,
            "followers": self._followers,
            "frequencies": self._frequencies,
        }


def _smoothed(counts: Tensor, known: Tensor) -> Tensor:
    """Return probabilities from *counts*, shape (1, classes), of the *known* classes."""
    raised = tf.where(known, counts + _SMOOTHING, 0.0)
    probabilities: Tensor = raised / tf.maximum(tf.reduce_sum(raised, axis=1, keepdims=True), SMALLEST)
    return probabilities
