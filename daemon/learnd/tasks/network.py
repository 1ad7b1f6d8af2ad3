"""The model that learns and is served: raw values in, raw values out, a standardised core between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from learnd.tasks.standardizer import Observer, OnlineStandardizer, Unscaled

Loss = Callable[[Any, Any], Any]
"""From targets and the core's outputs, both (n, ...), to one loss per row, (n,)."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """What a task's network is asked for.

    Attributes
    ----------
    row_shape : shape of one raw input, without the batch dimension
    outputs : numbers that the core gives
    scale_inputs, scale_target : standardise online; else the core sees, and gives, raw numbers
    loss : None: the task's own
    classes : how many classes are known from the start, of a classification
    probabilities : the core's outputs are probabilities rather than logits, of a classification
    single : the core gives one number for two classes
    frozen : variables that will never learn
    """

    row_shape: tuple[int, ...]
    outputs: int
    scale_inputs: bool = True
    scale_target: bool = True
    loss: Loss | None = None
    classes: int = 0
    probabilities: bool = False
    single: bool = False
    frozen: Sequence[Any] = ()


class Network(keras.Model):  # type: ignore[misc]  # Keras has no types
    """What every task's network offers to the learner, the exporters and the checkpoint.

    A task says what the core gets (`core_inputs`) and what its outputs mean in raw units (`unscale`, `scale`).

    Attributes
    ----------
    core : from what the task makes of the inputs to ``outputs`` numbers
    row_shape : shape of one raw input, without the batch dimension
    outputs_per_row : numbers in one prediction
    """

    def __init__(self, core: keras.Model, spec: NetworkSpec) -> None:
        super().__init__(name="network")
        self.core = core
        self.row_shape = spec.row_shape
        self.outputs_per_row = spec.outputs
        self._loss_of = spec.loss if spec.loss is not None else mean_square
        self.loss_name = getattr(spec.loss, "learnd_name", "the task's own")
        self._frozen = frozenset(id(v) for v in spec.frozen)

    def complete(self) -> None:
        """Make every variable. Call once, at the end of the constructor."""
        self(tf.zeros((1, *self.row_shape)))

    def build(self, input_shape: Any = None) -> None:
        """Nothing is left to make: `complete` did."""

    def call(self, x: Any) -> Mapping[str, Any]:
        """The served outputs by name, for raw inputs of shape (n, *row_shape)."""
        raise NotImplementedError

    def core_inputs(self, x: Any) -> Any:
        """What the core is given for raw inputs *x*."""
        raise NotImplementedError

    def core_targets(self, x: Any, y: Any) -> Any:
        """What the core should give for raw inputs *x* and targets *y*."""
        return self.scale(x, y)

    def unscale(self, x: Any, z: Any) -> Any:
        """The core's outputs *z* for raw inputs *x*, in raw units, shape (n, outputs_per_row)."""
        raise NotImplementedError

    def scale(self, x: Any, predictions: Any) -> Any:
        """The inverse of `unscale`."""
        raise NotImplementedError

    def observe(self, x: Any, y: Any) -> None:
        """Take raw inputs and targets into the online statistics."""
        raise NotImplementedError

    def predict_and_loss(self, x: Any, y: Any, *, training: bool) -> tuple[Any, Any]:
        """Raw predictions, shape (n, outputs_per_row), and losses, shape (n,), of the rows."""
        z = self.answer(x, training=training)
        return self.unscale(x, z), self._loss_of(self.core_targets(x, y), z)

    def answer(self, x: Any, *, training: bool) -> Any:
        """What the core gives for raw inputs *x*, as float32 also where it computes in less."""
        return tf.cast(self.core(self.core_inputs(x), training=training), tf.float32)

    def losses_of(self, predictions: Any, x: Any, y: Any) -> Any:
        """The losses of raw *predictions* that other weights made, on the scale that `predict_and_loss` uses."""
        return self._loss_of(self.core_targets(x, y), self.scale(x, predictions))

    def penalty(self) -> Any:
        """What regularisation, or a layer of the user's, adds to the loss of the last `predict_and_loss`."""
        return tf.add_n(self.core.losses) if self.core.losses else tf.constant(0.0)

    def averaged_weights(self) -> list[Any]:
        """The variables that are averaged, in a fixed order; all float32.

        Scales are averaged together with the weights that were learned under them. The statistics of batch
        normalisation are not: they belong to the weights that they were observed under (`statistics`). What is frozen
        for good is not either: a ring of copies of it would be waste.
        """
        apart = {id(v) for v in self.statistics()} | self._frozen
        return [v for v in self.weights if v.dtype == "float32" and id(v) not in apart]

    def statistics(self) -> list[Any]:
        """The running statistics of every batch normalisation that will ever learn."""
        layers = [layer for layer in flat_layers(self.core) if _normalizes_batches(layer)]
        moving = [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]
        return [v for v in moving if id(v) not in self._frozen]

    def statistics_of(self, x: Any, weights: Sequence[tuple[Any, Any]]) -> list[Any]:
        """What `statistics` would be if raw inputs *x* were all there is, as tensors; no variable changes.

        *weights* are pairs of variables and what stands for them; scopes of Keras' do not nest.
        """
        with _as_observed(self.core), keras.StatelessScope(state_mapping=weights) as scope:
            self.core(self.core_inputs(x), training=True)
            return [scope.get_current_value(v) for v in self.statistics()]

    def constants(self) -> list[Any]:
        """What a served model needs beside: whole numbers, and what is frozen for good."""
        return [v for v in self.weights if v.dtype != "float64" and (v.dtype != "float32" or id(v) in self._frozen)]

    def served_state(self) -> list[Any]:
        """Every variable that a served model needs, in a fixed order: averaged, statistics, constants."""
        return [*self.averaged_weights(), *self.statistics(), *self.constants()]

    def scales(self) -> dict[str, dict[str, Any]]:
        """How numbers are scaled inside, by what they are: the kind, and where it is online mean and spread."""
        parts = [part for part in vars(self).values() if isinstance(part, OnlineStandardizer | Unscaled)]
        return {part.name: part.described() for part in parts}

    def least_spreads(self, answers: Mapping[str, Any]) -> Mapping[str, Any]:
        """By output, what counts as a standard deviation of *answers* at the least, however little they vary now.

        While a machine stands still its newest answers hardly do, and rounding would be many times their spread.
        """
        raise NotImplementedError

    def symbolic(self, x: Any, core: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, float]]:
        """`call` in Keras' own layers around *core*, for the Keras input *x*; losses by output, and their weights.

        The losses are those that Keras has by name; a squared error is weighted into standard deviations.
        """
        raise NotImplementedError

    def fix_output_count(self) -> None:
        """Take the present constants, such as the number of classes, for final: exports have outputs of fixed shape."""

    @property
    def has_training_mode(self) -> bool:
        """Whether the core behaves otherwise while learning than while predicting."""
        return any(_has_training_mode(layer) for layer in flat_layers(self.core))


def scaler(shape: tuple[int, ...], *, online: bool, name: str) -> Any:
    """A standardiser of inputs, or what stands in for one where numbers stay as they are."""
    return OnlineStandardizer(shape, name=name) if online else Unscaled(name=name)


def target_scaler(shape: tuple[int, ...], *, online: bool, name: str) -> Any:
    """The same of what the model gives; how much that varies is known in either case."""
    return OnlineStandardizer(shape, name=name) if online else Observer(shape, name=name)


def in_spreads(scale: Any) -> float:
    """What turns a squared error in raw units into one in standard deviations: their mean, for several numbers."""
    squares = np.square(scale.spread.numpy()) if not isinstance(scale, Observer) else np.ones(1)
    mean = float(squares[squares > 0.0].mean()) if (squares > 0.0).any() else 1.0
    return 1.0 / mean


def mean_square(targets: Any, outputs: Any) -> Any:
    """Mean of the squared differences over all axes but the first, shape (n,)."""
    errors = targets - outputs
    return tf.reduce_mean(tf.reshape(tf.square(errors), (tf.shape(errors)[0], -1)), axis=1)


def flat_layers(model: Any) -> Sequence[Any]:
    """Every layer inside *model* that has no layers of its own, in order."""
    return [layer for layer in model._flatten_layers(include_self=False) if not layer._layers]


@contextmanager
def _as_observed(core: Any) -> Iterator[None]:
    """While tracing: batch normalisation takes a batch's statistics whole, and dropout, off when serving, is off."""
    changed = [(layer, "momentum", layer.momentum) for layer in flat_layers(core) if _normalizes_batches(layer)]
    changed += [(layer, "rate", layer.rate) for layer in flat_layers(core) if hasattr(layer, "rate")]
    for layer, name, _ in changed:
        object.__setattr__(layer, name, 0.0)
    try:
        yield
    finally:
        for layer, name, value in changed:
            object.__setattr__(layer, name, value)


def _normalizes_batches(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _has_training_mode(layer: Any) -> bool:
    """Whether *layer* takes heed of ``training``: dropout with a rate, batch normalisation that learns, own code."""
    if not layer._call_has_training_arg:
        return False
    if _normalizes_batches(layer):
        return bool(layer.trainable)
    if any(getattr(layer, name, 0) for name in ("rate", "dropout", "recurrent_dropout", "stddev")):
        return True
    # Most of Keras' layers take the argument and ignore it; those that do not are named above, or draw at random.
    home = type(layer).__module__
    return "preprocessing" in home or "spectral" in home or not home.startswith(("keras.", "learnd."))
