"""Online standardisation as a layer, so that an exported model takes raw values."""

from typing import Protocol

import keras
import tensorflow as tf

from learnd.core.tensors import Tensor, Variable

CLIP = 10.0
"""Limit of standardised values, in standard deviations: one broken reading must not derail the model."""
_TINY_VARIANCE = 1e-24
_KNOWN_AFTER = 30.0
"""Number of samples after which the spread counts as known."""


class Scaler(Protocol):
    """A layer that scales raw inputs for the core."""

    name: str

    def __call__(self, x: Tensor) -> Tensor: ...

    def observe(self, x: Tensor) -> None: ...

    def symbolic(self, x: Tensor) -> Tensor: ...

    def described(self) -> dict[str, object]: ...


class OnlineStandardizer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Standardisation by the mean and the standard deviation of all values so far, element by element.

    The running moments are float64 and follow Welford (1962), in the batch form of Chan, Golub and LeVeque (1979), so
    that they stay exact over years. Serving uses float32 copies of them. An element has no spread until it has had two
    different values: until then it standardises to 0, and is restored to its mean.
    """

    def __init__(self, shape: tuple[int, ...], *, name: str) -> None:
        super().__init__(trainable=False, name=name)
        self._shape = shape
        self.count = self._weight("count", (), "float64")
        self.mean = self._weight("mean", shape, "float64")
        self.squares = self._weight("squares", shape, "float64")
        self.shift = self._weight("shift", shape, "float32")
        self.scale = self._weight("scale", shape, "float32")
        self.spread = self._weight("spread", shape, "float32")
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], dtype: str) -> Variable:
        weight: Variable = self.add_weight(name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False)
        return weight

    def call(self, x: Tensor) -> Tensor:
        """Standardise raw *x*, float32, shape (n, *shape)."""
        standardised: Tensor = tf.clip_by_value((x - self.shift.value) * self.scale.value, -CLIP, CLIP)
        return standardised

    def restore(self, z: Tensor) -> Tensor:
        """Bring standardised *z* back to raw units."""
        return z * self.spread.value + self.shift.value

    def described(self) -> dict[str, object]:
        """Describe the scaling for a manifest."""
        return {"kind": "online", "mean": self.shift.numpy().tolist(), "spread": self.spread.numpy().tolist()}

    def symbolic(self, x: Tensor) -> Tensor:
        """Return `call` as Keras' own layers, with the current scales as constants."""
        centred = keras.layers.Rescaling(1.0, (-self.shift.numpy()).tolist(), name=f"{self.name}_centred")(x)
        scaled = keras.layers.Rescaling(self.scale.numpy().tolist(), name=f"{self.name}_scaled")(centred)
        clipped: Tensor = keras.ops.clip(scaled, -CLIP, CLIP)
        return clipped

    def symbolic_restore(self, z: Tensor) -> Tensor:
        """Return `restore` as one of Keras' own layers, with the current scales as constants."""
        spread, shift = self.spread.numpy().tolist(), self.shift.numpy().tolist()
        restored: Tensor = keras.layers.Rescaling(spread, shift, name=f"{self.name}_restored")(z)
        return restored

    def _bounded(self, x: Tensor) -> Tensor:
        """Return *x* within `CLIP` standard deviations of the mean, once the spread is known.

        Otherwise a single absurd value would stay in the moments forever. A lasting change still takes effect, because
        each value at the limit widens it.
        """
        reach: Tensor = CLIP * tf.cast(self.spread.value, tf.float64)
        known = (self.count.value >= _KNOWN_AFTER) & (reach > 0.0)
        mean = self.mean.value
        bounded: Tensor = tf.where(known, tf.clip_by_value(x, mean - reach, mean + reach), x)
        return bounded

    def observe(self, x: Tensor) -> None:
        """Update the moments with x, shape (n, *shape). Traced inside the compiled update."""
        x = self._bounded(tf.cast(x, tf.float64))
        rows = tf.cast(tf.shape(x)[0], tf.float64)
        before = self.count.value
        count = before + rows
        batch_mean = tf.reduce_mean(x, axis=0)
        distance = batch_mean - self.mean.value
        mean = self.mean.value + distance * rows / count
        within = tf.reduce_sum(tf.square(x - batch_mean), axis=0)
        squares = self.squares.value + within + tf.square(distance) * before * rows / count
        variance = squares / count
        known = variance > _TINY_VARIANCE
        spread = tf.sqrt(variance)
        self.count.assign(count)
        self.mean.assign(mean)
        self.squares.assign(squares)
        self.shift.assign(tf.cast(mean, tf.float32))
        self.scale.assign(tf.cast(tf.where(known, 1.0 / tf.where(known, spread, 1.0), 0.0), tf.float32))
        self.spread.assign(tf.cast(tf.where(known, spread, 0.0), tf.float32))


class Observer(OnlineStandardizer):
    """Observation of the moments without scaling: the check of exports needs the spread of the targets."""

    def call(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return x

    def restore(self, z: Tensor) -> Tensor:
        """Return *z*."""
        return z

    def symbolic(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return x

    def symbolic_restore(self, z: Tensor) -> Tensor:
        """Return *z*."""
        return z

    def described(self) -> dict[str, object]:
        """Describe the scaling for a manifest."""
        return {"kind": "none", "mean": None, "spread": None}


class Unscaled(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """No scaling, for the inputs of models that were trained on raw numbers."""

    def call(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return x

    def symbolic(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return x

    def observe(self, x: Tensor) -> None:
        """Do nothing: there is nothing to learn."""

    def described(self) -> dict[str, object]:
        """Describe the scaling for a manifest."""
        return {"kind": "none", "mean": None, "spread": None}
