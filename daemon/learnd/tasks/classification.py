"""One of several classes from features."""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from learnd.tasks.network import Network, NetworkSpec, scaler

_NEVER = -1e9
_SMALLEST = 1e-7
_RARE = 0.1
"""The standard deviation of what happens once in a hundred times."""


class ClassificationNetwork(Network):
    """Predicts the class; targets are class numbers, shape (n, 1).

    Serves ``probabilities``, shape (n, classes). The core gives one number per class, or a single one for two
    classes, as logits or as probabilities. It may have outputs for classes that nobody has seen yet: they are masked,
    get no gradient, and so are worth nothing until a label of theirs comes; the prediction of that very sample does
    not know of them.
    """

    def __init__(self, core: keras.Model, spec: NetworkSpec) -> None:
        super().__init__(core, spec)
        self._single = spec.single
        self._probabilities = spec.probabilities
        self._custom_loss = spec.loss
        self.inputs_scaler = scaler(spec.row_shape, online=spec.scale_inputs, name="inputs")
        self.known = self.add_weight(
            name="known_classes",
            shape=(),
            dtype="int32",
            trainable=False,
            initializer=keras.initializers.Constant(2 if spec.single else spec.classes),
        )
        self._final: int | None = None
        self.complete()

    def call(self, x: Any) -> Mapping[str, Any]:
        z = self.answer(x, training=False)
        if self._final is None:
            known = self.known.value
            return {"probabilities": tf.exp(self._log_probabilities(z, known))[:, :known]}
        # Left out rather than masked: in int8, where a tensor has one scale, the mask would drown all other logits.
        if not self._single and self._final < self.outputs_per_row:
            z = tf.slice(z, [0, 0], [-1, self._final])
        return {"probabilities": tf.exp(self._log_probabilities(z, None))}

    def fix_output_count(self) -> None:
        self._final = int(self.known.numpy())

    def core_inputs(self, x: Any) -> Any:
        return self.inputs_scaler(x)

    def core_targets(self, x: Any, y: Any) -> Any:
        return y

    def predict_and_loss(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        z = self.answer(x, training=training)
        predictions = tf.exp(self._log_probabilities(z, self.known.value))
        return predictions, self._entropies(self._log_probabilities(z, self._known_with(y)), y)

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        return self._entropies(tf.math.log(tf.maximum(predictions, _SMALLEST)), y)

    def least_spreads(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"probabilities": _RARE}

    def symbolic(self, x: Any, core: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        z = core(self.inputs_scaler.symbolic(x))
        if self._single:
            one = z if self._probabilities else keras.ops.sigmoid(z)
            both = keras.ops.concatenate([1.0 - one, one], axis=1)
        else:
            z = z[:, : int(self.known.numpy())]
            both = z if self._probabilities else keras.ops.softmax(z)
        return {"probabilities": both}, {"probabilities": "sparse_categorical_crossentropy"}, {"probabilities": 1.0}

    def observe(self, x: Any, y: Any) -> None:
        self.inputs_scaler.observe(x)
        self.known.assign(self._known_with(y))

    def _known_with(self, y: Any) -> Any:
        """How many classes there are once *y* was seen: numbers are given in the order of appearance."""
        return tf.maximum(self.known.value, tf.cast(tf.reduce_max(y), tf.int32) + 1)

    def _entropies(self, log_probabilities: Any, y: Any) -> Any:
        classes = tf.cast(y[:, 0], tf.int32)
        chosen = tf.one_hot(classes, self.outputs_per_row)
        if self._custom_loss is not None:
            return self._custom_loss(chosen, tf.exp(log_probabilities))
        return -tf.reduce_sum(tf.where(chosen > 0.0, log_probabilities, 0.0), axis=1)

    def _log_probabilities(self, z: Any, known: Any) -> Any:
        """Of the classes up to *known*, those beyond it masked; None: all that *z* has are."""
        if self._single:
            return self._of_two(z)
        if self._probabilities:
            return self._masked(tf.math.log(tf.maximum(z, _SMALLEST)), known)
        return tf.nn.log_softmax(self._masked(z, known), axis=1)

    def _masked(self, z: Any, known: Any) -> Any:
        return z if known is None else tf.where(tf.range(self.outputs_per_row) >= known, _NEVER, z)

    def _of_two(self, z: Any) -> Any:
        if self._probabilities:
            both = tf.concat([1.0 - z, z], axis=1)
            return tf.math.log(tf.maximum(both, _SMALLEST))
        return tf.concat([tf.math.log_sigmoid(-z), tf.math.log_sigmoid(z)], axis=1)
