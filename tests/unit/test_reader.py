"""The reader's thread: order, bounds and errors."""

import pytest

from learnd.core.types import Batch, TopicPartition, offsets_of
from learnd.decoders.fields import Field, Fields
from learnd.decoders.json import JsonDecoder
from learnd.runtime.reader import Reader
from learnd.sources.memory import Crash, Item, MemorySource, Pause, ScriptedCrash

DECODER = JsonDecoder(Fields((Field("a"),), (), None, "s", None, 1000))
PARTITION = TopicPartition("memory", 0)


def _records(count: int) -> list[bytes]:
    return [b'{"a": %d}' % i for i in range(count)]


def _drain(reader: Reader) -> list[Batch]:
    batches = []
    while not reader.finished:
        if (batch := reader.next(timeout_s=5.0)) is not None:
            batches.append(batch)
    return batches


def test_everything_arrives_once_and_in_order() -> None:
    """Also through more batches than the queue holds."""
    reader = Reader(MemorySource([*_records(3000), Pause(2), *_records(3000)]), DECODER)
    reader.start({})
    batches = _drain(reader)
    offsets = [int(offset) for batch in batches for offset in batch.samples.offsets]
    assert offsets == list(range(6000))
    assert offsets_of(batches[-1].positions) == {PARTITION: 6000}
    assert sum(batch.record_count for batch in batches) == 6000
    reader.close()


def test_max_records_is_exact() -> None:
    """Not one more is taken from the source."""
    source = MemorySource(_records(3000))
    reader = Reader(source, DECODER, max_records=1500)
    reader.start({})
    assert sum(batch.record_count for batch in _drain(reader)) == 1500
    assert offsets_of(source.positions()) == {PARTITION: 1500}
    reader.close()


def test_once_stops_at_the_ends_of_its_start() -> None:
    """Every partition is read to the offset that was its end, and no record beyond is taken."""

    class Growing(MemorySource):
        def ends(self) -> dict[TopicPartition, int]:
            return {TopicPartition("memory", 0): 5, TopicPartition("memory", 1): 3}

    items = [Item(value, partition=i % 2) for i, value in enumerate(_records(40))]
    reader = Reader(Growing(items), DECODER, once=True)
    reader.start({})
    batches = _drain(reader)
    assert offsets_of(batches[-1].positions) == {TopicPartition("memory", 0): 5, TopicPartition("memory", 1): 3}
    assert sum(batch.record_count for batch in batches) == 8
    reader.close()


def test_an_error_comes_after_the_batches_before_it() -> None:
    """What was read is still learned; then the error is the learner's to see."""
    reader = Reader(MemorySource([*_records(10), Crash()]), DECODER)
    reader.start({})
    batch = reader.next(timeout_s=5.0)
    assert batch is not None
    assert batch.record_count == 10
    with pytest.raises(ScriptedCrash):
        reader.next(timeout_s=5.0)
    reader.close()


def test_close_ends_a_reader_that_nobody_listens_to() -> None:
    """A full queue does not keep the thread alive."""
    reader = Reader(MemorySource(_records(20_000)), DECODER)
    reader.start({})
    reader.close()
    assert reader._thread is not None
    assert not reader._thread.is_alive()
