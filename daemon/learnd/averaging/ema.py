"""An exponential moving average of the weights (Polyak averaging with forgetting)."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from learnd.averaging.settings import EmaSettings


class EmaAverager:
    """``mean <- d * mean + (1 - d) * weights`` at every snapshot.

    ``d`` is min(decay, (1 + k) / (10 + k)) at snapshot k from 0, so that a young average forgets its untrained past.
    """

    def __init__(self, settings: EmaSettings) -> None:
        self.every_samples: int | None = settings.every_samples
        self._decay = settings.decay
        self._weights: Sequence[Any] = ()

    def build(self, weights: Sequence[Any]) -> None:
        self._weights = weights
        self._means = [tf.Variable(tf.convert_to_tensor(w.value), trainable=False) for w in weights]
        self._taken = tf.Variable(0, dtype=tf.int64, trainable=False)

    def observe(self, due: Any) -> None:
        k = tf.cast(self._taken, tf.float32)
        decay = tf.where(due, tf.minimum(self._decay, (1.0 + k) / (10.0 + k)), 1.0)
        # The first snapshot replaces the initial weights, which no sample has shaped.
        decay = tf.where(due & (self._taken == 0), 0.0, decay)
        for weight, mean in zip(self._weights, self._means, strict=True):
            mean.assign(decay * mean + (1.0 - decay) * weight.value)
        self._taken.assign_add(tf.cast(due, tf.int64))

    def ready(self) -> Any:
        return self._taken > 0

    def averages(self) -> Sequence[Any] | None:
        return [tf.convert_to_tensor(mean) for mean in self._means]

    def variables(self) -> Mapping[str, Any]:
        return {"taken": self._taken, **{f"mean/{i}": mean for i, mean in enumerate(self._means)}}
