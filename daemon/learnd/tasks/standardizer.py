"""Online standardisation as a layer, so that an exported model takes raw values."""

from collections.abc import Sequence
from typing import Protocol

import keras
import tensorflow as tf

from learnd.core.tensors import Tensor, Variable
from learnd.tasks import moments
from learnd.tasks.moments import REACH, RING_ROWS, Moments

SOFT = 3.0
"""Standardised inputs beyond this are compressed by a logarithm: none is cut off, and none is so large that one broken
reading could derail the model."""
LARGEST = 1e4
"""Limit of standardised targets in a reported loss."""
_SMALLEST_SQUARE = 1e-24
_LARGEST_EXPONENT = 10.0


class Scaler(Protocol):
    """A layer that scales raw inputs for the core."""

    name: str

    def __call__(self, x: Tensor) -> Tensor: ...

    def observe(self, x: Tensor) -> None: ...

    def symbolic(self, x: Tensor) -> Tensor: ...

    def described(self) -> dict[str, object]: ...

    def served(self) -> Sequence[Variable]: ...


class _Float64Layer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer without trained weights that accepts float64. Keras would round it to float32 before it is centred."""

    def __init__(self, *, name: str) -> None:
        super().__init__(trainable=False, name=name, autocast=False)


class OnlineStandardizer(_Float64Layer):
    """Standardisation by a running centre and spread, element by element; see `learnd.tasks.moments`.

    The running moments are float64, and so is the difference from the centre if the input is: a reading of 1e9 +- 10
    would vanish in float32. Serving uses float32 copies. An element has no spread until it has had two different
    values: until then it standardises to 0, and is restored to its centre. So does a missing value (nan).

    Parameters
    ----------
    indicators : numbers of the features with an indicator, a further column that is 1 where the value is missing
    """

    soft = SOFT

    def __init__(self, shape: tuple[int, ...], *, name: str, indicators: Sequence[int] = ()) -> None:
        super().__init__(name=name)
        self._indicators = tuple(indicators)
        # One variable for all moments, because each variable adds two microseconds to a call.
        self._ring = self._weight("ring", (RING_ROWS, *shape), "float64")
        self._rows = self._weight("rows", (), "float64")
        self._moments = self._weight("moments", (len(Moments._fields) - 2, *shape), "float64")
        self.shift = self._weight("shift", shape, "float32")
        self.scale = self._weight("scale", shape, "float32")
        self.spread = self._weight("spread", shape, "float32")
        self.built = True

    def _weight(self, name: str, shape: tuple[int, ...], dtype: str) -> Variable:
        weight: Variable = self.add_weight(name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False)
        return weight

    def served(self) -> Sequence[Variable]:
        """Return the float32 copies that serving uses."""
        return [self.shift, self.scale, self.spread]

    def call(self, x: Tensor) -> Tensor:
        """Standardise raw inputs *x*, float32 or float64, shape (n, *shape); return float32, softly limited."""
        limited = _softly_limited(self.standardised(x), self.soft)
        if not self._indicators:
            return limited
        missing = tf.math.is_nan(tf.gather(x, self._indicators, axis=-1))
        with_indicators: Tensor = tf.concat([limited, tf.cast(missing, tf.float32)], axis=-1)
        return with_indicators

    def standardised(self, x: Tensor) -> Tensor:
        """Standardise raw *x*, float32 or float64, shape (n, *shape), without a limit; return float32."""
        if x.dtype == tf.float64:
            state = self._state()
            variance = state.variance
            known = variance > 0.0
            wide = (x - state.mean) / tf.sqrt(tf.where(known, variance, 1.0))
            z = tf.cast(tf.where(known, wide, 0.0), tf.float32)
        else:
            z = (x - self.shift.value) * self.scale.value
        present: Tensor = tf.where(tf.math.is_nan(z), tf.zeros_like(z), z)
        return present

    def restore(self, z: Tensor) -> Tensor:
        """Bring standardised *z*, float32 or float64, back to raw units of the same type."""
        if z.dtype == tf.float64:
            state = self._state()
            restored: Tensor = z * tf.sqrt(state.variance) + state.mean
        else:
            restored = z * self.spread.value + self.shift.value
        return restored

    def described(self) -> dict[str, object]:
        """Describe the scaling for a manifest."""
        return {"kind": "online", "mean": self.shift.numpy().tolist(), "spread": self.spread.numpy().tolist()}

    def symbolic(self, x: Tensor) -> Tensor:
        """Return `call` as Keras' own layers, with the current scales as constants."""
        centred = keras.layers.Rescaling(1.0, (-self.shift.numpy()).tolist(), name=f"{self.name}_centred")(x)
        z = keras.layers.Rescaling(self.scale.numpy().tolist(), name=f"{self.name}_scaled")(centred)
        z = keras.ops.where(keras.ops.isnan(z), keras.ops.zeros_like(z), z)
        above, below = keras.ops.relu(z - self.soft), keras.ops.relu(-self.soft - z)
        limited: Tensor = (
            keras.ops.clip(z, -self.soft, self.soft) + keras.ops.log(1.0 + above) - keras.ops.log(1.0 + below)
        )
        if not self._indicators:
            return limited
        missing = keras.ops.isnan(keras.ops.take(x, list(self._indicators), axis=-1))
        both: Tensor = keras.ops.concatenate([limited, keras.ops.cast(missing, "float32")], axis=-1)
        return both

    def symbolic_restore(self, z: Tensor) -> Tensor:
        """Return `restore` as one of Keras' own layers, with the current scales as constants."""
        spread, shift = self.spread.numpy().tolist(), self.shift.numpy().tolist()
        restored: Tensor = keras.layers.Rescaling(spread, shift, name=f"{self.name}_restored")(z)
        return restored

    def observe(self, x: Tensor) -> None:
        """Update the moments with the rows of *x*, shape (n, *shape), one after another. Traced inside the update.

        If `due` is true afterwards, `renew` has to follow.
        """
        x = tf.cast(x, tf.float64)
        state = self._state()
        if x.shape[0] == 1:
            state = moments.observe(state, x[0])
        else:
            count = tf.shape(x)[0]
            _, state = tf.while_loop(
                lambda i, _: i < count,
                lambda i, state: (i + 1, moments.observe(state, tf.gather(x, i))),
                (tf.constant(0), state),
            )
        self._assign(state)

    def hasten(self, memory: float) -> None:
        """Let the moments follow as if they rested on *memory* values at most. Between two compiled calls."""
        state = self._state()
        counts = (tf.minimum(count, memory) for count in (state.mean_count, state.spread_count))
        mean_count, spread_count = counts
        self._assign(state._replace(mean_count=mean_count, spread_count=spread_count))

    def due(self) -> Tensor:
        """Return a boolean scalar: true if `renew` has to run before the next row. Traced."""
        return moments.due(self._state())

    def renew(self) -> None:
        """Take over a new level, or the moments of the first rows. Traced."""
        self._assign(moments.renew(self._state()))

    def _state(self) -> Moments:
        return Moments(self._ring.value, self._rows.value, *tf.unstack(self._moments.value))

    def _assign(self, state: Moments) -> None:
        self._ring.assign(state.ring)
        self._rows.assign(state.rows)
        self._moments.assign(tf.stack(state[2:]))
        known = state.variance > _SMALLEST_SQUARE
        spread = tf.sqrt(tf.where(known, state.variance, 1.0))
        self.shift.assign(tf.cast(state.mean, tf.float32))
        self.scale.assign(tf.cast(tf.where(known, 1.0 / spread, 0.0), tf.float32))
        self.spread.assign(tf.cast(tf.where(known, spread, 0.0), tf.float32))


class TargetStandardizer(OnlineStandardizer):
    """Standardisation of targets. A target far away must not derail the model, so learning limits it.

    A reported loss does not: it must show that predictions are far from the truth.
    """

    def call(self, x: Tensor) -> Tensor:
        """Standardise raw targets *x*, shape (n, *shape), within the limit for a reported loss."""
        limited: Tensor = tf.clip_by_value(self.standardised(x), -LARGEST, LARGEST)
        return limited


class InvertibleStandardizer(OnlineStandardizer):
    """Standardisation of inputs that are also the outputs: `restore` undoes the soft limit too.

    The limit is wider, because the error of what it compresses is the anomaly score.
    """

    soft = 10.0

    def restore(self, z: Tensor) -> Tensor:
        """Return the inverse of `call`, in raw units; finite for every finite *z*."""
        unlimited: Tensor = (
            tf.clip_by_value(z, -self.soft, self.soft) + _beyond(z, self.soft) - _beyond(0.0 - z, self.soft)
        )
        return super().restore(unlimited)

    def symbolic_restore(self, z: Tensor) -> Tensor:
        """Return `restore` as Keras' own layers, with the current scales as constants."""

        def beyond(z: Tensor) -> Tensor:
            exponential: Tensor = keras.ops.exp(keras.ops.clip(z - self.soft, 0.0, _LARGEST_EXPONENT))
            return exponential - 1.0

        return super().symbolic_restore(keras.ops.clip(z, -self.soft, self.soft) + beyond(z) - beyond(0.0 - z))


class Observer(TargetStandardizer):
    """Observation of the moments without scaling: the check of exports needs the spread of the targets."""

    def call(self, x: Tensor) -> Tensor:
        """Return *x* as float32."""
        return tf.cast(x, tf.float32)  # type: ignore[no-any-return]  # TensorFlow has no types

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


class Unscaled(_Float64Layer):
    """No scaling, for the inputs of models that were trained on raw numbers."""

    def call(self, x: Tensor) -> Tensor:
        """Return *x* as float32."""
        return tf.cast(x, tf.float32)  # type: ignore[no-any-return]  # TensorFlow has no types

    def symbolic(self, x: Tensor) -> Tensor:
        """Return *x*."""
        return x

    def observe(self, x: Tensor) -> None:
        """Do nothing: there is nothing to learn."""

    def served(self) -> Sequence[Variable]:
        """Return nothing: there are no scales."""
        return []

    def described(self) -> dict[str, object]:
        """Describe the scaling for a manifest."""
        return {"kind": "none", "mean": None, "spread": None}


def limited_for_learning(z: Tensor) -> Tensor:
    """Return standardised targets within `REACH` spreads."""
    limited: Tensor = tf.clip_by_value(z, -REACH, REACH)
    return limited


def _softly_limited(z: Tensor, soft: float) -> Tensor:
    # Without `sign` and `log1p`, which TensorFlow Lite lacks among its built-in operators.
    above, below = tf.nn.relu(z - soft), tf.nn.relu(-soft - z)
    limited: Tensor = tf.clip_by_value(z, -soft, soft) + tf.math.log(1.0 + above) - tf.math.log(1.0 + below)
    return limited


def _beyond(z: Tensor, soft: float) -> Tensor:
    """Return how far a softly limited *z* was beyond the limit; 0 within it."""
    beyond: Tensor = tf.exp(tf.clip_by_value(z - soft, 0.0, _LARGEST_EXPONENT)) - 1.0
    return beyond
