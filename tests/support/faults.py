"""What goes wrong between a daemon and its broker: a proxy that misbehaves, damaged logs, hostile batches."""

import contextlib
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import crc32c
import pytest
from kafka import KafkaConsumer
from kafka.protocol.producer import ProduceRequest
from kafka.record.util import encode_varint

from learnd.testing.kafka import KafkaBroker, KafkaCluster

_HEADER = struct.Struct(">qiibIhiqqqhii")
"""Of a record batch, from its base offset to the count of its records."""
_CRC_FROM = struct.calcsize(">qiibI")
GZIP, ZSTD = 1, 4


def own_broker(cluster: KafkaCluster) -> KafkaBroker:
    """The broker, if it is ours to do harm to; else the test is skipped."""
    if cluster.broker is None:
        pytest.skip("the broker of KAFKA_BOOTSTRAP is not ours to damage, and has no listener for a proxy; unset it")
    return cluster.broker


class Proxy:
    """Stands between clients and a broker; can refuse, cut, reset and alter."""

    def __init__(self, broker: KafkaBroker) -> None:
        self._behind, self.port = broker.behind_proxy
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.alter: Callable[[bytes], bytes] = lambda data: data
        """Called with what the broker sends, piece by piece."""
        self.deaf = False
        """What clients send is swallowed; they still hear the broker."""
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._lock = threading.Lock()
        self._listener: socket.socket | None = None

    def up(self) -> None:
        """Accept connections (again)."""
        listener = socket.create_server(("127.0.0.1", self.port), reuse_port=True)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def down(self) -> None:
        """Refuse new connections and cut those that are there: to its clients the broker is gone."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.reset()

    def reset(self) -> int:
        """Reset every connection; returns how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            for side in pair:
                with contextlib.suppress(OSError):
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    side.shutdown(socket.SHUT_RDWR)
                side.close()
        return len(pairs)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
                broker = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                return
            pair = (client, broker)
            with self._lock:
                self._pairs.add(pair)
            threading.Thread(target=self._pump, args=(client, broker, self._to_broker), daemon=True).start()
            threading.Thread(
                target=self._pump, args=(broker, client, lambda data: self.alter(data)), daemon=True
            ).start()

    def _to_broker(self, data: bytes) -> bytes:
        return b"" if self.deaf else data

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, alter: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(alter(data))
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def batches(path: Path) -> Iterator[tuple[int, int, int, int]]:
    """Of each record batch in a log file: where it begins and ends in it, its first and its last offset."""
    data, start = path.read_bytes(), 0
    while start < len(data):
        header = _HEADER.unpack_from(data, start)
        end = start + 12 + header[1]
        yield start, end, header[0], header[0] + header[6]
        start = end


def damage(broker: KafkaBroker, topic: str, number: int, *, partition: int = 0) -> range:
    """Flip one bit in the last record of a batch, in the broker's own file; returns the offsets of the batch."""
    path = broker.log_files(topic, partition)[0]
    _, end, first, last = list(batches(path))[number]
    with path.open("r+b") as file:
        file.seek(end - 2)
        byte = file.read(1)[0]
        file.seek(end - 2)
        file.write(bytes([byte ^ 1]))
    return range(first, last + 1)


def cut_back(broker: KafkaBroker, topic: str, number: int, *, partition: int = 0) -> None:
    """Cut a batch, and all behind it, off the files of a broker that is down, as one that never had them."""
    path = broker.log_files(topic, partition)[0]
    begin, _, _, _ = list(batches(path))[number]
    with path.open("r+b") as file:
        file.truncate(begin)
    for derived in (".index", ".timeindex", ".snapshot"):
        for found in path.parent.glob(f"*{derived}"):
            found.unlink()
    for noted in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint", ".kafka_cleanshutdown"):
        (path.parent.parent / noted).unlink(missing_ok=True)


def bomb(size_bytes: int, *, codec: int = GZIP) -> bytes:
    """A record batch whose checksum is right, with one record whose value is so many zeros."""
    if codec == ZSTD:
        import zstandard  # noqa: PLC0415 - an extra

        compress = zstandard.ZstdCompressor(level=19).compressobj()
    else:
        compress = zlib.compressobj(9, wbits=31)
    before = b"\0\0\0\1" + _varint(size_bytes)  # attributes, time, offset, no key
    pieces = [compress.compress(_varint(len(before) + size_bytes + 1) + before)]
    block = bytes(1 << 20)
    pieces += [compress.compress(block[:left]) for left in range(size_bytes, 0, -len(block))]
    payload = b"".join([*pieces, compress.compress(b"\0"), compress.flush()])
    now_ms = int(time.time() * 1000)
    tail = struct.pack(">hiqqqhii", codec, 0, now_ms, now_ms, -1, -1, -1, 1) + payload
    return struct.pack(">qiibI", 0, len(tail) + 9, -1, 2, crc32c.crc32c(tail)) + tail


def _varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def produce_batch(cluster: KafkaCluster, topic: str, batch: bytes) -> None:
    """Have the broker append *batch* as it is to partition 0."""
    part = ProduceRequest.TopicProduceData
    request = ProduceRequest(
        transactional_id=None,
        acks=-1,
        timeout_ms=30_000,
        topic_data=[part(name=topic, partition_data=[part.PartitionProduceData(index=0, records=batch)])],
        max_version=9,
    )
    consumer: Any = KafkaConsumer(bootstrap_servers=cluster.bootstrap)
    try:
        consumer.partitions_for_topic(topic)
        node = next(iter(consumer._cluster.brokers())).node_id

        async def send() -> Any:
            return await consumer._manager.send(request, node_id=node)

        answer = consumer._net.run(send)
    finally:
        consumer.close()
    (outcome,) = answer.responses[0].partition_responses
    assert outcome.error_code == 0, outcome
