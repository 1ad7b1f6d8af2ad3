"""Uniform mean of the last snapshots of the weights, kept as a ring of snapshots and a running sum."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.averaging.settings import WindowSettings
from learnd.core.tensors import Tensor, TfVariable, Variable


class WindowAverager:
    """Mean of the last ``min(size, ceil(warmup * snapshots))`` snapshots.

    The running sum is float64 and does not drift. A second sum adds up the snapshots since the ring last started from
    slot 0. It replaces the running sum each time the ring is full, so a rounding error lasts at most ``2 * size``
    snapshots.
    """

    def __init__(self, settings: WindowSettings) -> None:
        self.every_samples: int | None = settings.every_samples
        self._size = settings.size
        self._warmup = settings.warmup
        self._weights: Sequence[Variable] = ()

    def build(self, weights: Sequence[Variable]) -> None:
        """Create the ring, the sums and one mean per weight, equal to the weight's present value."""
        self._weights = weights
        shapes = [tuple(weight.shape) for weight in weights]
        self._ring = [_zeros((self._size, *shape), "float32") for shape in shapes]
        self._sum = [_zeros(shape, "float64") for shape in shapes]
        self._since_wrap = [_zeros(shape, "float64") for shape in shapes]
        self._means: list[TfVariable] = [
            tf.Variable(tf.convert_to_tensor(weight.value), trainable=False) for weight in weights
        ]
        self._snapshots: TfVariable = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._length: TfVariable = tf.Variable(0, dtype=tf.int64, trainable=False)

    def observe(self, due: Tensor) -> None:
        """Add a snapshot of the weights to the window if the boolean scalar *due* is true."""
        size = tf.constant(self._size, tf.int64)
        snapshots = self._snapshots + 1
        slot = self._snapshots % size
        limit = tf.minimum(size, tf.cast(tf.math.ceil(self._warmup * tf.cast(snapshots, tf.float64)), tf.int64))
        # The window grows by at most one per snapshot, so at most one old snapshot leaves it.
        leaves = self._length + 1 > limit
        oldest = (self._snapshots - self._length) % size
        length = self._length + 1 - tf.cast(leaves, tf.int64)
        wraps = (slot == size - 1) & (length == size)
        # tf.gather: a variable indexed by a computed number compiles to a padded slice, 1000 times slower.
        for weight, ring, total, since_wrap, mean in zip(
            self._weights, self._ring, self._sum, self._since_wrap, self._means, strict=True
        ):
            snapshot = tf.convert_to_tensor(weight.value)
            leaving = tf.cast(tf.gather(ring, oldest), tf.float64)
            entry = tf.where(due, snapshot, tf.gather(ring, slot))
            snapshot64 = tf.cast(snapshot, tf.float64)
            new_since_wrap = since_wrap + snapshot64
            new_total = total + snapshot64 - tf.where(leaves, leaving, tf.zeros_like(leaving))
            new_total = tf.where(wraps, new_since_wrap, new_total)
            new_since_wrap = tf.where(slot == size - 1, tf.zeros_like(new_since_wrap), new_since_wrap)
            ring.scatter_nd_update([[slot]], entry[None])
            total.assign(tf.where(due, new_total, total))
            since_wrap.assign(tf.where(due, new_since_wrap, since_wrap))
            mean.assign(tf.where(due, tf.cast(new_total / tf.cast(length, tf.float64), tf.float32), mean))
        self._snapshots.assign(tf.where(due, snapshots, self._snapshots))
        self._length.assign(tf.where(due, length, self._length))

    def restart(self) -> None:
        """Forget all snapshots. Between two compiled calls."""
        for total in (*self._sum, *self._since_wrap):
            total.assign(tf.zeros_like(total))
        self._snapshots.assign(0)
        self._length.assign(0)

    def ready(self) -> Tensor:
        """Return a boolean scalar: true after the first snapshot."""
        return self._snapshots > 0

    def averages(self) -> Sequence[Tensor] | None:
        """Return the means in the order of the weights."""
        return [tf.convert_to_tensor(mean) for mean in self._means]

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the state by its name in the checkpoint."""
        lists = {"ring": self._ring, "sum": self._sum, "since_wrap": self._since_wrap, "mean": self._means}
        numbered = {
            f"{name}/{i}": variable for name, variables in lists.items() for i, variable in enumerate(variables)
        }
        return {"taken": self._snapshots, "held": self._length, **numbered}


def _zeros(shape: tuple[int, ...], dtype: str) -> TfVariable:
    variable: TfVariable = tf.Variable(tf.zeros(shape, dtype), trainable=False)
    return variable
