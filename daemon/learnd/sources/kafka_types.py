"""Protocols for the objects of kafka-python, which ships without types.

They name what learnd uses and nothing more. Members that begin with an underscore are private to kafka-python, and only
`learnd.sources.kafka_patches` uses them.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol
from uuid import UUID


class Partition(Protocol):
    """A `kafka.TopicPartition`."""

    @property
    def topic(self) -> str: ...

    @property
    def partition(self) -> int: ...


class ConsumerRecord(Protocol):
    """A fetched record."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int
    leader_epoch: int


class FetchPosition(Protocol):
    """An offset, with the epoch of the leader that wrote the record before it."""

    @property
    def offset(self) -> int: ...

    @property
    def leader_epoch(self) -> int: ...


class OffsetAndTimestamp(Protocol):
    """The answer to a search for a time."""

    @property
    def offset(self) -> int: ...


class PartitionState(Protocol):
    """The state of one assigned partition."""

    position: FetchPosition | None


class Subscription(Protocol):
    """The assigned partitions and their positions."""

    assignment: Mapping[Partition, PartitionState]

    def seek(self, partition: Partition, offset: object, /) -> object: ...


class PartitionData(Protocol):
    """The part of a fetch response for one partition."""

    records: bytes


class CompletedFetch(Protocol):
    """The fetched bytes of one partition, not parsed yet."""

    @property
    def topic_partition(self) -> Partition: ...

    @property
    def fetched_offset(self) -> int: ...

    @property
    def partition_data(self) -> PartitionData: ...


class PartitionRecords(Protocol):
    """The fetched records of one partition, parsed lazily. `fetched` is set by `learnd.sources.kafka_patches`."""

    topic_partition: Partition
    fetch_offset: int
    next_fetch_offset: int
    fetched: bytes

    def drain(self) -> object: ...


class Fetcher(Protocol):
    """The part of a consumer that fetches; its methods are replaced by `learnd.sources.kafka_patches.guard`."""

    _parse_fetched_data: Callable[[CompletedFetch], PartitionRecords | None]
    _append: Callable[..., int]
    _handle_fetch_response: Callable[..., object]


class Node(Protocol):
    """A broker, as the cluster's metadata describe it."""

    node_id: object


class InitFuture(Protocol):
    """The outcome of a connection attempt."""

    exception: Exception

    def failed(self) -> bool: ...


class Connection(Protocol):
    """A connection to a broker."""

    init_future: InitFuture


class Transport(Protocol):
    """The socket of a connection."""

    _sock_recv: Callable[[], tuple[bytes, Exception | None]]


class Manager(Protocol):
    """The manager of all connections of a client."""

    closed: bool
    _connect: Callable[..., Awaitable[None]]
    _build_transport: Callable[..., Awaitable[Transport]]

    def update_backoff(self, node_id: object, /) -> object: ...

    def wait_for(self, future: object, timeout_ms: float, /) -> object: ...


class Client(Protocol):
    """A client of the cluster."""

    _manager: Manager

    def close(self) -> None: ...


class Cluster(Protocol):
    """The newest metadata of the cluster."""

    def topic_id(self, topic: str, /) -> UUID | None: ...

    def partitions_for_topic(self, topic: str, /) -> Iterable[int] | None: ...

    def request_update(self) -> object: ...


class EventLoop(Protocol):
    """The thread on which kafka-python does its input and output."""

    def run(self, function: Callable[..., object], /, *arguments: object) -> object: ...


class Consumer(Protocol):
    """A `kafka.KafkaConsumer`."""

    _fetcher: Fetcher
    _cluster: Cluster
    _subscription: Subscription
    _net: EventLoop
    _manager: Manager

    def assign(self, partitions: Sequence[Partition], /) -> object: ...

    def seek(self, partition: Partition, offset: int, /) -> object: ...

    def poll(self, *, timeout_ms: int, max_records: int) -> Mapping[Partition, Sequence[ConsumerRecord]]: ...

    def partitions_for_topic(self, topic: str, /) -> set[int] | None: ...

    def topics(self) -> set[str]: ...

    def beginning_offsets(
        self, partitions: Sequence[Partition], timeout_ms: int | None = None, /
    ) -> Mapping[Partition, int]: ...

    def end_offsets(
        self, partitions: Sequence[Partition], timeout_ms: int | None = None, /
    ) -> Mapping[Partition, int]: ...

    def offsets_for_times(
        self, times_ms: Mapping[Partition, int], /
    ) -> Mapping[Partition, OffsetAndTimestamp | None]: ...

    def highwater(self, partition: Partition, /) -> int | None: ...

    def commit(self, offsets: Mapping[Partition, object], /, *, timeout_ms: int) -> object: ...

    def commit_async(
        self, offsets: Mapping[Partition, object], /, *, callback: Callable[[object, object], None]
    ) -> object: ...

    def close(self, *, timeout_ms: int) -> None: ...


class Lz4Decompressor(Protocol):
    """A `lz4.frame.LZ4FrameDecompressor`."""

    eof: bool
    needs_input: bool

    def decompress(self, data: bytes, *, max_length: int) -> bytes: ...
