"""Standardisation that is learned online, as a layer, so that an exported model takes raw values."""

from typing import Protocol

import keras
import tensorflow as tf

from learnd.core.tensors import Tensor, Variable

CLIP = 10.0
"""Standardised values beyond this are clipped: one broken reading must not throw the model off."""
_TINY_VARIANCE = 1e-24
_KNOWN_AFTER = 30.0
"""Samples after which the spread counts as known."""


class Scaler(Protocol):
    """A layer that brings raw inputs to the scale that the core sees."""

    name: str

    def __call__(self, x: Tensor) -> Tensor: ...

    def observe(self, x: Tensor) -> None: ...

    def symbolic(self, x: Tensor) -> Tensor: ...

    def described(self) -> dict[str, object]: ...


class OnlineStandardizer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Subtracts the mean and divides by the standard deviation of everything observed so far, element by element.

    The running moments are float64 and follow Welford (1962), in the batch form of Chan, Golub and LeVeque (1979), so
    that they stay exact over years; serving uses float32 copies of them. An element has no spread until two different
    values were seen: it standardises to 0, and restores to its mean.
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
        """Return `call` as Keras' own layers, with the present scales fixed."""
        centred = keras.layers.Rescaling(1.0, (-self.shift.numpy()).tolist(), name=f"{self.name}_centred")(x)
        scaled = keras.layers.Rescaling(self.scale.numpy().tolist(), name=f"{self.name}_scaled")(centred)
        clipped: Tensor = keras.ops.clip(scaled, -CLIP, CLIP)
        return clipped

    def symbolic_restore(self, z: Tensor) -> Tensor:
        """Return `restore` as a layer of Keras' own, with the present scales fixed."""
        spread, shift = self.spread.numpy().tolist(), self.shift.numpy().tolist()
        restored: Tensor = keras.layers.Rescaling(spread, shift, name=f"{self.name}_restored")(z)
        return restored

    def _bounded(self, x: Tensor) -> Tensor:
        """Return *x* within `CLIP` standard deviations of the mean, once the spread is known.

        A single absurd value would otherwise stay in the moments forever. A lasting change still gets through, because
        every value at the bound widens it.
        """
        reach: Tensor = CLIP * tf.cast(self.spread.value, tf.float64)
        known = (self.count.value >= _KNOWN_AFTER) & (reach > 0.0)
        mean = self.mean.value
        bounded: Tensor = tf.where(known, tf.clip_by_value(x, mean - reach, mean + reach), x)
        return bounded

    def observe(self, x: Tensor) -> None:
        """Take x, shape (n, *shape), into the moments. Traced inside the compiled update."""
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
    """Leaves numbers as they are, but observes their moments: the check of exports needs to know how targets vary."""

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
    """Replaces a standardiser for inputs of models that were trained on numbers as they are."""

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
