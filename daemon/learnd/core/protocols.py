"""The protocols between components, in flow order. Each docstring states the obligations of an implementation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from learnd.core.tensors import KerasModel, NamedTensors, Tensor, TfVariable, Variable
from learnd.core.types import (
    Batch,
    BoolArray,
    Float32Array,
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

        Records were lost where something else stands before a position by now (see `Position.history`), or where the
        topic is another one of the same name. Kafka reports that only when it is polled.

        A partition without a position begins where ``start_from`` says. If other partitions of its topic have one, it
        is younger than they are, and begins at its first record.

        Raises
        ------
        BrokerUnavailableError, DataLossError, ConfigError
        """
        ...

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """Return at most *max_records*, as soon as there are any; nothing after *timeout_s* without one.

        Raises
        ------
        DataLossError, UnreadableError
            unless the configuration says to continue.
        """
        ...

    def connected(self) -> bool:
        """Return whether the origin answers, as far as known without asking. Any thread may call it."""
        ...

    def ends(self) -> Offsets:
        """Return the offset after the newest record of every partition now (empty: the source has no end)."""
        ...

    def positions(self) -> Positions:
        """Return where the next ``poll`` continues, per partition."""
        ...

    def lags(self) -> Mapping[TopicPartition, int]:
        """Return the records waiting per partition, as far as known without asking. Any thread may call it."""
        ...

    def exhausted(self) -> bool:
        """Return True when no record will ever come again. A live stream is never exhausted."""
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
    """Decodes records into samples. Every record becomes samples or a reject; nothing else, and never an error."""

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]: ...


class Transform(Stateful, Protocol):
    """A step between decoding and learning.

    It reads the batch and returns its own result alone: the new samples, and what it rejected, skipped and replaced.
    The caller adds that to the batch (`Batch.with_`), so that no transform can overwrite another one's counts.
    """

    def __call__(self, batch: Batch) -> Transformed: ...


class Learner(Stateful, Protocol):
    """Predicts each sample, then trains on it, in the order of arrival."""

    def prepare(self) -> None:
        """Compile ahead of the stream; nothing is learned.

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


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """The shape of one row of a named input or output, without the batch dimension."""

    name: str
    shape: tuple[int, ...]


class Evaluated(NamedTuple):
    """One forward pass over rows and their targets; tensors.

    Attributes
    ----------
    predictions : (n, outputs), in raw units
    losses : (n,)
    residuals : (n, outputs), target minus prediction on the scale of the loss
    """

    predictions: Tensor
    losses: Tensor
    residuals: Tensor


class Network(Protocol):
    """The model that learns and is served: raw values in, raw values out, a standardised core between them.

    Inputs and outputs have names, and the types allow several. Today every network has one input, of the shape
    `row_shape`; learners, exports and exporters rely on that. Implemented by `learnd.tasks.network.TaskNetwork`.
    """

    core: KerasModel
    loss_name: str

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
        """The count of numbers in one prediction."""
        ...

    @property
    def class_count(self) -> Variable | None:
        """The variable that holds how many classes are known; None where there are no classes."""
        ...

    @property
    def variables(self) -> Sequence[Variable]: ...

    @property
    def trainable_variables(self) -> Sequence[Variable]: ...

    @property
    def has_training_mode(self) -> bool:
        """Whether the core behaves differently while it learns."""
        ...

    def call(self, x: Tensor) -> NamedTensors:
        """Return the served outputs by name, for raw inputs (n, *row_shape)."""
        ...

    def core_inputs(self, x: Tensor) -> Tensor:
        """Return what the core is given for raw inputs *x*."""
        ...

    def core_targets(self, x: Tensor, y: Tensor) -> Tensor:
        """Return what the core should give for raw inputs *x* and targets *y*."""
        ...

    def predict_and_loss(self, x: Tensor, y: Tensor, *, training: bool) -> Evaluated:
        """Return predictions, losses and residuals of raw rows. Traced."""
        ...

    def losses_of(self, predictions: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return the losses, (n,), of raw *predictions* that other weights made, on the scale of today's losses."""
        ...

    def penalty(self) -> Tensor:
        """Return what regularisation adds to the loss of the last `predict_and_loss`."""
        ...

    def observe(self, x: Tensor, y: Tensor) -> None:
        """Take raw inputs and targets into the online statistics. Traced."""
        ...

    def averaged_weights(self) -> Sequence[Variable]:
        """Return the variables that are averaged, in a fixed order."""
        ...

    def statistics(self) -> Sequence[Variable]:
        """Return the running statistics of every batch normalisation that will ever learn."""
        ...

    def statistics_of(self, x: Tensor, weights: Sequence[tuple[Variable, Tensor]]) -> Sequence[Tensor]:
        """Return what `statistics` would be if raw inputs *x* were all there is; changes no variable. Traced."""
        ...

    def served_state(self) -> Sequence[Variable]:
        """Return every variable that a served model needs, in a fixed order."""
        ...

    def least_spreads(self, answers: NamedArrays) -> Mapping[str, Float32Array | float]:
        """Return, by output, the least value that counts as a standard deviation of *answers*."""
        ...

    def fix_output_count(self) -> None:
        """Make the present number of classes final: an export has outputs of fixed shape."""
        ...


class Averager(Protocol):
    """Averages the model's weights inside the compiled step.

    ``build`` makes its variables; ``observe``, ``ready`` and ``averages`` are traced: TensorFlow alone.
    """

    every_samples: int | None
    """Samples between two snapshots; None: never."""

    def build(self, weights: Sequence[Variable]) -> None: ...

    def observe(self, due: Tensor) -> None:
        """Take a snapshot of the weights when the boolean tensor *due* is true."""
        ...

    def ready(self) -> Tensor:
        """Return a boolean tensor: whether any snapshot was taken yet. Until then the live weights replace it."""
        ...

    def averages(self) -> Sequence[Tensor] | None:
        """Return the averaged weights as tensors, in ``build``'s order; None where they are the live weights."""
        ...

    def variables(self) -> Mapping[str, TfVariable]: ...


class Evaluator(Stateful, Protocol):
    """Evaluates predictions that were made before their sample was learned."""

    def observe(self, result: StepResult) -> PrequentialScores: ...

    def scores(self) -> PrequentialScores:
        """Return the evaluation so far."""
        ...


class DeadLetters(Stateful, Protocol):
    """A sink for rejects. ``flush`` returns once everything put before is safe; it may run on another thread."""

    def open(self) -> None: ...

    def put(self, rejects: Sequence[Reject]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Predictions(Stateful, Protocol):
    """A sink for predictions. The obligations are those of `DeadLetters`."""

    def open(self) -> None: ...

    def put(self, result: StepResult) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
