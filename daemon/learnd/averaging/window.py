"""The uniform mean of the last snapshots: a ring and a running sum."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from learnd.averaging.settings import WindowSettings


class WindowAverager:
    """The mean of the last ``min(size, ceil(warmup * taken))`` snapshots.

    The running sum is float64 and cannot drift: beside it a second sum adds up the snapshots since the ring last
    began anew, and takes its place whenever the ring comes round, so rounding never outlives ``2 * size``
    snapshots.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self.every_samples: int | None = settings.every_samples
        self._size = settings.size
        self._warmup = settings.warmup
        self._weights: Sequence[Any] = ()

    def build(self, weights: Sequence[Any]) -> None:
        self._weights = weights
        shapes = [tuple(w.shape) for w in weights]
        self._ring = [_zeros((self._size, *shape), tf.float32) for shape in shapes]
        self._sum = [_zeros(shape, tf.float64) for shape in shapes]
        self._since_wrap = [_zeros(shape, tf.float64) for shape in shapes]
        self._means = [tf.Variable(tf.convert_to_tensor(w.value), trainable=False) for w in weights]
        self._taken = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._held = tf.Variable(0, dtype=tf.int64, trainable=False)

    def observe(self, due: Any) -> None:
        size = tf.constant(self._size, tf.int64)
        taken = self._taken + 1
        slot = self._taken % size
        wanted = tf.minimum(size, tf.cast(tf.math.ceil(self._warmup * tf.cast(taken, tf.float64)), tf.int64))
        # The window grows by at most one a snapshot, so at most one old snapshot leaves it.
        leaves = self._held + 1 > wanted
        oldest = (self._taken - self._held) % size
        held = self._held + 1 - tf.cast(leaves, tf.int64)
        comes_round = (slot == size - 1) & (held == size)
        # tf.gather: a variable indexed by a computed number compiles to a padded slice, 1000 times slower.
        for weight, ring, total, since_wrap, mean in zip(
            self._weights, self._ring, self._sum, self._since_wrap, self._means, strict=True
        ):
            new = tf.convert_to_tensor(weight.value)
            out = tf.cast(tf.gather(ring, oldest), tf.float64)
            kept = tf.where(due, new, tf.gather(ring, slot))
            new64 = tf.cast(new, tf.float64)
            fresh = since_wrap + new64
            moved = total + new64 - tf.where(leaves, out, tf.zeros_like(out))
            moved = tf.where(comes_round, fresh, moved)
            fresh = tf.where(slot == size - 1, tf.zeros_like(fresh), fresh)
            ring.scatter_nd_update([[slot]], kept[None])
            total.assign(tf.where(due, moved, total))
            since_wrap.assign(tf.where(due, fresh, since_wrap))
            mean.assign(tf.where(due, tf.cast(moved / tf.cast(held, tf.float64), tf.float32), mean))
        self._taken.assign(tf.where(due, taken, self._taken))
        self._held.assign(tf.where(due, held, self._held))

    def ready(self) -> Any:
        return self._taken > 0

    def averages(self) -> Sequence[Any] | None:
        return [tf.convert_to_tensor(mean) for mean in self._means]

    def variables(self) -> Mapping[str, Any]:
        named = {"ring": self._ring, "sum": self._sum, "since_wrap": self._since_wrap, "mean": self._means}
        listed = {f"{name}/{i}": v for name, variables in named.items() for i, v in enumerate(variables)}
        return {"taken": self._taken, "held": self._held, **listed}


def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    return tf.Variable(tf.zeros(shape, dtype), trainable=False)
