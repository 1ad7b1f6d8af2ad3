"""The averaged model: its state and its predictions, next to those of the live model."""

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from learnd.core.protocols import Averager, Evaluated, Network
from learnd.core.snapshot import FrozenLosses
from learnd.core.tensors import Array, NamedTensors, Tensor, TfVariable, Variable
from learnd.core.types import Float32Array, Float64Array, NamedArrays
from learnd.learners.replay import ReplayBuffer
from learnd.learners.standing import Standing

CANDIDATES = ("live", "average")
"""The weights of a single learner that may be published."""
AVERAGE = 1
STATISTICS_ROWS = 512
"""Number of newest rows from which batch statistics are computed: a variance then has 4 % of noise."""


def as_arrays(variables: Mapping[str, Variable | TfVariable]) -> dict[str, Array]:
    """Return the current values of *variables* as arrays that never change, without copying.

    See `AveragedModel.weights`.
    """
    return {name: tf.convert_to_tensor(variable).numpy() for name, variable in variables.items()}


class AveragedModel:
    """The network with averaged weights; using it does not disturb the learner.

    Batch-normalisation statistics are not averaged: the mean of several networks' statistics is not the statistics of
    the mean network. They are computed again at every snapshot, by one pass of the newest rows through the averaged
    network. Stochastic weight averaging requires this (Izmailov et al., 2018, section 3.2). For such networks only,
    those rows are in memory and in the checkpoint.

    Parameters
    ----------
    network : see `learnd.core.protocols.Network`
    averager : see `learnd.core.protocols.Averager`, built for the network's averaged weights
    batch_rows : number of rows per update
    always_average : predict with the average next to each update, even where the live weights are chosen
    """

    def __init__(
        self, network: Network, averager: Averager, *, batch_rows: int = 1, always_average: bool = False
    ) -> None:
        self._always_average = always_average
        self._network = network
        self._averager = averager
        self._averages = averager.averages() is not None
        self._statistics = [
            tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in network.statistics() if self._averages
        ]
        size = max(STATISTICS_ROWS, batch_rows) if self._statistics else 0
        self._newest = tf.Variable(tf.zeros((size, *network.row_shape), tf.float64), trainable=False)
        self._seen = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._variables = network.served_state()
        x_spec = tf.TensorSpec((None, *network.row_shape), tf.float32)
        specs = [tf.TensorSpec(v.shape, v.dtype) for v in self._variables]
        self.standing: Standing | None = None
        """Chooses between live and averaged weights; None: the average is served once there is one."""
        self._answer = tf.function(self._with_state, autograph=False, input_signature=[x_spec, specs])
        x64_spec = tf.TensorSpec((None, *network.row_shape), tf.float64)
        y64_spec = tf.TensorSpec((None, None), tf.float64)
        self._evaluate = tf.function(
            self._losses_with_state, autograph=False, input_signature=[x64_spec, y64_spec, specs]
        )

    def evaluate(self, x: Tensor, y: Tensor, live: Evaluated) -> tuple[Tensor, Tensor]:
        """Return the averaged network's losses and predictions; those of *live* while there is no average. Traced."""
        if not self._averages:
            return live.losses, live.predictions
        with keras.StatelessScope(state_mapping=self._mapping()):
            predictions = self._network.predict_and_loss(x, y, training=False).predictions
        ready = self._averager.ready() if self._always_average else self._serves_average()
        losses: Tensor = tf.where(ready, self._network.losses_of(predictions, x, y), live.losses)
        return losses, tf.where(ready, predictions, live.predictions)

    def _serves_average(self) -> Tensor:
        """Return a boolean tensor: True if averaged weights are served, rather than the live ones."""
        ready = self._averager.ready()
        if self.standing is None:
            return ready
        serves: Tensor = ready & (tf.convert_to_tensor(self.standing.choice) == AVERAGE)
        return serves

    def make_standing(self, newest: ReplayBuffer) -> Standing | None:
        """Make the choice between live and averaged weights, by the *newest* rows; None without averages."""
        if not self._averages:
            return None
        network = self._network
        variables = [*network.averaged_weights(), *network.statistics()]

        def candidates() -> list[list[Tensor]]:
            live = [tf.convert_to_tensor(v.value) for v in variables]
            averages = [average for _, average in self._mapping()]
            ready = self._averager.ready()
            return [live, [tf.where(ready, average, own) for average, own in zip(averages, live, strict=True)]]

        def losses(weights: Sequence[tuple[Variable, Tensor]], newest: ReplayBuffer) -> Tensor:
            x, y, _ = newest.rows()
            with keras.StatelessScope(state_mapping=list(weights)):
                return tf.reduce_mean(network.predict_and_loss(x, y, training=False).objective)  # type: ignore[no-any-return]  # TensorFlow has no types

        self.standing = Standing(CANDIDATES, candidates, variables, losses, newest, first=AVERAGE)
        return self.standing

    def pairs(self) -> list[tuple[Variable, Tensor]]:
        """Return pairs of an averaged variable and its average; none without averaging. Traced."""
        averages = self._averager.averages()
        return [] if averages is None else list(zip(self._network.averaged_weights(), averages, strict=True))

    def ready(self) -> Tensor:
        """Return a boolean tensor: True once there is an average. Traced."""
        return self._averager.ready()

    @property
    def every_samples(self) -> int | None:
        """Samples between two snapshots; None: never."""
        return self._averager.every_samples

    def observe(self, x: Tensor) -> None:
        """Store one update's rows, if statistics will be computed from them. Traced."""
        if not self._statistics:
            return
        size = self._newest.shape[0]
        slots = (self._seen + tf.range(x.shape[0], dtype=tf.int64)) % size
        self._newest.scatter_nd_update(slots[:, None], x)
        self._seen.assign_add(x.shape[0])

    def snapshot(self, due: Tensor) -> None:
        """Take a snapshot of the weights when the boolean tensor *due* is true. Traced."""
        self._averager.observe(due)
        if not self._statistics:
            return
        size = self._newest.shape[0]
        # Until there are enough rows, the existing ones are repeated.
        rows = tf.range(size, dtype=tf.int64) % tf.clip_by_value(self._seen, 1, size)
        statistics = self._network.statistics_of(tf.gather(self._newest, rows), self.pairs())
        for own, new in zip(self._statistics, statistics, strict=True):
            own.assign(tf.where(due, new, own))

    def _mapping(self) -> list[tuple[Variable, Tensor]]:
        own = [tf.convert_to_tensor(statistic) for statistic in self._statistics]
        return [*self.pairs(), *zip(self._network.statistics(), own, strict=True)]

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables by name, for the checkpoint."""
        if not self._statistics:
            return {}
        named = {f"statistics/{i}": variable for i, variable in enumerate(self._statistics)}
        return {**named, "newest": self._newest, "seen": self._seen}

    def weights(self) -> tuple[Array, ...]:
        """Return the served state, in the order of `Network.served_state`; live weights before the first snapshot.

        Nothing is copied. TensorFlow gives a variable a new buffer when it changes while the old one is referenced, so
        the arrays never change. A test checks that TensorFlow still does this.
        """
        values = [tf.convert_to_tensor(v.value) for v in self._variables]
        if self._averages and bool(self._serves_average()):
            own = [*(average for _, average in self.pairs()), *map(tf.convert_to_tensor, self._statistics)]
            values[: len(own)] = own
        return tuple(tensor.numpy() for tensor in values)

    def restart(self) -> None:
        """Let the average begin again. Between two compiled calls."""
        self._averager.restart()

    def losses_with(self, weights: Sequence[Array], x: Float64Array, y: Float64Array) -> Float32Array:
        """Return the losses of the network with the state *weights*, shape (n,), on the scale of the current losses."""
        losses: Float32Array = self._evaluate(x, y, [tf.constant(w) for w in weights])[0].numpy()
        return losses

    def predict(self, x: Float32Array, weights: Sequence[Array]) -> NamedArrays:
        """Return the outputs of the network with the state *weights* for raw x, (n, *row_shape). Thread-safe."""
        answers = self._answer(x, [tf.constant(w) for w in weights])
        return {name: tensor.numpy() for name, tensor in answers.items()}

    def frozen_losses(self, weights: Sequence[Array], x: Float64Array, y: Float64Array) -> FrozenLosses:
        """Return a function for the losses of the network with the state *weights*, on the scale of the current losses.

        It also returns the predictions. It is tried once with *x* and *y*. Any thread may call it.
        """
        constants = [tf.constant(w) for w in weights]

        def losses(x: Float64Array, y: Float64Array) -> tuple[Float32Array, Float32Array]:
            losses, predictions = self._evaluate(x, y, constants)
            return losses.numpy(), predictions.numpy()

        losses(x, y)
        return losses

    def _losses_with_state(self, x: Tensor, y: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
            # float32, as users of an export pass them; float64 would be scaled by the live moments.
            rows = tf.cast(x, tf.float32)
            predictions = self._network.predict_and_loss(rows, tf.cast(y, tf.float32), training=False).predictions
        # On the live scale, because the spread of the target may have changed a lot since the export.
        return self._network.losses_of(tf.cast(predictions, x.dtype), x, y), predictions

    def _with_state(self, x: Tensor, weights: Sequence[Tensor]) -> NamedTensors:
        with keras.StatelessScope(state_mapping=list(zip(self._variables, weights, strict=True))):
            return dict(self._network.call(x))
