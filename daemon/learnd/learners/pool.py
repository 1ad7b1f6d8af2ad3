"""The mixture of the experts: what all kinds have in common, and the mixture for numbers. All of it is traced."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.further_experts import FurtherExperts, FurtherMixture, FurtherSpec
from learnd.learners.rows import read_rows, write_row
from learnd.learners.weighting import (
    FADING,
    Resemblance,
    Sample,
    Weights,
    fading_error,
    relative_losses,
    zeros,
)


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
    further : the mixtures with further experts, each with the one before it
    """

    predictions: Tensor
    losses: Tensor
    residuals: Tensor
    member_losses: Tensor
    member_predictions: Tensor
    experts: Tensor
    memory: Tensor
    further: Sequence[FurtherMixture] = ()


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
    further : further experts, each of which is mixed with the mixture of all before it
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
        further: Sequence[FurtherSpec] = (),
    ) -> None:
        self._network = network
        self._members = len(members)
        self._corrected = corrected
        self._last_in_window = last_in_window
        self._horizon = horizon
        corrections = tuple(f"{name}_corrected" for name in members) if corrected else ()
        own = (*members, *corrections, "last_value", "mean")
        self._further = [FurtherExperts(network, spec) for spec in further]
        self.names: Sequence[str] = (*own, *(name for experts in self._further for name in experts.names))
        self._weights = Weights(len(own))
        outputs = network.outputs_per_row
        # One variable for all that is remembered, read once and written once: more would be copied at every sample.
        self._memory = zeros((keys, (1 + len(members)) * outputs + 1), tf.float64)
        """One row per key: its last target, the members' last errors, and 1 once there are any."""
        self._resemblance = Resemblance(network, len(members))
        self._error = tf.Variable(1.0, trainable=False)
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)

    def weights(self) -> Tensor:
        weights = self._weights.value()
        for experts in self._further:
            shares = experts.weights()
            weights = tf.concat([weights * shares[0], shares[1:]], axis=0)
        return weights

    def predict(self, sample: Sample) -> Mixture:
        network, memory = self._network, read_rows(self._memory, sample.slot)
        experts = tf.concat([sample.outputs, *self._others(sample, memory)], axis=0)
        mixed = tf.reduce_sum(experts * self._weights.value()[:, None], axis=0, keepdims=True)
        further = []
        for each in self._further:
            further.append(each.predict(sample, mixed))
            mixed = further[-1].mixed
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
            further,
        )

    def _others(self, sample: Sample, memory: Tensor) -> list[Tensor]:
        network, mean = self._network, tf.zeros_like(sample.outputs[:1])
        others = []
        if self._corrected:
            corrected = self._raw(sample) + self._resemblance.ratio() * self._last_errors(memory)
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
        residuals = mixture.further[0].experts[:1] - target if mixture.further else mixture.residuals
        error = fading_error(tf.convert_to_tensor(self._error), tf.reduce_mean(tf.square(residuals)), samples)
        self._weights.learn(relative_losses(squares, error))
        self._error.assign(error)
        for each, with_them in zip(self._further, mixture.further, strict=True):
            each.learn(sample, with_them)
        errors = tf.cast(sample.y, tf.float64) - mixture.member_predictions
        if self._corrected:
            share = tf.cast(1.0 / tf.minimum(samples + 1.0, FADING), tf.float64)
            before, raw = self._last_errors(mixture.memory), mixture.member_predictions
            self._resemblance.learn(sample, raw, sample.outputs, errors, before, share)
        row = [tf.cast(sample.y, tf.float64), tf.reshape(errors, (1, -1)), tf.ones((1, 1), tf.float64)]
        write_row(self._memory, sample.slot, tf.concat(row, axis=1), mixture.memory)
        self._samples.assign_add(1)
        limited: Tensor = tf.minimum(squares[: self._members], 25.0 * error)
        return limited

    def variables(self) -> Mapping[str, TfVariable]:
        further = [(i, name, v) for i, each in enumerate(self._further) for name, v in each.variables().items()]
        return {
            "weights": self._weights.logarithms,
            "memory": self._memory,
            **self._resemblance.variables(),
            "error": self._error,
            "samples": self._samples,
            **{f"further/{i}/{name}": variable for i, name, variable in further},
        }
