"""The task of predicting one of several classes."""

from collections.abc import Mapping

import keras
import tensorflow as tf

from learnd.core.protocols import Evaluated
from learnd.core.tensors import KerasModel, NamedTensors, Tensor
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.network import NetworkSpec, Symbolic, TaskNetwork, scaler

_MASKED = -1e9
"""The logit of a class that has not appeared yet."""
_SMALLEST = 1e-7
_RARE = 0.1
"""The standard deviation of an event of probability 1 %."""


class ClassificationNetwork(TaskNetwork):
    """The network for classes. Targets are class numbers, shape (n, 1).

    Serves ``probabilities``, shape (n, classes). The core gives one number per class, or a single one for two classes,
    as logits or as probabilities. It may have outputs for classes that have not appeared yet. They are masked and get
    no gradient until their first label; the prediction of that sample still excludes them.
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self._single = spec.single
        self._probabilities = spec.probabilities
        self._custom_loss = spec.loss
        self.inputs_scaler = scaler(
            spec.reading_shape, online=spec.scale_inputs, name="inputs", indicators=spec.indicators
        )
        self.class_count = self.add_weight(
            name="known_classes",
            shape=(),
            dtype="int32",
            trainable=False,
            initializer=keras.initializers.Constant(2 if spec.single else spec.classes),
        )
        self._final: int | None = None
        self.complete()

    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {"probabilities": (int(self._known().numpy()),)}

    def call(self, x: Tensor) -> NamedTensors:
        z = self.answer(x, training=False)
        if self._final is None:
            known = self._known()
            return {"probabilities": tf.exp(self._log_probabilities(z, known))[:, :known]}
        # Cut off rather than masked: in int8 a tensor has one scale, so the mask would round all other logits to zero.
        if not self._single and self._final < self.outputs_per_row:
            z = tf.slice(z, [0, 0], [-1, self._final])
        return {"probabilities": tf.exp(self._log_probabilities(z, None))}

    def fix_output_count(self) -> None:
        self._final = int(self._known().numpy())

    def core_inputs(self, x: Tensor) -> Tensor:
        return self.with_seasons(self.inputs_scaler(self.readings(x)), x)

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        return tf.cast(y, tf.float32)  # type: ignore[no-any-return]  # TensorFlow has no types

    def predict_and_loss(self, x: Tensor, y: Tensor, *, training: bool) -> Evaluated:
        return self.evaluate(x, y, self.answer(x, training=training))

    def evaluate(self, x: Tensor, y: Tensor, z: Tensor) -> Evaluated:
        predictions = tf.exp(self._log_probabilities(z, self._known()))
        losses = self.objective(y, z)
        return Evaluated(predictions, losses, self._one_hot(y) - predictions, losses)

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        return self._entropies(self._log_probabilities(z, self._known_with(targets)), targets)

    def losses_of(self, predictions: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self._entropies(tf.math.log(tf.maximum(predictions, _SMALLEST)), y)

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        return {"probabilities": _RARE}

    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        z = core(self.with_symbolic_seasons(self.inputs_scaler.symbolic(self.readings(x)), x))
        if self._single:
            one = z if self._probabilities else keras.ops.sigmoid(z)
            both = keras.ops.concatenate([1.0 - one, one], axis=1)
        else:
            z = z[:, : int(self._known().numpy())]
            both = z if self._probabilities else keras.ops.softmax(z)
        return {"probabilities": both}, {"probabilities": "sparse_categorical_crossentropy"}, {"probabilities": 1.0}

    def observe(self, x: Tensor, y: Tensor) -> None:
        self.inputs_scaler.observe(self.readings(x))
        assert self.class_count is not None
        self.class_count.assign(self._known_with(y))

    def _known(self) -> Tensor:
        """Return the number of known classes."""
        assert self.class_count is not None
        return self.class_count.value

    def _known_with(self, y: Tensor) -> Tensor:
        """Return the number of known classes after *y*: numbers are assigned in order of appearance."""
        known: Tensor = tf.maximum(self._known(), tf.cast(tf.reduce_max(y), tf.int32) + 1)
        return known

    def _one_hot(self, y: Tensor) -> Tensor:
        rows: Tensor = tf.one_hot(tf.cast(y[:, 0], tf.int32), self.outputs_per_row)
        return rows

    def _entropies(self, log_probabilities: Tensor, y: Tensor) -> Tensor:
        chosen = self._one_hot(y)
        if self._custom_loss is not None:
            return self._custom_loss(chosen, tf.exp(log_probabilities))
        entropies: Tensor = -tf.reduce_sum(tf.where(chosen > 0.0, log_probabilities, 0.0), axis=1)
        return entropies

    def _log_probabilities(self, z: Tensor, known: Tensor | None) -> Tensor:
        """Return log probabilities. Classes from number *known* on are masked; None: all outputs of *z* are classes."""
        if self._single:
            return self._of_two(z)
        if self._probabilities:
            return self._masked(tf.math.log(tf.maximum(z, _SMALLEST)), known)
        logs: Tensor = tf.nn.log_softmax(self._masked(z, known), axis=1)
        return logs

    def _masked(self, z: Tensor, known: Tensor | None) -> Tensor:
        masked: Tensor = z if known is None else tf.where(tf.range(self.outputs_per_row) >= known, _MASKED, z)
        return masked

    def _of_two(self, z: Tensor) -> Tensor:
        logs: Tensor
        if self._probabilities:
            logs = tf.math.log(tf.maximum(tf.concat([1.0 - z, z], axis=1), _SMALLEST))
        else:
            logs = tf.concat([tf.math.log_sigmoid(-z), tf.math.log_sigmoid(z)], axis=1)
        return logs
