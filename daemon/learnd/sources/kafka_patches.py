"""All that reaches into kafka-python: bounded decompression, batches that cannot be read, signs of life.

kafka-python checks and unpacks a fetched batch lazily, inside ``poll``. What it raises there names neither partition
nor offset, and leaves a dead iterator behind on which the next ``poll`` spins for ever. The hooks here are few, and
`tests/unit/test_kafka_guard.py` fails if kafka-python no longer calls them.
"""

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import kafka.codec
import kafka.record.default_records
import kafka.record.legacy_records
import structlog
from kafka import KafkaConsumer, OffsetAndMetadata
from kafka.errors import CorruptRecordError, KafkaError, LogTruncationError
from kafka.record import MemoryRecords

log = structlog.get_logger()

_CHUNK_BYTES = 1 << 20
_DECODERS = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")


class UnreadableBatchError(Exception):
    """A fetched batch cannot be read. The fetcher is clean again: the next poll fetches the same offset once more."""

    def __init__(self, partition: Any, offset: int, resume: int, cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.partition = partition
        self.offset = offset
        """The first offset that could not be read."""
        self.resume = resume
        """The next offset at which reading may succeed."""


class BatchTooLargeError(Exception):
    """A batch grows beyond the bound while it is decompressed; it was given up there."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"decompressed it is larger than source.max_batch_bytes, {max_bytes}")


def make_consumer(failed: Callable[[Exception], None], **options: Any) -> Any:
    """A `KafkaConsumer`; one that finds no broker leaves no thread behind. Calls *failed* at each failed connection."""
    clients: list[Any] = []

    def make_client(**config: Any) -> Any:
        clients.append(KafkaConsumer.DEFAULT_CONFIG["kafka_client"](**config))
        _tell_failures(clients[-1]._manager, failed)
        return clients[-1]

    try:
        return KafkaConsumer(kafka_client=make_client, **options)
    except Exception:
        for client in clients:
            client.close()
        raise


def _tell_failures(manager: Any, failed: Callable[[Exception], None]) -> None:
    """Have *manager* say why a connection did not come about.

    kafka-python goes on trying, and in the end says only that it took too long. A refused login gets lost twice more:
    what the broker says right before it hangs up is thrown away, and the next attempt comes at once.
    """
    connect, build_transport = manager._connect, manager._build_transport

    async def guarded_connect(node: Any, connection: Any, **options: Any) -> None:
        await connect(node, connection, **options)
        if connection.init_future.failed() and not manager.closed:
            manager.update_backoff(node.node_id)
            failed(connection.init_future.exception)

    async def guarded_build(*arguments: Any, **options: Any) -> Any:
        transport = await build_transport(*arguments, **options)
        receive = transport._sock_recv

        def receive_all() -> tuple[bytes, Exception | None]:
            data, error = receive()
            return data, None if data else error  # the end of the connection is there for the next call, too

        transport._sock_recv = receive_all
        return transport

    manager._connect, manager._build_transport = guarded_connect, guarded_build


def guard(consumer: Any, heard: Callable[[], None]) -> None:
    """Make *consumer* raise `UnreadableBatchError` where it would raise and then spin; call *heard* at each answer."""
    fetcher = consumer._fetcher
    parse, append, answered = fetcher._parse_fetched_data, fetcher._append, fetcher._handle_fetch_response

    def guarded_parse(completion: Any) -> Any:
        try:
            part = parse(completion)
        except KafkaError as error:
            # The broker says itself that its log is damaged, or the batch's own length is: nothing else is the batch.
            if isinstance(error, CorruptRecordError) or type(error) is KafkaError:
                offset = completion.fetched_offset
                raise UnreadableBatchError(completion.topic_partition, offset, offset + 1, error) from error
            raise
        if part is not None:
            part.fetched = completion.partition_data.records
        return part

    def guarded_append(drained: Any, part: Any, *arguments: Any) -> Any:
        try:
            return append(drained, part, *arguments)
        except Exception as error:
            offset = max(part.fetch_offset, part.next_fetch_offset)
            part.drain()  # or the next poll would go round and round over an iterator that gives nothing
            resume = resume_offset(bytes(part.fetched), offset)
            raise UnreadableBatchError(part.topic_partition, offset, resume, error) from error

    def guarded_response(*arguments: Any) -> None:
        heard()
        answered(*arguments)

    fetcher._parse_fetched_data = guarded_parse
    fetcher._append = guarded_append
    fetcher._handle_fetch_response = guarded_response


def resume_offset(fetched: bytes, offset: int) -> int:
    """Where to go on after the batch at *offset* of what was *fetched*, without passing over a sound one.

    The end of a batch is believed only if its checksum is right, or if a sound batch begins there; else one offset is
    passed over, and what the broker sends for the next one is tried.
    """
    try:
        for batch in MemoryRecords(fetched):
            if not batch.validate_crc():
                continue
            if batch.base_offset > offset:
                return int(batch.base_offset)
            if batch.next_offset > offset:
                return int(batch.next_offset)
    except Exception as error:  # the bytes are damaged, and may make the parser say anything
        log.debug("fetch_damaged", error=str(error))
    return offset + 1


def topic_id(consumer: Any, topic: str) -> str | None:
    """The topic's identity (KIP-516), as the newest metadata say; None before Kafka 2.8."""
    found = consumer._cluster.topic_id(topic)
    return None if found is None or found.int == 0 else str(found)


def seek(consumer: Any, partition: Any, offset: int, leader_epoch: int) -> None:
    """Go to *offset*; where *leader_epoch* is known, the next poll asks whether the record before it is still that one.

    So kafka-python does after an election for what it has read, but its own ``seek`` takes no epoch.
    """
    consumer._subscription.seek(partition, OffsetAndMetadata(offset, "", leader_epoch))


def position(consumer: Any, partition: Any) -> tuple[int, int]:
    """The next offset and the epoch before it, -1 where not known; asks nobody.

    It steps over what no record ever shows: transaction markers, aborted records. kafka-python's own may ask, and raise
    what only ``poll`` is to raise.
    """
    found = consumer._subscription.assignment[partition].position
    return (-1, -1) if found is None else (int(found.offset), int(found.leader_epoch))


def refresh(consumer: Any, timeout_s: float) -> None:
    """Ask for new metadata and wait for them. Raises a `KafkaError` if none come."""
    wanted = consumer._cluster.request_update()
    consumer._net.run(consumer._manager.wait_for, wanted, timeout_s * 1000)


def known_partitions(consumer: Any, topic: str) -> set[int]:
    """The partitions of *topic*, as the newest metadata say; asks nobody."""
    return set(consumer._cluster.partitions_for_topic(topic) or ())


def truncations(error: LogTruncationError) -> dict[Any, int | None]:
    """The partitions whose logs were cut back, and where each was (None: not known)."""
    return {p: None if end is None else int(end.offset) for p, end in error.divergent_offsets.items()}


class _Bounds:
    """Decoders in the place of kafka-python's that stop at a size. One per process, as its functions are."""

    def __init__(self) -> None:
        self.max_bytes = 1 << 62
        self._snappy_left = 0
        self._snappy_decode = kafka.codec.snappy_decode
        self._snappy = kafka.codec.snappy
        self.compress = getattr(self._snappy, "compress", None)

    def install(self) -> None:
        if kafka.codec.snappy is not None:
            kafka.codec.snappy = self  # its snappy_decode calls our decompress for each block
        for module in (kafka.codec, kafka.record.default_records, kafka.record.legacy_records):
            for name in _DECODERS:
                # A codec that is not installed stays kafka-python's to complain about.
                if hasattr(module, name) and (name != "lz4_decode" or kafka.codec.lz4 is not None):
                    setattr(module, name, getattr(self, name))

    def _join(self, pieces: Iterator[bytes]) -> bytes:
        kept = bytearray()
        for piece in pieces:
            kept += piece
            if len(kept) > self.max_bytes:
                raise BatchTooLargeError(self.max_bytes)
        return bytes(kept)

    def gzip_decode(self, payload: Any) -> bytes:
        return self._join(_gunzip(bytes(payload)))

    def zstd_decode(self, payload: Any) -> bytes:
        if kafka.codec.zstd is None:
            raise NotImplementedError("zstandard is not installed")
        reader = kafka.codec.zstd.ZstdDecompressor().stream_reader(io.BytesIO(payload), read_across_frames=True)
        return self._join(iter(lambda: reader.read(_CHUNK_BYTES), b""))

    def lz4_decode(self, payload: Any) -> bytes:
        return self._join(_unlz4(kafka.codec.lz4.LZ4FrameDecompressor(), bytes(payload)))

    def snappy_decode(self, payload: Any) -> bytes:
        self._snappy_left = self.max_bytes
        plain: bytes = self._snappy_decode(payload)
        return plain

    def decompress(self, block: bytes) -> bytes:
        """One block of snappy, whose size stands at its beginning."""
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
                raise EOFError("the gzip stream ends too early")
            yield piece
        rest = inflate.unused_data


def _unlz4(decompressor: Any, payload: bytes) -> Iterator[bytes]:
    rest = payload
    while not decompressor.eof:
        piece = decompressor.decompress(rest, max_length=_CHUNK_BYTES)
        rest = b""
        if not piece and decompressor.needs_input:
            raise EOFError("the lz4 frame ends too early")
        yield piece


def _snappy_size(block: bytes) -> int:
    """The size that a block of snappy says it has: a varint.

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
    """No batch takes more than *max_bytes* of memory (and a copy) once decompressed; `BatchTooLargeError` otherwise.

    For the whole process, as kafka-python's decoders are.
    """
    _BOUNDS.max_bytes = max_bytes
    _BOUNDS.install()
