"""The averaged model beside the live one: its state, and what it answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from learnd.core.types import Float32Array, FrozenLosses

STATISTICS_ROWS = 512
"""Of so many of the newest rows the averaged network's batch statistics are taken: 4 % of noise in a variance."""


def as_arrays(variables: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """The values of *variables* now, which never change afterwards; nothing is copied (see `AveragedModel.weights`)."""
    return {name: tf.convert_to_tensor(variable).numpy() for name, variable in variables.items()}


class AveragedModel:
    """The network under averaged weights, without disturbing the learner.

    Batch-normalisation statistics are not averaged: the mean of several networks' statistics is not the statistics of
    the mean network. At every snapshot they are taken anew, as stochastic weight averaging asks for (Izmailov et al.,
    2018, section 3.2): by one pass of the newest rows through the averaged network. For such networks only, those rows
    are kept, and are in the checkpoint.

    Parameters
    ----------
    network : see `learnd.tasks.network.Network`
    averager : see `learnd.core.protocols.Averager`, built for the network's averaged weights
    batch_rows : rows per update
    """

    def __init__(self, network: Any, averager: Any, *, batch_rows: int = 1) -> None:
        self._network = network
        self._averager = averager
        self._averages = averager.averages() is not None
        self._statistics = [
            tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in network.statistics() if self._averages
        ]
        size = max(STATISTICS_ROWS, batch_rows) if self._statistics else 0
        self._newest = tf.Variable(tf.zeros((size, *network.row_shape)), trainable=False)
        self._seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._variables = network.served_state()
        x_spec = tf.TensorSpec((None, *network.row_shape), tf.float32)
        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self._variables]
        self._answer = tf.function(self._with_state, autograph=False, input_signature=[x_spec, specs])
        y_spec = tf.TensorSpec((None, None), tf.float32)
        self._judge = tf.function(self._judged_with_state, autograph=False, input_signature=[x_spec, y_spec, specs])

    def losses(self, x: Any, y: Any, live_losses: Any) -> Any:
        """The averaged network's losses, shape (n,); the live ones while there is no average. Traced."""
        if not self._averages:
            return live_losses
        with keras.StatelessScope(state_mapping=self._mapping()):
            predictions, _ = self._network.predict_and_loss(x, y, training=False)
        losses = self._network.losses_of(predictions, x, y)
        return tf.where(self._averager.ready(), losses, live_losses)

    def pairs(self) -> list[tuple[Any, Any]]:
        """Each averaged variable with its average; empty without averaging. Traced."""
        averages = self._averager.averages()
        return [] if averages is None else list(zip(self._network.averaged_weights(), averages, strict=True))

    def ready(self) -> Any:
        """A boolean tensor: whether there is an average yet. Traced."""
        return self._averager.ready()

    @property
    def every_samples(self) -> int | None:
        """Samples between two snapshots; None: never."""
        every: int | None = self._averager.every_samples
        return every

    def observe(self, x: Any) -> None:
        """Keep one update's rows, if statistics will be taken of them. Traced."""
        if not self._statistics:
            return
        size = self._newest.shape[0]
        slots = (self._seen + tf.range(x.shape[0], dtype=tf.int64)) % size
        self._newest.scatter_nd_update(slots[:, None], x)
        self._seen.assign_add(x.shape[0])

    def snapshot(self, due: Any) -> None:
        """Take a snapshot of the weights when the boolean tensor *due* is true. Traced."""
        self._averager.observe(due)
        if not self._statistics:
            return
        size = self._newest.shape[0]
        # Until the rows are all there, those that are stand for the rest.
        rows = tf.range(size, dtype=tf.int64) % tf.clip_by_value(self._seen, 1, size)
        taken = self._network.statistics_of(tf.gather(self._newest, rows), self.pairs())
        for own, new in zip(self._statistics, taken, strict=True):
            own.assign(tf.where(due, new, own))

    def _mapping(self) -> list[tuple[Any, Any]]:
        own = [tf.convert_to_tensor(statistic) for statistic in self._statistics]
        return [*self.pairs(), *zip(self._network.statistics(), own, strict=True)]

    def variables(self) -> Mapping[str, Any]:
        """By name, for the checkpoint."""
        if not self._statistics:
            return {}
        named = {f"statistics/{i}": variable for i, variable in enumerate(self._statistics)}
        return {**named, "newest": self._newest, "seen": self._seen}

    def weights(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The served state now, in the order of `Network.served_state`; the live weights before the first snapshot.

        TensorFlow gives a changed variable a new buffer while the old one is referenced, so nothing is copied here
        and what is returned never changes (a test holds TensorFlow to that).
        """
        values = [tf.convert_to_tensor(v.value) for v in self._variables]
        if self._averages and bool(self._averager.ready()):
            own = [*(average for _, average in self.pairs()), *map(tf.convert_to_tensor, self._statistics)]
            values[: len(own)] = own
        return tuple(tensor.numpy() for tensor in values)

    def predict(self, x: Float32Array, weights: Sequence[Any]) -> Mapping[str, Float32Array]:
        """What the network with the state *weights* serves for raw x, (n, *row_shape). Any thread may call it."""
        answers = self._answer(x, [tf.constant(w) for w in weights])
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def frozen_losses(self, weights: Sequence[Any], x: Float32Array, y: Float32Array) -> FrozenLosses:
        """The losses of the network with the state *weights*, on the scale of the losses of the day.

        Tried with *x* and *y* at once. On any thread.
        """
        held = [tf.constant(w) for w in weights]

        def losses(x: Float32Array, y: Float32Array) -> Float32Array:
            judged: Float32Array = self._judge(x, y, held).numpy()
            return judged

        losses(x, y)
        return losses

    def _judged_with_state(self, x: Any, y: Any, weights: Sequence[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
            predictions, _ = self._network.predict_and_loss(x, y, training=False)
        # On the live scale: that of when they were published may be a fraction of what the target spreads by now.
        return self._network.losses_of(predictions, x, y)

    def _with_state(self, x: Any, weights: Sequence[Any]) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
            return dict(self._network.call(x))
