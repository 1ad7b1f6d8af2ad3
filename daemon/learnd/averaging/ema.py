"""Exponential moving average of the weights (Polyak averaging with forgetting)."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.averaging.settings import EmaSettings
from learnd.core.tensors import Tensor, TfVariable, Variable


class EmaAverager:
    """Exponential moving average: ``mean <- d * mean + (1 - d) * weights`` at every snapshot.

    At snapshot k, counted from 0, ``d`` is min(decay, (1 + k) / (10 + k)). The smaller decay at the start lets a young
    average forget the untrained weights.
    """

    def __init__(self, settings: EmaSettings) -> None:
        self.every_samples: int | None = settings.every_samples
        self._decay = settings.decay
        self._weights: Sequence[Variable] = ()

    def build(self, weights: Sequence[Variable]) -> None:
        """Create one mean per weight, equal to the weight's present value."""
        self._weights = weights
        self._means: list[TfVariable] = [
            tf.Variable(tf.convert_to_tensor(weight.value), trainable=False) for weight in weights
        ]
        self._snapshots: TfVariable = tf.Variable(0, dtype=tf.int64, trainable=False)

    def observe(self, due: Tensor) -> None:
        """Add a snapshot of the weights to the means if the boolean scalar *due* is true."""
        k = tf.cast(self._snapshots, tf.float32)
        decay = tf.where(due, tf.minimum(self._decay, (1.0 + k) / (10.0 + k)), 1.0)
        # The first snapshot replaces the initial weights, because no sample has shaped those.
        decay = tf.where(due & tf.equal(self._snapshots, 0), 0.0, decay)
        for weight, mean in zip(self._weights, self._means, strict=True):
            mean.assign(decay * mean + (1.0 - decay) * weight.value)
        self._snapshots.assign_add(tf.cast(due, tf.int64))

    def restart(self) -> None:
        """Forget all snapshots: the next one replaces the mean. Between two compiled calls."""
        self._snapshots.assign(0)

    def ready(self) -> Tensor:
        """Return a boolean scalar: true after the first snapshot."""
        return self._snapshots > 0

    def averages(self) -> Sequence[Tensor] | None:
        """Return the means in the order of the weights."""
        return [tf.convert_to_tensor(mean) for mean in self._means]

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the state by its name in the checkpoint."""
        return {"taken": self._snapshots, **{f"mean/{i}": mean for i, mean in enumerate(self._means)}}
