"""Further experts for numbers, which the configuration names: seasonal values and forecasts made upstream.

Each forecast, and the seasonal values together, are mixed with the mixture of all before them, as if that were one
expert. So the weights among the others do not suffer from experts that are often far better, and sometimes asleep: next
to those, all others would be equally bad.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from learnd.core.protocols import Network
from learnd.core.tensors import Tensor, TfVariable
from learnd.learners.rows import read_rows, write_row
from learnd.learners.seasons import Seasons
from learnd.learners.weighting import FADING, Resemblance, Sample, Weights, fading_error, relative_losses, zeros


@dataclass(frozen=True, slots=True)
class FurtherSpec:
    """The further experts that are asleep together: either one forecast made upstream, or seasonal values.

    Attributes
    ----------
    upstream : its name; empty: seasonal values
    column : the number of the forecast among all that are made upstream
    periods : rows of a key from a seasonal value to its repetition
    corrected : add each corrected by its last error; False where that is not known in time, as in a long forecast
    horizon : number of steps ahead of a forecast; 0: the target is a field of the record
    keys : number of places for keys
    """

    upstream: str = ""
    column: int = 0
    periods: Sequence[int] = ()
    corrected: bool = True
    horizon: int = 0
    keys: int = 1


class FurtherMixture(NamedTuple):
    """The mixture with the further experts, and what is needed to learn from it.

    Attributes
    ----------
    mixed : (1, outputs), a core output
    experts : (1 + experts, outputs), the others' mixture first
    awake : (1 + experts,), True where an expert has an answer
    answers : (answers, outputs), the answers before their correction, raw; 0 where there is none
    memory : what is remembered of the sample's key
    """

    mixed: Tensor
    experts: Tensor
    awake: Tensor
    answers: Tensor
    memory: Tensor


class FurtherExperts:
    """The mixture of the others' mixture with further experts. Traced."""

    def __init__(self, network: Network, spec: FurtherSpec) -> None:
        self._network = network
        self._spec = spec
        outputs = network.outputs_per_row
        answers = (spec.upstream,) if spec.upstream else tuple(f"season_{period}" for period in spec.periods)
        corrections = tuple(f"{name}_corrected" for name in answers) if spec.corrected else ()
        self.names: Sequence[str] = (*answers, *corrections)
        self._answers = len(answers)
        self._seasons: Seasons | None = None
        if spec.periods:
            width = outputs // spec.horizon if spec.horizon else outputs
            self._seasons = Seasons(spec.periods, keys=spec.keys, width=width, horizon=spec.horizon)
        self._weights = Weights(1 + len(self.names))
        self._memory = zeros((spec.keys, len(answers) * outputs + 1), tf.float64)
        """One row per key: the last errors of all answers, and the number of rows."""
        self._resemblance = Resemblance(network, len(answers))
        self._error = tf.Variable(1.0, trainable=False)
        self._samples = tf.Variable(0, dtype=tf.int64, trainable=False)

    def weights(self) -> Tensor:
        """Return the weights of the others' mixture and of each further expert, 0 before its first answer."""
        nothing = tf.one_hot(0, 1 + len(self.names))
        weights: Tensor = tf.where(self._samples > 0, self._weights.value(), nothing)
        return weights

    def predict(self, sample: Sample, others: Tensor) -> FurtherMixture:
        """Return the mixture with *others*, the mixture of all other experts, a core output of shape (1, outputs)."""
        memory = read_rows(self._memory, sample.slot)
        answers, known = self._known_answers(sample, memory)
        x = tf.repeat(sample.x, self._answers, axis=0)
        experts = [others, self._network.core_targets(x, answers)]
        awake = [tf.ones((1,), tf.bool), known]
        if self._spec.corrected:
            corrected = answers + self._resemblance.ratio() * self._last_errors(memory)
            experts.append(self._network.core_targets(x, corrected))
            awake.append(known)
        is_awake, outputs = tf.concat(awake, axis=0), tf.concat(experts, axis=0)
        mixed = tf.reduce_sum(outputs * self._weights.value(is_awake)[:, None], axis=0, keepdims=True)
        return FurtherMixture(mixed, outputs, is_awake, answers, memory)

    def _known_answers(self, sample: Sample, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the raw answers, 0 where there is none, and a mask of those that there are."""
        if self._seasons is not None:
            answers, known = self._seasons.values(sample.slot, _rows_of(memory), self._stored(sample))
        else:
            outputs = self._network.outputs_per_row
            first = self._spec.column * outputs
            answers = sample.upstream[:, first : first + outputs]
            known = tf.reduce_all(tf.math.is_finite(answers), axis=1)
        return tf.where(known[:, None], answers, tf.zeros_like(answers)), known

    def _stored(self, sample: Sample) -> Tensor:
        """Return the values whose seasons are remembered: the newest reading of a forecast, otherwise the target."""
        values: Tensor = sample.x[:, -1, :] if self._spec.horizon else sample.y
        return values

    def _last_errors(self, memory: Tensor) -> Tensor:
        errors: Tensor = tf.reshape(memory[:, :-1], (self._answers, self._network.outputs_per_row))
        return errors

    def learn(self, sample: Sample, mixture: FurtherMixture) -> None:
        """Update the weights and what is remembered of the key."""
        target = self._network.core_targets(sample.x, sample.y)
        squares = tf.reduce_mean(tf.square(mixture.experts - target), axis=1)
        samples = tf.cast(self._samples, tf.float32)
        # No larger than the others' own: an absurd forecast in the first rows would hide all differences for long.
        own = tf.minimum(tf.reduce_mean(tf.square(mixture.mixed - target)), tf.gather(squares, 0))
        # While all are asleep, nothing is compared.
        compared = tf.reduce_any(mixture.awake[1:])
        before = tf.convert_to_tensor(self._error)
        error = tf.where(compared, fading_error(before, own, samples), before)
        self._weights.learn(relative_losses(squares, error), mixture.awake)
        self._error.assign(error)
        known = mixture.awake[1 : 1 + self._answers, None]
        errors = tf.cast(sample.y, tf.float64) - mixture.answers
        errors = tf.where(known, errors, tf.zeros_like(errors))
        if self._spec.corrected:
            share = tf.cast(1.0 / tf.minimum(samples + 1.0, FADING), tf.float64)
            outputs = mixture.experts[1 : 1 + self._answers]
            self._resemblance.learn(sample, mixture.answers, outputs, errors, self._last_errors(mixture.memory), share)
        if self._seasons is not None:
            self._seasons.store(sample.slot, _rows_of(mixture.memory), self._stored(sample), mixture.answers)
        row = [tf.reshape(errors, (1, -1)), mixture.memory[:, -1:] + 1.0]
        write_row(self._memory, sample.slot, tf.concat(row, axis=1), mixture.memory)
        self._samples.assign_add(tf.cast(compared, tf.int64))

    def variables(self) -> Mapping[str, TfVariable]:
        """Return the variables for the checkpoint by name."""
        parts = {"resemblance": self._resemblance.variables()}
        if self._seasons is not None:
            parts["seasons"] = self._seasons.variables()
        return {
            "weights": self._weights.logarithms,
            "memory": self._memory,
            "error": self._error,
            "samples": self._samples,
            **{f"{part}/{name}": variable for part, owned in parts.items() for name, variable in owned.items()},
        }


def _rows_of(memory: Tensor) -> Tensor:
    """Return the number of learned rows of the key that *memory* belongs to, int64, shape ()."""
    rows: Tensor = tf.cast(memory[0, -1], tf.int64)
    return rows
