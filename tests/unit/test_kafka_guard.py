"""The hooks into kafka-python: these tests fail when it no longer calls them, or no longer needs them."""

import gzip
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import kafka.codec
import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.consumer.subscription_state import SubscriptionState
from kafka.errors import KafkaTimeoutError
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

from learnd.sources import kafka_patches
from learnd.sources.kafka_patches import BatchTooLargeError, UnreadableBatchError, resume_offset
from learnd.testing.kafka import free_ports

CODECS = {"gzip": (1, True), "snappy": (2, False), "lz4": (3, False), "zstd": (4, False)}
PACKAGES = {"snappy": "python-snappy", "lz4": "lz4", "zstd": "zstandard"}


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    """A small bound, and the usual one afterwards."""
    kafka_patches.bound_decompression(100_000)
    yield
    kafka_patches.bound_decompression(64 << 20)


def _batch(codec: int, values: list[bytes], *, offset: int = 0) -> bytes:
    builder = MemoryRecordsBuilder(magic=2, compression_type=codec, batch_size=1 << 24)
    for value in values:
        builder.append(timestamp=1, key=None, value=value)
    builder.close()
    # The broker, too, writes the base offset over what the producer sent: it lies outside the checksum.
    return struct.pack(">q", offset) + bytes(builder.buffer())[8:]


def _values(fetched: bytes) -> list[bytes]:
    return [record.value for batch in MemoryRecords(fetched) for record in batch]


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_is_bounded_and_otherwise_unchanged(name: str) -> None:
    """A batch below the bound comes out whole, one above it is given up."""
    number, always = CODECS[name]
    if not always and getattr(kafka.codec, name) is None:
        pytest.skip(f"no {name}; pip install {PACKAGES[name]}, or 'learnd[codecs]'")
    values = [b"%d" % i * 100 for i in range(200)]
    assert _values(_batch(number, values)) == values
    with pytest.raises(BatchTooLargeError, match=r"source\.max_batch_bytes, 100000"):
        _values(_batch(number, [b"x" * 200_000]))


def test_gzip_of_several_members_is_joined_and_a_torn_one_is_an_error() -> None:
    """As kafka-python's own decoder does."""
    both = gzip.compress(b"one") + gzip.compress(b"two")
    assert kafka.codec.gzip_decode(both) == b"onetwo"
    with pytest.raises(EOFError):
        kafka.codec.gzip_decode(both[:-10])


def test_reading_goes_on_at_the_next_sound_batch() -> None:
    """Found by its checksum; where nothing can be believed, one offset is passed over."""
    good = [_batch(0, [b"value"] * 10, offset=offset) for offset in (0, 10, 20)]
    broken = good[1][:-1] + b"?"
    assert resume_offset(good[0] + broken + good[2], 10) == 20
    assert resume_offset(good[0] + broken, 10) == 11
    assert resume_offset(good[0], 3) == 10  # its checksum is right: it is the codec, or the size
    assert resume_offset(b"", 7) == 8
    assert resume_offset(b"\xff" * 500, 7) == 8


def test_the_fetcher_still_has_the_methods_that_are_hooked() -> None:
    """And it still looks them up on the instance."""
    for name in ("_parse_fetched_data", "_append", "_handle_fetch_response"):
        assert callable(getattr(Fetcher, name)), name
    names = Fetcher.fetched_records.__code__.co_names
    assert "_parse_fetched_data" in names
    assert "_append" in names
    assert "_handle_fetch_response" in str(Fetcher._send_fetches_async.__code__.co_names)


class _Completion:
    """As much of a completed fetch as the guard looks at."""

    topic_partition = ("t", 0)
    fetched_offset = 5

    class partition_data:  # noqa: N801
        records = b""


class _Part:
    """A partition's records whose iterator dies, as kafka-python's does."""

    topic_partition = ("t", 0)
    fetch_offset = next_fetch_offset = 5
    drained = False

    def drain(self) -> None:
        self.drained = True


def test_a_dead_iterator_is_dropped_with_its_error() -> None:
    """Or the next poll would never come back."""

    class Dying:
        heard = 0

        def _parse_fetched_data(self, completion: Any) -> _Part:
            return _Part()

        def _append(self, *arguments: Any) -> int:
            raise ValueError("broken")

        def _handle_fetch_response(self, *arguments: Any) -> None:
            self.heard += 1

    class Consumer:
        _fetcher = Dying()

    heard: list[int] = []
    kafka_patches.guard(Consumer, lambda: heard.append(1))
    part = Consumer._fetcher._parse_fetched_data(_Completion())
    with pytest.raises(UnreadableBatchError, match="ValueError: broken") as error:
        Consumer._fetcher._append({}, part, 10, True)
    assert (error.value.offset, error.value.resume, part.drained) == (5, 6, True)
    Consumer._fetcher._handle_fetch_response()
    assert heard == [1]
    assert Consumer._fetcher.heard == 1


def test_a_connection_that_fails_is_told() -> None:
    """With its reason; kafka-python itself says no more than that it took too long."""
    failures: list[Exception] = []
    port = free_ports()[0]
    with pytest.raises(KafkaTimeoutError, match="Unable to bootstrap"):
        kafka_patches.make_consumer(failures.append, bootstrap_servers=f"127.0.0.1:{port}", bootstrap_timeout_ms=300)
    assert "ECONNREFUSED" in str(failures[0])


def test_a_position_with_an_epoch_is_asked_about_before_it_is_read_from() -> None:
    """So kafka-python compares the record before it with the broker's log, once there was an election."""
    subscription = SubscriptionState("none")
    partition = TopicPartition("t", 0)
    subscription.assign_from_user([partition])
    consumer = SimpleNamespace(_subscription=subscription)
    for leader_epoch, asked in ((3, True), (5, False), (-1, False)):
        kafka_patches.seek(consumer, partition, 7, leader_epoch)
        assert kafka_patches.position(consumer, partition) == (7, leader_epoch)
        assert subscription.maybe_validate_position_for_current_leader(partition, 5) is asked
        assert (subscription.partitions_needing_validation() == {partition}) is asked
