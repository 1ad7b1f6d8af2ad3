"""The seams, in flow order. Each docstring states what an implementation owes to its caller."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from learnd.core.types import Batch, Histories, Offsets, PrequentialScores, Records, Reject, Samples, State, StepResult


class Stateful(Protocol):
    """Something whose state belongs in the checkpoint.

    ``restore(state())`` into a fresh instance of the same settings gives an instance that behaves the same for
    ever after, and the state after a stream does not depend on how the stream was cut into batches.
    """

    def state(self) -> State: ...

    def restore(self, state: State) -> None: ...


class Source(Protocol):
    """Where records come from. Used by one thread at a time.

    Polling again from the same offsets gives the same records in the same order per partition.
    """

    def open(
        self,
        offsets: Offsets,
        topic_ids: Mapping[str, str] = MappingProxyType({}),
        histories: Histories = MappingProxyType({}),
    ) -> None:
        """Stand at *offsets* of the topics that *topic_ids* name. May be called again after an error.

        Where something else stands before an offset by now, as *histories* tell, records were lost; Kafka tells only
        when it is polled.

        A partition that is not named there begins where ``start_from`` says; at its beginning if others of its topic
        are named, because then it is younger than they.

        Raises
        ------
        BrokerUnavailableError, DataLossError, ConfigError
        """
        ...

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        """At most *max_records*, as soon as there are any; an empty sequence after *timeout_s* without one.

        Raises
        ------
        DataLossError, UnreadableError
            where the configuration does not say to go on.
        """
        ...

    def topic_ids(self) -> Mapping[str, str]:
        """What tells each topic from another of the same name; without those that cannot be told apart."""
        ...

    def connected(self) -> bool:
        """Whether the origin of the records answers, as far as known without asking. Any thread may call it."""
        ...

    def ends(self) -> Offsets:
        """The offset after the newest record of every partition now (empty: the source has no end)."""
        ...

    def positions(self) -> Offsets:
        """The next offset that ``poll`` would return, per partition."""
        ...

    def lags(self) -> Mapping[Any, int]:
        """Records waiting per partition, as far as known without asking anybody. Any thread may call it."""
        ...

    def exhausted(self) -> bool:
        """True when no record will ever come again. A live stream is never exhausted."""
        ...

    def acknowledge(self, offsets: Offsets) -> None:
        """Tell the broker that *offsets* are safely checkpointed. Never called before the save is durable.

        May be called from another thread than ``poll``'s; a failure is logged and never raised.
        """
        ...

    def close(self) -> None:
        """Let go of everything. Safe to call twice, and without ``open``."""
        ...


class Decoder(Protocol):
    """Records to samples. Every record either becomes samples or a reject; nothing else, and never an error."""

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]: ...


class Transform(Stateful, Protocol):
    """What happens to the samples of a batch before learning. Rejects may be added; offsets pass through untouched."""

    def __call__(self, batch: Batch) -> Batch: ...


class Learner(Stateful, Protocol):
    """Tests each sample, then trains on it, in the order of arrival."""

    def prepare(self) -> None:
        """Compile ahead of the stream; nothing is learned.

        Raises
        ------
        ConfigError
            if the model cannot be compiled.
        """
        ...

    def learn(self, samples: Samples) -> StepResult:
        """Predict, then learn. The weights afterwards do not depend on how samples were cut into calls."""
        ...


class Averager(Protocol):
    """Averages the model's weights inside the compiled step.

    ``build`` makes its variables; ``observe``, ``ready`` and ``averages`` are traced: TensorFlow alone.
    """

    every_samples: int | None
    """Samples between two snapshots; None: never."""

    def build(self, weights: Sequence[Any]) -> None: ...

    def observe(self, due: Any) -> None:
        """Take a snapshot of the weights when the boolean tensor *due* is true."""
        ...

    def ready(self) -> Any:
        """A boolean tensor: whether any snapshot was taken yet. Until then the live weights stand in."""
        ...

    def averages(self) -> Sequence[Any] | None:
        """The averaged weights as tensors, in ``build``'s order; None where they are the live weights."""
        ...

    def variables(self) -> Mapping[str, Any]: ...


class Evaluator(Stateful, Protocol):
    """Judges predictions that were made before their sample was learned."""

    def observe(self, result: StepResult) -> PrequentialScores: ...

    def signal(self) -> PrequentialScores:
        """The judgement as it stands."""
        ...


class DeadLetters(Stateful, Protocol):
    """Takes rejects. ``flush`` returns once everything taken before is safe; it may run on another thread."""

    def open(self) -> None: ...

    def put(self, rejects: Sequence[Reject]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class Predictions(Stateful, Protocol):
    """Takes what was predicted. The obligations are those of `DeadLetters`."""

    def open(self) -> None: ...

    def put(self, result: StepResult) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
