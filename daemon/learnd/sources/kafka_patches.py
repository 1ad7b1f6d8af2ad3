"""All changes to private parts of kafka-python: bounded decompression, unreadable batches, signs of life.

kafka-python checks and decompresses a fetched batch lazily, inside ``poll``. An error there names neither the partition
nor the offset, and leaves an exhausted iterator behind on which the next ``poll`` spins forever. The hooks are few, and
`tests/unit/test_kafka_guard.py` fails if kafka-python no longer calls them.
"""

import io
import zlib
from collections.abc import Callable, Iterator

import kafka.codec
import kafka.record.default_records
import kafka.record.legacy_records
import structlog
from kafka import KafkaConsumer, OffsetAndMetadata
from kafka.errors import CorruptRecordError, KafkaError, LogTruncationError
from kafka.record import MemoryRecords

from learnd.sources.kafka_types import (
    Client,
    CompletedFetch,
    Connection,
    Consumer,
    Lz4Decompressor,
    Manager,
    Node,
    Partition,
    PartitionRecords,
    Transport,
)

log = structlog.get_logger()

_CHUNK_BYTES = 1 << 20
_DECODERS = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")


class UnreadableBatchError(Exception):
    """A fetched batch that cannot be read. The fetcher is usable: the next poll fetches the same offset again."""

    def __init__(self, partition: Partition, offset: int, resume: int, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.partition = partition
        self.offset = offset
        """The first unreadable offset."""
        self.resume = resume
        """The next offset at which reading may succeed."""


class BatchTooLargeError(Exception):
    """A batch that exceeds the bound while it is decompressed. Decompression stopped there."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"its decompressed size exceeds source.max_batch_bytes, {max_bytes}")


def make_consumer(on_failure: Callable[[Exception], None], **options: object) -> Consumer:
    """Return a `KafkaConsumer` that calls *on_failure* after each failed connection.

    If no broker is found, no thread is left behind.
    """
    clients: list[Client] = []

    def make_client(**config: object) -> Client:
        clients.append(KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**config))
        _report_failures(clients[-1]._manager, on_failure)
        return clients[-1]

    try:
        consumer: Consumer = KafkaConsumer(kafka_client=make_client, **options)
        return consumer
    except Exception:
        for client in clients:
            client.close()
        raise


def _report_failures(manager: Manager, on_failure: Callable[[Exception], None]) -> None:
    """Make *manager* report the reason of each failed connection.

    kafka-python tries again, and in the end reports only a timeout. With a refused login it also discards the message
    that the broker sends right before it closes the connection, and makes the next attempt immediately.
    """
    connect, build_transport = manager._connect, manager._build_transport

    async def guarded_connect(node: Node, connection: Connection, **options: object) -> None:
        await connect(node, connection, **options)
        if connection.init_future.failed() and not manager.closed:
            manager.update_backoff(node.node_id)
            on_failure(connection.init_future.exception)

    async def guarded_build(*arguments: object, **options: object) -> Transport:
        transport = await build_transport(*arguments, **options)
        receive = transport._sock_recv

        def receive_all() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return data, None if data else error  # the next call returns the end of the connection again

        transport._sock_recv = receive_all
        return transport

    manager._connect, manager._build_transport = guarded_connect, guarded_build


def guard(consumer: Consumer, on_answer: Callable[[], None]) -> None:
    """Make *consumer* raise `UnreadableBatchError` for an unreadable batch, and call *on_answer* at each answer."""
    fetcher = consumer._fetcher
    parse, append, handle_response = fetcher._parse_fetched_data, fetcher._append, fetcher._handle_fetch_response

    def guarded_parse(completion: CompletedFetch) -> PartitionRecords | None:
        try:
            part = parse(completion)
        except KafkaError as error:
            # Raised if the broker reports a damaged log, or if the length of the batch is wrong. Other errors do not
            # concern the batch.
            if isinstance(error, CorruptRecordError) or type(error) is KafkaError:
                offset = completion.fetched_offset
                raise UnreadableBatchError(completion.topic_partition, offset, offset + 1, error) from error
            raise
        if part is not None:
            part.fetched = completion.partition_data.records
        return part

    def guarded_append(drained: object, part: PartitionRecords, *arguments: object) -> int:
        try:
            return append(drained, part, *arguments)
        except Exception as error:
            offset = max(part.fetch_offset, part.next_fetch_offset)
            part.drain()  # otherwise the next poll would loop forever over an exhausted iterator
            resume = resume_offset(bytes(part.fetched), offset)
            raise UnreadableBatchError(part.topic_partition, offset, resume, error) from error

    def guarded_response(*arguments: object) -> None:
        on_answer()
        handle_response(*arguments)

    fetcher._parse_fetched_data = guarded_parse
    fetcher._append = guarded_append
    fetcher._handle_fetch_response = guarded_response


def resume_offset(fetched: bytes, offset: int) -> int:
    """Return the offset at which to continue after the batch at *offset* in *fetched*, without skipping a sound batch.

    The end of a batch counts only if its checksum is correct, or if a sound batch begins there. Otherwise one offset is
    skipped, and the broker's answer for the next one is tried.
    """
    try:
        for batch in MemoryRecords(fetched):
            if not batch.validate_crc():
                continue
            if batch.base_offset > offset:
                return int(batch.base_offset)
            if batch.next_offset > offset:
                return int(batch.next_offset)
    except Exception as error:  # damaged bytes may raise any error in the parser
        log.debug("fetch_damaged", error=str(error))
    return offset + 1


def topic_id(consumer: Consumer, topic: str) -> str | None:
    """Return the id of *topic* (KIP-516) from the newest metadata; None if it is unknown, or before Kafka 2.8."""
    uuid = consumer._cluster.topic_id(topic)
    return None if uuid is None or uuid.int == 0 else str(uuid)


def seek(consumer: Consumer, partition: Partition, offset: int, leader_epoch: int) -> None:
    """Continue *partition* at *offset*.

    If *leader_epoch* is known (not -1), the next poll checks that the record before *offset* is still the same one.
    kafka-python makes this check after an election, but its own ``seek`` takes no epoch.
    """
    consumer._subscription.seek(partition, OffsetAndMetadata(offset, "", leader_epoch))


def position(consumer: Consumer, partition: Partition) -> tuple[int, int]:
    """Return the next offset and the epoch of the record before it, -1 if unknown, without contacting the broker.

    The offset is beyond transaction markers and aborted records, which never become records. kafka-python's own method
    may contact the broker, and raise errors that only ``poll`` should raise.
    """
    known = consumer._subscription.assignment[partition].position
    return (-1, -1) if known is None else (int(known.offset), int(known.leader_epoch))


def refresh(consumer: Consumer, timeout_s: float) -> None:
    """Request new metadata and wait for them. Raise a `KafkaError` if none arrive within *timeout_s*."""
    update = consumer._cluster.request_update()
    consumer._net.run(consumer._manager.wait_for, update, timeout_s * 1000)


def known_partitions(consumer: Consumer, topic: str) -> set[int]:
    """Return the partitions of *topic* from the newest metadata, without contacting the broker."""
    return set(consumer._cluster.partitions_for_topic(topic) or ())


def truncations(error: LogTruncationError) -> dict[Partition, int | None]:
    """Return the partitions with truncated logs, and the offset at which each one ends now (None: unknown)."""
    return {p: None if end is None else int(end.offset) for p, end in error.divergent_offsets.items()}


class _Bounds:
    """Decoders with a size limit, in place of kafka-python's. One per process, because those are module functions."""

    def __init__(self) -> None:
        self.max_bytes = 1 << 62
        self._snappy_left = 0
        self._snappy_decode = kafka.codec.snappy_decode
        self._snappy = kafka.codec.snappy
        self.compress = getattr(self._snappy, "compress", None)

    def install(self) -> None:
        """Replace the decoders of the installed codecs."""
        if kafka.codec.snappy is not None:
            kafka.codec.snappy = self  # its snappy_decode calls `decompress` below for each block
        for module in (kafka.codec, kafka.record.default_records, kafka.record.legacy_records):
            for name in _DECODERS:
                # kafka-python reports a codec that is not installed.
                if hasattr(module, name) and (name != "lz4_decode" or kafka.codec.lz4 is not None):
                    setattr(module, name, getattr(self, name))

    def _join(self, pieces: Iterator[bytes]) -> bytes:
        plain = bytearray()
        for piece in pieces:
            plain += piece
            if len(plain) > self.max_bytes:
                raise BatchTooLargeError(self.max_bytes)
        return bytes(plain)

    def gzip_decode(self, payload: bytes | memoryview) -> bytes:
        return self._join(_gunzip(bytes(payload)))

    def zstd_decode(self, payload: bytes | memoryview) -> bytes:
        if kafka.codec.zstd is None:
            raise NotImplementedError("zstandard is not installed")
        reader = kafka.codec.zstd.ZstdDecompressor().stream_reader(io.BytesIO(payload), read_across_frames=True)
        return self._join(iter(lambda: reader.read(_CHUNK_BYTES), b""))

    def lz4_decode(self, payload: bytes | memoryview) -> bytes:
        return self._join(_unlz4(kafka.codec.lz4.LZ4FrameDecompressor(), bytes(payload)))

    def snappy_decode(self, payload: bytes | memoryview) -> bytes:
        self._snappy_left = self.max_bytes
        plain: bytes = self._snappy_decode(payload)
        return plain

    def decompress(self, block: bytes) -> bytes:
        """Decompress one snappy block, which begins with its decompressed size."""
        self._snappy_left -= _snappy_size(block)
        if self._snappy_left < 0:
            raise BatchTooLargeError(self.max_bytes)
        plain: bytes = self._snappy.decompress(block)
        return plain


def _gunzip(rest: bytes) -> Iterator[bytes]:
    while rest:  # a gzip stream may have several members
        inflate = zlib.decompressobj(wbits=31)
        while not inflate.eof:
            piece = inflate.decompress(rest, _CHUNK_BYTES)
            rest = inflate.unconsumed_tail
            if not piece and not rest and not inflate.eof:
                raise EOFError("the gzip stream is truncated")
            yield piece
        rest = inflate.unused_data


def _unlz4(decompressor: Lz4Decompressor, payload: bytes) -> Iterator[bytes]:
    rest = payload
    while not decompressor.eof:
        piece = decompressor.decompress(rest, max_length=_CHUNK_BYTES)
        rest = b""
        if not piece and decompressor.needs_input:
            raise EOFError("the lz4 frame is truncated")
        yield piece


def _snappy_size(block: bytes) -> int:
    """Return the decompressed size of a snappy block, which begins with it as a varint.

    >>> _snappy_size(bytes([0x80, 0x01, 0x00]))
    128
    """
    size = 0
    for position, byte in enumerate(block[:5]):
        size |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            break
    return size


_BOUNDS = _Bounds()


def bound_decompression(max_bytes: int) -> None:
    """Limit the decompressed size of a batch to *max_bytes*; a larger one raises `BatchTooLargeError`.

    Reading a batch needs memory for two copies of it. The limit applies to the whole process, as kafka-python's
    decoders do.
    """
    _BOUNDS.max_bytes = max_bytes
    _BOUNDS.install()
