"""The common part of all tasks' networks: raw inputs and outputs, with a standardised core between them."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from learnd.core.protocols import ArraySpec, Evaluated
from learnd.core.tensors import KerasModel, Layer, NamedTensors, Tensor, TracedLoss, Variable
from learnd.core.types import Float32Array, NamedArrays
from learnd.tasks.standardizer import (
    Observer,
    OnlineStandardizer,
    Scaler,
    TargetStandardizer,
    Unscaled,
    limited_for_learning,
)

INPUT = "inputs"
"""The name of the only input that a network has today."""
Symbolic = tuple[NamedTensors, dict[str, str], dict[str, float]]
"""Outputs by name, the name of a Keras loss for each output, and the weight of each loss."""


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """The requirements for a task's network.

    Attributes
    ----------
    row_shape : shape of one raw input, without the batch dimension
    outputs : number of outputs of the core
    scale_inputs, scale_target : standardise online; otherwise the core's inputs and outputs are raw numbers
    loss : None: the task's own
    classes : number of classes known from the start, for a classification
    probabilities : the core's outputs are probabilities rather than logits, for a classification
    single : the core gives one number for two classes
    frozen : variables that are never trained
    seasons : lengths in seconds of the periods of the seasonal inputs, which are the last columns of an input
    indicators : numbers of the features whose missing readings the core is told of
    core_shape : shape in which the core takes one input, if the features are the elements of one array
    """

    row_shape: tuple[int, ...]
    outputs: int
    scale_inputs: bool = True
    scale_target: bool = True
    loss: TracedLoss | None = None
    classes: int = 0
    probabilities: bool = False
    single: bool = False
    frozen: Sequence[Variable] = ()
    indicators: Sequence[int] = ()
    seasons: Sequence[float] = ()
    core_shape: tuple[int, ...] | None = None

    @property
    def reading_shape(self) -> tuple[int, ...]:
        """The shape of one raw input without its seasonal columns."""
        return (*self.row_shape[:-1], self.row_shape[-1] - len(self.seasons))


class TaskNetwork(keras.Model):  # type: ignore[misc]  # Keras has no types
    """The common part of every task's network; see `learnd.core.protocols.Network`.

    A task defines the core's inputs (`core_inputs`), and converts its outputs to and from raw units (`unscale`,
    `scale`).

    Attributes
    ----------
    core : maps the task's `core_inputs` to ``outputs`` numbers
    row_shape : shape of one raw input, without the batch dimension
    outputs_per_row : number of values in one prediction
    class_count : the variable with the number of known classes; None if the task has no classes
    """

    def __init__(self, core: KerasModel, spec: NetworkSpec) -> None:
        super().__init__(name="network")
        self.core = core
        self.row_shape = spec.row_shape
        self.outputs_per_row = spec.outputs
        self.class_count: Variable | None = None
        self._loss_of = spec.loss if spec.loss is not None else mean_square
        self.loss_name = getattr(spec.loss, "learnd_name", "the task's own")
        self._frozen = frozenset(id(v) for v in spec.frozen)
        self._seasons = tuple(spec.seasons)
        self._core_shape = spec.core_shape
        self._moving: frozenset[int] = frozenset()

    def complete(self) -> None:
        """Make every variable. Call once, at the end of the constructor."""
        self(tf.zeros((1, *self.row_shape)))
        self._moving = self._statistics_that_move()

    def build(self, input_shape: object = None) -> None:
        """Do nothing: `complete` has made every variable."""

    @property
    def input_specs(self) -> Mapping[str, ArraySpec]:
        return {INPUT: ArraySpec(INPUT, tuple(self.row_shape))}

    @property
    def output_specs(self) -> Mapping[str, ArraySpec]:
        return {name: ArraySpec(name, tuple(shape)) for name, shape in self._output_shapes().items()}

    @abstractmethod
    def _output_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of one row of each served output, by name."""

    @abstractmethod
    def call(self, x: Tensor) -> NamedTensors:
        """Return the served outputs by name, for raw inputs of shape (n, *row_shape)."""

    @abstractmethod
    def core_inputs(self, x: Tensor) -> Tensor:
        """Return the core's inputs for raw inputs *x*."""

    def readings(self, x: Tensor) -> Tensor:
        """Return raw inputs *x* without their seasonal columns."""
        return x[..., : -len(self._seasons)] if self._seasons else x

    def with_seasons(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the scaled readings *z*, then sine and cosine of each seasonal column of raw inputs *x*.

        The elements of an array are returned in its shape.
        """
        if self._core_shape is not None:
            array: Tensor = tf.reshape(z, (-1, *self._core_shape))
            return array
        if not self._seasons:
            return z
        angles = tf.cast(x[..., -len(self._seasons) :] * tf.constant(self._frequencies(), x.dtype), tf.float32)
        columns: Tensor = tf.concat([z, tf.sin(angles), tf.cos(angles)], axis=-1)
        return columns

    def with_symbolic_seasons(self, z: Tensor, x: Tensor) -> Tensor:
        """Return `with_seasons` as Keras' own layers."""
        if self._core_shape is not None:
            array: Tensor = keras.layers.Reshape(self._core_shape, name="array")(z)
            return array
        if not self._seasons:
            return z
        elapsed = x[..., -len(self._seasons) :]
        angles = keras.layers.Rescaling(self._frequencies(), name="seasons")(elapsed)
        columns: Tensor = keras.ops.concatenate([z, keras.ops.sin(angles), keras.ops.cos(angles)], axis=-1)
        return columns

    def _frequencies(self) -> list[float]:
        return [2.0 * math.pi / period_s for period_s in self._seasons]

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the core's targets for raw inputs *x* and targets *y*."""
        return self.scale(x, y)

    def unscale(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the core's outputs *z* for raw inputs *x* in raw units, shape (n, outputs_per_row)."""
        return z

    def scale(self, x: Tensor, predictions: Tensor) -> Tensor:
        """Return the inverse of `unscale`."""
        return predictions

    @abstractmethod
    def observe(self, x: Tensor, y: Tensor) -> None:
        """Update the online statistics with raw inputs and targets."""

    def predict_and_loss(self, x: Tensor, y: Tensor, *, training: bool) -> Evaluated:
        """Return raw predictions, losses and residuals of the rows."""
        return self.evaluate(x, y, self.answer(x, training=training))

    def evaluate(self, x: Tensor, y: Tensor, z: Tensor) -> Evaluated:
        """Return the raw predictions, losses and residuals for the core's outputs *z*."""
        targets = self.core_targets(x, y)
        return Evaluated(
            self.unscale(x, tf.cast(z, x.dtype)),
            self._loss_of(targets, z),
            flat(targets - z),
            self.objective(targets, z),
        )

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        """Return the losses to minimise, shape (n,), for core targets and core outputs."""
        return self._loss_of(targets, z)

    def answer(self, x: Tensor, *, training: bool) -> Tensor:
        """Return the core's outputs for raw inputs *x*, as float32 even if it computes in lower precision."""
        answer: Tensor = tf.cast(self.core(self.core_inputs(x), training=training), tf.float32)
        return answer

    def losses_of(self, predictions: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the losses of raw *predictions* of other weights, on the scale of `predict_and_loss`."""
        return self._loss_of(self.core_targets(x, y), self.scale(x, predictions))

    def penalty(self) -> Tensor:
        """Return the regularisation term of the last `predict_and_loss`, with the losses of the user's layers."""
        penalty: Tensor = tf.add_n(self.core.losses) if self.core.losses else tf.constant(0.0)
        return penalty

    def averaged_weights(self) -> list[Variable]:
        """Return the variables that are averaged, in a fixed order; all float32.

        Three kinds are left out. Statistics of batch normalisation belong to the weights under which they were observed
        (`statistics`). Weights that are never trained equal their average, so copies of them would waste memory. Scales
        follow the stream: after a shift of a sensor, the mean of the old and the new scale would fit neither.
        """
        excluded = {id(v) for v in self.statistics()} | self._frozen | self._scale_ids()
        return [v for v in self.weights if v.dtype == "float32" and id(v) not in excluded]

    def statistics(self) -> list[Variable]:
        """Return the running statistics of all batch normalisation that is ever trained."""
        return [v for v in self._all_statistics() if id(v) in self._moving and id(v) not in self._frozen]

    def _all_statistics(self) -> list[Variable]:
        layers = [layer for layer in flat_layers(self.core) if _normalizes_batches(layer)]
        return [v for layer in layers for v in (layer.moving_mean, layer.moving_variance)]  # type: ignore[attr-defined]

    def _statistics_that_move(self) -> frozenset[int]:
        """Return the ids of the statistics of batch normalisation that change in training mode.

        Traced to find out, because a layer may be called in inference mode only, or not be trainable.
        """
        statistics = self._all_statistics()
        if not statistics:
            return frozenset()
        moving: set[int] = set()

        def train(rows: Tensor) -> None:
            with keras.StatelessScope() as scope:
                self.core(self.core_inputs(rows), training=True)
                moving.update(id(v) for v in statistics if scope.get_current_value(v) is not None)

        tf.function(train, autograph=False).get_concrete_function(tf.TensorSpec((2, *self.row_shape), tf.float64))
        return frozenset(moving)

    def statistics_of(self, x: Tensor, weights: Sequence[tuple[Variable, Tensor]]) -> list[Tensor]:
        """Return the values of `statistics` over raw inputs *x* alone, without changing a variable.

        *weights* are pairs of a variable and its replacement, because Keras scopes do not nest.
        """
        with _as_observed(self.core), keras.StatelessScope(state_mapping=weights) as scope:
            self.core(self.core_inputs(x), training=True)
            return [scope.get_current_value(v) for v in self.statistics()]

    def constants(self) -> list[Variable]:
        """Return the other variables of a served model: whole numbers, scales, and weights that are never trained."""
        constant = self._frozen | self._scale_ids()
        return [v for v in self.weights if v.dtype != "float64" and (v.dtype != "float32" or id(v) in constant)]

    def served_state(self) -> list[Variable]:
        """Return every variable that a served model needs, in a fixed order: averaged, statistics, constants."""
        return [*self.averaged_weights(), *self.statistics(), *self.constants()]

    def scales(self) -> dict[str, dict[str, object]]:
        """Return the scaling of inputs and targets, by name: its kind, and the mean and spread if it is online."""
        return {part.name: part.described() for part in self._scalers()}

    def scales_due(self) -> Tensor:
        """Return a boolean scalar: true if `renew_scales` has to run before the next row. Traced."""
        due = [part.due() for part in self._scalers() if isinstance(part, OnlineStandardizer)]
        any_due: Tensor = tf.reduce_any(tf.stack(due)) if due else tf.constant(False)
        return any_due

    def renew_scales(self) -> None:
        """Take over new levels of inputs and targets. Traced."""
        for part in self._scalers():
            if isinstance(part, OnlineStandardizer):
                part.renew()

    def hasten_scales(self, memory: float) -> bool:
        """Let all scales follow as if they rested on *memory* values at most; return False if there are none."""
        scalers = [part for part in self._scalers() if isinstance(part, OnlineStandardizer)]
        for part in scalers:
            part.hasten(memory)
        return bool(scalers)

    def _scalers(self) -> list[OnlineStandardizer | Unscaled]:
        return [part for part in vars(self).values() if isinstance(part, OnlineStandardizer | Unscaled)]

    def _scale_ids(self) -> frozenset[int]:
        return frozenset(id(v) for part in self._scalers() for v in part.served())

    @abstractmethod
    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        """Return the smallest standard deviation to assume for each output of *answers*, by name.

        While a machine stands still, its newest answers hardly vary, and rounding errors would be many times their
        spread.
        """

    @abstractmethod
    def symbolic(self, x: Tensor, core: KerasModel) -> Symbolic:
        """Return `call` in Keras' own layers around *core*, for the Keras input *x*, with losses and their weights.

        The losses are names that Keras knows. The weight of a squared error converts it to standard deviations.
        """

    def fix_output_count(self) -> None:
        """Fix the number of classes at its current value: an export has outputs of fixed shape."""

    @property
    def has_training_mode(self) -> bool:
        return any(_has_training_mode(layer) for layer in flat_layers(self.core))


def scaler(shape: tuple[int, ...], *, online: bool, name: str, indicators: Sequence[int] = ()) -> Scaler:
    """Return a standardiser, or a layer that only converts to float32.

    A standardiser adds a column for each of *indicators*, numbers of features: 1 where the reading is missing.
    """
    return OnlineStandardizer(shape, name=name, indicators=indicators) if online else Unscaled(name=name)


def target_scaler(shape: tuple[int, ...], *, online: bool, name: str) -> TargetStandardizer:
    """Return a standardiser of outputs. It observes the spread even if it does not scale."""
    return TargetStandardizer(shape, name=name) if online else Observer(shape, name=name)


def in_spreads(scale: OnlineStandardizer) -> float:
    """Return the factor from a squared error in raw units to standard deviations; for several outputs, one for all."""
    squares = np.square(scale.spread.numpy()) if not isinstance(scale, Observer) else np.ones(1)
    mean = float(squares[squares > 0.0].mean()) if (squares > 0.0).any() else 1.0
    return 1.0 / mean


def within_reach(scale: TargetStandardizer, targets: Tensor) -> Tensor:
    """Return core *targets* within the limit for learning; unchanged if they are not standardised."""
    return targets if isinstance(scale, Observer) else limited_for_learning(targets)


def flat(rows: Tensor) -> Tensor:
    """Return *rows* with all axes but the first joined, shape (n, numbers)."""
    joined: Tensor = tf.reshape(rows, (tf.shape(rows)[0], -1))
    return joined


def mean_square(targets: Tensor, outputs: Tensor) -> Tensor:
    """Return the mean of the squared differences over all axes but the first, shape (n,)."""
    errors: Tensor = tf.reduce_mean(flat(tf.square(targets - outputs)), axis=1)
    return errors


def flat_layers(model: KerasModel) -> Sequence[Layer]:
    """Return every layer inside *model* that has no layers of its own, in order."""
    return [layer for layer in model._flatten_layers(include_self=False) if not layer._layers]


@contextmanager
def _as_observed(core: KerasModel) -> Iterator[None]:
    """Let batch normalisation replace its statistics by those of one batch, without dropout, while tracing."""
    changed = [(layer, "momentum") for layer in flat_layers(core) if _normalizes_batches(layer)]
    changed += [(layer, "rate") for layer in flat_layers(core) if hasattr(layer, "rate")]
    values = [getattr(layer, name) for layer, name in changed]
    for layer, name in changed:
        object.__setattr__(layer, name, 0.0)
    try:
        yield
    finally:
        for (layer, name), value in zip(changed, values, strict=True):
            object.__setattr__(layer, name, value)


def _normalizes_batches(layer: Layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _has_training_mode(layer: Layer) -> bool:
    """Return whether the layer behaves differently in training mode.

    Examples: dropout with a rate, trainable batch normalisation, and the user's own layers.
    """
    if not layer._call_has_training_arg:  # type: ignore[attr-defined]
        return False
    if _normalizes_batches(layer):
        return bool(layer.trainable)
    if any(getattr(layer, name, 0) for name in ("rate", "dropout", "recurrent_dropout", "stddev")):
        return True
    # Most Keras layers accept the argument and ignore it. The others are named above, or are random.
    home = type(layer).__module__
    return "preprocessing" in home or "spectral" in home or not home.startswith(("keras.", "learnd."))
