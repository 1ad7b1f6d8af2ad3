"""The protocols between components, in flow order. Each docstring states the obligations of an implementation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from learnd.core.quality import Compared, Quality
from learnd.core.tensors import KerasModel, NamedTensors, Tensor, TfVariable, Variable
from learnd.core.types import (
    Batch,
    BoolArray,
    Float32Array,
    IntervalOffsets,
    NamedArrays,
    Offsets,
    Positions,
    PrequentialScores,
    Records,
    Reject,
    Samples,
    State,
    StepResult,
    TopicPartition,
    Transformed,
)


class FeatureOptions(Protocol):
    """The options of one feature; see `learnd.config.settings.FeatureSettings`."""

    @property
    def min(self) -> float | None: ...

    @property
    def max(self) -> float | None: ...

    @property
    def missing(self) -> float | Literal["mean", "reject"] | None: ...

    @property
    def max_change(self) -> float | None: ...

    @property
    def stuck_after(self) -> int | None: ...

    @property
    def whole(self) -> bool: ...

    @property
    def recover_after(self) -> int: ...

    @property
    def on_fault(self) -> Literal["reject", "hold", "mean"]: ...

    @property
    def period_s(self) -> float | None: ...

    @property
    def time(self) -> str | None: ...

    @property
    def path(self) -> str | None: ...

    @property
    def shape(self) -> Sequence[int] | None: ...

    @property
    def secret(self) -> bool: ...


class Stateful(Protocol):
    """A part whose state belongs in the checkpoint.

    ``restore(state())`` into a fresh instance with the same settings gives an instance that behaves the same from then
    on. The state after a stream does not depend on how the stream was cut into batches.
    """

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Source(Protocol):
    """The origin of records. Used by one thread at a time.

    Polling again from the same positions gives the same records in the same order per partition.
    """

    def open(self, positions: Positions) -> None:
        """Continue at *positions*. May be called again after an error.

        Records are lost if the records before a position have changed (see `Position.history`), or if the topic was
        replaced by another one of the same name. Kafka reports that only when it is polled.

        A partition without a position begins at ``start_from``. But if other partitions of its topic have a position,
        it was added later, and begins at its first record.

        Raises
        ------
        BrokerUnavailableError, DataLossError, ConfigError
        """
        ...

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """Return at most *max_records* records, as soon as there are any; nothing if none comes within *timeout_s*.

        Raises
        ------
        DataLossError, UnreadableError
            unless the configuration says to continue.
        """
        ...

    def connected(self) -> bool:
        """Return whether the origin answers, without contacting it: from what is known. Any thread may call it."""
        ...

    def ends(self) -> Offsets:
        """Return the offset after the newest record of each partition, as of now.

        Empty if that is not known beforehand; see `exhausted`.
        """
        ...

    def positions(self) -> Positions:
        """Return the position per partition at which the next ``poll`` continues."""
        ...

    def lags(self) -> Mapping[TopicPartition, int]:
        """Return the number of waiting records per partition, without contacting the origin. Any thread may call it."""
        ...

    def exhausted(self) -> bool:
        """Return True if no record will ever follow. A live stream is never exhausted."""
        ...

    def acknowledge(self, offsets: Offsets) -> None:
        """Tell the broker that *offsets* are safely checkpointed. Never called before the save is durable.

        May be called from another thread than ``poll``'s; a failure is logged and never raised.
        """
        ...

    def close(self) -> None:
        """Release everything. Safe to call twice, and without ``open``."""
        ...


class Decoder(Protocol):
    """Decodes records into samples. Every record becomes samples or a reject; ``decode`` never raises."""

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]: ...

    def fields_of(self, value: bytes) -> Mapping[str, object]:
        """Return the configured fields of one record as they are in it, for a report; none if it cannot be parsed."""
        ...


class Transform(Stateful, Protocol):
    """A step between decoding and learning.

    It returns only its own result: the new samples, its rejects, and its counts of skipped records and replaced
    readings. The caller adds them to the batch (`Batch.with_`), so no transform can overwrite the counts of another.
    """

    def __call__(self, batch: Batch) -> Transformed: ...


class Answers(Protocol):
    """The answers that are kept until their truth comes, by number; see `learnd.learners.answers.AnswerBook`."""

    def expect(self, number: int) -> None:
        """Keep the answer *number* once it is made."""
        ...

    def forget(self, number: int) -> None:
        """Drop the answer *number*: its truth does not come."""
        ...


class Learner(Stateful, Protocol):
    """Predicts each sample, then trains on it, in the order of arrival."""

    def prepare(self) -> None:
        """Compile the update before the stream begins; learn nothing.

        Raises
        ------
        ConfigError
            if the model cannot be compiled.
        """
        ...

    def learn(self, samples: Samples, hold: BoolArray | None = None) -> StepResult:
        """Predict, then learn. The weights afterwards do not depend on how samples were cut into calls.

        Samples without a target, and those that *hold* marks, shape (n,), are predicted and not learned: they change
        no variable at all.
        """
        ...

    def schedule(self, action: str, at_samples: int) -> None:
        """Schedule *action* for the moment when *at_samples* samples are learned; see `learnd.learners.actions`.

        Raises
        ------
        KeyError
            if there is no such action.
        ValueError
            if more samples are learned already.
        """
        ...


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape of one row of a named input or output, without the batch dimension."""

    name: str
    shape: tuple[int, ...]


class Evaluated(NamedTuple):
    """The tensors of one forward pass over rows and their targets.

    Attributes
    ----------
    predictions : (n, outputs), in raw units
    losses : (n,)
    residuals : (n, outputs), target minus prediction on the scale of the loss
    objective : (n,), the losses to minimise: those of targets that are limited, so that none derails the model
    """

    predictions: Tensor
    losses: Tensor
    residuals: Tensor
    objective: Tensor


class Network(Protocol):
    """The model that learns and is served: raw values in, raw values out, a standardised core between them.

    Inputs and outputs have names, and the types allow several. Today every network has one input, of the shape
    `row_shape`; learners, exports and exporters rely on that. Implemented by `learnd.tasks.network.TaskNetwork`.
    """

    @property
    def core(self) -> KerasModel: ...

    @property
    def loss_name(self) -> str: ...

    @property
    def input_specs(self) -> Mapping[str, ArraySpec]: ...

    @property
    def output_specs(self) -> Mapping[str, ArraySpec]: ...

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row of the only input."""
        ...

    @property
    def outputs_per_row(self) -> int:
        """The number of values in one prediction."""
        ...

    @property
    def class_count(self) -> Variable | None:
        """The variable with the number of known classes; None if the task has no classes."""
        ...

    @property
    def variables(self) -> Sequence[Variable]: ...

    @property
    def trainable_variables(self) -> Sequence[Variable]: ...

    @property
    def has_training_mode(self) -> bool:
        """True if the core behaves differently while it learns."""
        ...

    def call(self, x: Tensor) -> NamedTensors:
        """Return the served outputs by name, for raw inputs (n, *row_shape)."""
        ...

    def core_inputs(self, x: Tensor) -> Tensor:
        """Return the core's inputs for raw inputs *x*."""
        ...

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the core's targets for raw inputs *x* and targets *y*."""
        ...

    def predict_and_loss(self, x: Tensor, y: Tensor, *, training: bool) -> Evaluated:
        """Return predictions, losses and residuals of raw rows. Traced."""
        ...

    def evaluate(self, x: Tensor, y: Tensor, z: Tensor) -> Evaluated:
        """Return predictions, losses and residuals for the core's outputs *z*, (n, outputs). Traced."""
        ...

    def objective(self, targets: Tensor, z: Tensor) -> Tensor:
        """Return the losses to minimise, shape (n,), for core targets and the core's outputs *z*. Traced."""
        ...

    def unscale(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the core's outputs *z* for raw inputs *x* in raw units, shape (n, outputs)."""
        ...

    def losses_of(self, predictions: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the losses, shape (n,), of raw *predictions* of other weights, on the scale of the current losses."""
        ...

    def penalty(self) -> Tensor:
        """Return the regularisation term of the last `predict_and_loss`."""
        ...

    def observe(self, x: Tensor, y: Tensor) -> None:
        """Update the online statistics with raw inputs and targets. Traced."""
        ...

    def scales_due(self) -> Tensor:
        """Return a boolean scalar: true if `renew_scales` has to run before the next row. Traced."""
        ...

    def renew_scales(self) -> None:
        """Take over new levels of inputs and targets, which `observe` leaves to the caller: it is rare and slow."""
        ...

    def averaged_weights(self) -> Sequence[Variable]:
        """Return the variables that are averaged, in a fixed order."""
        ...

    def statistics(self) -> Sequence[Variable]:
        """Return the running statistics of every batch normalisation that will ever learn."""
        ...

    def statistics_of(self, x: Tensor, weights: Sequence[tuple[Variable, Tensor]]) -> Sequence[Tensor]:
        """Return the values of `statistics` over raw inputs *x* alone, without changing a variable. Traced."""
        ...

    def served_state(self) -> Sequence[Variable]:
        """Return every variable that a served model needs, in a fixed order."""
        ...

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        """Return the smallest standard deviation to assume for each output of *answers*, by name."""
        ...

    def hasten_scales(self, memory: float) -> bool:
        """Let all scales follow as if they rested on *memory* values at most; return False if there are none."""
        ...

    def fix_output_count(self) -> None:
        """Fix the number of classes at its current value: an export has outputs of fixed shape."""
        ...


class Averager(Protocol):
    """Averages the model's weights inside the compiled step.

    ``build`` makes its variables. ``observe``, ``ready`` and ``averages`` are traced, so they use TensorFlow only.
    """

    every_samples: int | None
    """Samples between two snapshots; None: never."""

    def build(self, weights: Sequence[Variable]) -> None: ...

    def observe(self, due: Tensor) -> None:
        """Take a snapshot of the weights when the boolean tensor *due* is true."""
        ...

    def ready(self) -> Tensor:
        """Return a boolean tensor: True once a snapshot was taken. Until then the live weights replace the average."""
        ...

    def restart(self) -> None:
        """Forget all snapshots. Called between two compiled calls, and not traced."""
        ...

    def averages(self) -> Sequence[Tensor] | None:
        """Return the averaged weights as tensors, in the order of ``build``; None if they are the live weights."""
        ...

    def variables(self) -> Mapping[str, TfVariable]: ...


class Evaluator(Stateful, Protocol):
    """Evaluates predictions that were made before their sample was learned."""

    def observe(self, result: StepResult) -> PrequentialScores: ...

    def scores(self) -> PrequentialScores:
        """Return the evaluation so far."""
        ...

    @property
    def compared(self) -> Compared | None:
        """The naive errors on the newest batch; None if no sample of it has a target."""
        ...

    def quality(self) -> Quality:
        """Return how good the predictions were, next to a naive forecast."""
        ...


class Intervals(Stateful, Protocol):
    """Adds a prediction interval to each prediction. An interval depends on samples before its own only."""

    def __call__(self, result: StepResult) -> StepResult: ...

    def offsets(self) -> IntervalOffsets | None:
        """Return the present interval around predictions of the averaged weights; None if there is none."""
        ...


class Sink(Stateful, Protocol):
    """A place that results go to. ``flush`` returns once everything put before it is safe. It may run on another
    thread.
    """

    def open(self) -> None: ...

    def flush(self) -> None: ...

    def pending(self) -> int:
        """Return how much was put and is not delivered yet. May be called on another thread."""
        ...

    def close(self) -> None: ...


class DeadLetters(Sink, Protocol):
    """A sink for rejects."""

    def put(self, rejects: Sequence[Reject]) -> None: ...


class AlarmSink(Sink, Protocol):
    """A sink for the events of alarms, as JSON objects."""

    def put(self, lines: Sequence[Mapping[str, Any]]) -> None: ...


class Predictions(Sink, Protocol):
    """A sink for predictions."""

    def put(self, result: StepResult) -> None: ...
