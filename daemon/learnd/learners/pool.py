"""Experts, and the weights of their mixture: exponential weights with a fixed share (Herbster and Warmuth, 1998).

Each expert's weight falls with its recent losses, on a scale that follows the mixture's own error. The fixed share lets
an expert come back quickly when the stream changes. All of it is traced.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

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
_FORGETTING = 0.998
_SMOOTHING = 0.5
_SMALLEST = 1e-9
_LARGEST_TABLE = 512
"""Largest number of classes with a table of which class follows which."""


class Sample(NamedTuple):
    """One sample, as the pool sees it.

    Attributes
    ----------
    x, y : raw input and target, shapes (1, *row_shape) and (1, targets)
    slot : (1,), int32, the place of the sample's key
    outputs : (members, outputs), the core outputs of the members, of live and of averaged weights
    """

    x: Tensor
    y: Tensor
    slot: Tensor
    outputs: Tensor


class Mixture(NamedTuple):
    """The prediction of the mixture, and what is needed to learn from it.

    Attributes
    ----------
    predictions : (1, outputs), raw, float64
    losses, residuals : (1,) and (1, outputs)
    member_losses : (members,)
    member_predictions : (members, outputs), raw
    experts : (experts, outputs)
    memory : what is remembered of the sample's key
    """

    predictions: Tensor
    losses: Tensor
    residuals: Tensor
    member_losses: Tensor
    member_predictions: Tensor
    experts: Tensor
    memory: Tensor


class Pool(Protocol):
    """A mixture of experts for one kind of task."""

    @property
    def names(self) -> Sequence[str]:
        """Return the names of the experts, in the order of `weights`."""
        ...

    def predict(self, sample: Sample) -> Mixture: ...

    def learn(self, sample: Sample, mixture: Mixture) -> Tensor:
        """Update the weights; return the members' capped losses, shape (members,)."""
        ...

    def weights(self) -> Tensor: ...

    def variables(self) -> Mapping[str, TfVariable]: ...


class _Weights:
    """The weights of *count* experts, which start equal."""

    def __init__(self, count: int) -> None:
        self.logarithms = tf.Variable(tf.zeros(count), trainable=False)

    def value(self) -> Tensor:
        """Return the weights of the mixture.

        Without the part that is spread evenly: it is for coming back. An expert far from the truth must not have it.
        """
        count = float(self.logarithms.shape[0])
        own = tf.maximum(tf.nn.softmax(self.logarithms) - _FLOOR * SHARE / count, 0.0)
        total = tf.reduce_sum(own)
        weights: Tensor = tf.where(total > 0.0, own / tf.maximum(total, _SMALLEST), 1.0 / count)
        return weights

    def learn(self, losses: Tensor) -> None:
        """Update the weights by the capped losses of all experts."""
        shifted = tf.nn.softmax(self.logarithms - ETA * losses)
        shared = (1.0 - SHARE) * shifted + SHARE / float(losses.shape[0])
        self.logarithms.assign(tf.math.log(shared))


class NumberPool:
    """Mixture for numbers.

    Besides the members' outputs, the experts are: each output corrected by the member's last error for the same key, as
    far as successive errors resemble each other; the last value; and the running mean.

    Parameters
    ----------
    members : names of the members
    corrected : add the corrected outputs; False where the last error is not known in time, as in a long forecast
    last_in_window : the last value is the window's newest reading, rather than the key's last target
    keys : number of places for keys
    """

    def __init__(
        self,
        network: Network,
        members: Sequence[str],
        *,
        corrected: bool,
        last_in_window: bool,
        horizon: int,
        keys: int,
    ) -> None:
        self._network = network
        self._members = len(members)
        self._corrected = corrected
        self._last_in_window = last_in_window
        self._horizon = horizon
        corrections = tuple(f"{name}_corrected" for name in members) if corrected else ()
        self.names: Sequence[str] = (*members, *corrections, "last_value", "mean")
        self._weights = _Weights(len(self.names))
        outputs = network.outputs_per_row
        # One variable for all that is remembered, read once and written once: more would be copied at every sample.
        self._memory = _variable((keys, (1 + len(members)) * outputs + 1), tf.float64)
        """One row per key: its last target, the members' last errors, and 1 once there are any."""
        self._products = _variable((len(members), outputs), tf.float64)
        self._squares = _variable((len(members), outputs), tf.float64)
        self._error = tf.Variable(1.0, trainable=False)
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)

    def weights(self) -> Tensor:
        return self._weights.value()

    def predict(self, sample: Sample) -> Mixture:
        network, memory = self._network, tf.gather(self._memory, sample.slot)
        experts = tf.concat([sample.outputs, *self._others(sample, memory)], axis=0)
        mixed = tf.reduce_sum(experts * self.weights()[:, None], axis=0, keepdims=True)
        evaluated = network.evaluate(sample.x, sample.y, mixed)
        rows = self._repeated(sample)
        members = network.evaluate(rows.x, rows.y, sample.outputs)
        predictions = tf.cast(evaluated.predictions, tf.float64)
        return Mixture(
            predictions,
            evaluated.losses,
            evaluated.residuals,
            members.losses,
            members.predictions,
            experts,
            memory,
        )

    def _others(self, sample: Sample, memory: Tensor) -> list[Tensor]:
        network, mean = self._network, tf.zeros_like(sample.outputs[:1])
        others = []
        if self._corrected:
            ratio = tf.clip_by_value(self._products / tf.maximum(self._squares, 1e-12), 0.0, 1.0)
            corrected = self._raw(sample) + ratio * self._last_errors(memory)
            rows = self._repeated(sample)
            others.append(network.core_targets(rows.x, corrected))
        if self._last_in_window:
            # The newest reading, repeated for each step ahead.
            width = network.outputs_per_row // self._horizon
            newest = tf.tile(sample.x[:, -1, :width], (1, self._horizon))
            last = network.core_targets(sample.x, newest)
        else:
            last_target = memory[:, : network.outputs_per_row]
            last = tf.where(memory[:, -1:] > 0.0, network.core_targets(sample.x, last_target), mean)
        return [*others, last, mean]

    def _repeated(self, sample: Sample) -> Sample:
        """Return the sample with its input and target repeated for each member."""
        count = self._members
        return sample._replace(x=tf.repeat(sample.x, count, axis=0), y=tf.repeat(sample.y, count, axis=0))

    def _raw(self, sample: Sample) -> Tensor:
        rows = self._repeated(sample)
        return self._network.unscale(rows.x, tf.cast(sample.outputs, tf.float64))

    def _last_errors(self, memory: Tensor) -> Tensor:
        outputs = self._network.outputs_per_row
        errors: Tensor = tf.reshape(memory[:, outputs:-1], (self._members, outputs))
        return errors

    def learn(self, sample: Sample, mixture: Mixture) -> Tensor:
        network = self._network
        target = network.core_targets(sample.x, sample.y)
        squares = tf.reduce_mean(tf.square(mixture.experts - target), axis=1)
        samples = tf.cast(self._samples, tf.float32)
        error = tf.convert_to_tensor(self._error)
        own = tf.reduce_mean(tf.square(mixture.residuals))
        own = tf.where(samples > _SETTLED_SAMPLES, tf.minimum(own, _LARGEST_JUMP * error), own)
        share = 1.0 / tf.minimum(samples + 1.0, FADING)
        error = tf.maximum(error + share * (own - error), 1e-6)
        # Half absolute, half squared: squares alone let one jump decide, absolute errors alone follow drift too slowly.
        ratio = squares / error
        self._weights.learn(tf.minimum(0.5 * tf.sqrt(ratio) + 0.25 * ratio, CAP))
        self._error.assign(error)
        errors = tf.cast(sample.y, tf.float64) - mixture.member_predictions
        if self._corrected:
            self._learn_resemblance(sample, mixture, errors, tf.cast(share, tf.float64))
        row = [tf.cast(sample.y, tf.float64), tf.reshape(errors, (1, -1)), tf.ones((1, 1), tf.float64)]
        self._memory.scatter_nd_update(sample.slot[:, None], tf.concat(row, axis=1))
        self._samples.assign_add(1)
        limited: Tensor = tf.minimum(squares[: self._members], 25.0 * error)
        return limited

    def _learn_resemblance(self, sample: Sample, mixture: Mixture, errors: Tensor, share: Tensor) -> None:
        """Learn how far a member's error resembles its last one of the same key."""
        before = self._last_errors(mixture.memory)
        raw, rows = mixture.member_predictions, self._repeated(sample)
        now, then = (
            tf.cast(self._network.core_targets(rows.x, raw + e) - sample.outputs, tf.float64) for e in (errors, before)
        )
        now, then = (tf.clip_by_value(z, -_LARGEST_RATIO, _LARGEST_RATIO) for z in (now, then))
        self._products.assign(self._products + share * (now * then - self._products))
        self._squares.assign(self._squares + share * (tf.square(then) - self._squares))

    def variables(self) -> Mapping[str, TfVariable]:
        return {
            "weights": self._weights.logarithms,
            "memory": self._memory,
            "products": self._products,
            "squares": self._squares,
            "error": self._error,
            "samples": self._samples,
        }


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
        self._weights = _Weights(len(self.names))
        self._last = _variable((keys,), tf.int32)
        """The number of the key's last class, plus 1."""
        self._followers = _variable((classes if self._follows else 1, classes), tf.float32)
        self._frequencies = _variable((classes,), tf.float32)

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
        losses = tf.where(new, 0.0, tf.minimum(-tf.math.log(tf.maximum(of_class, _SMALLEST)), CAP))
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
    probabilities: Tensor = raised / tf.maximum(tf.reduce_sum(raised, axis=1, keepdims=True), _SMALLEST)
    return probabilities


def _variable(shape: tuple[int, ...], dtype: object) -> TfVariable:
    variable: TfVariable = tf.Variable(tf.zeros(shape, dtype), trainable=False)
    return variable
