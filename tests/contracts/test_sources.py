"""What every source owes to the reader."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from learnd.core.protocols import Source
from learnd.core.types import Position, Records, TopicPartition
from learnd.sources.file import FileSource
from learnd.sources.kafka import KafkaSource
from learnd.sources.memory import MemorySource
from learnd.sources.settings import FileSettings, KafkaSettings, SimulatorSettings
from learnd.sources.simulator import SimulatorSource

COUNT = 50
Row = tuple[TopicPartition, int, bytes | None]


def _kafka(folder: Path, request: pytest.FixtureRequest) -> Callable[[], Source]:
    broker = request.getfixturevalue("kafka_broker")
    topic = broker.create_topic()
    broker.produce(topic, [b"%d" % i for i in range(COUNT)])
    settings = KafkaSettings(kind="kafka", bootstrap_servers=[broker.bootstrap], topics=[topic])
    return lambda: KafkaSource(settings, group_id="learnd-contract")


def _file(folder: Path, request: pytest.FixtureRequest) -> Callable[[], Source]:
    path = folder / "lines.jsonl"
    path.write_bytes(b"".join(b"%d\n" % i for i in range(COUNT)))
    return lambda: FileSource(FileSettings(kind="file", path=path))


def _simulator(folder: Path, request: pytest.FixtureRequest) -> Callable[[], Source]:
    return lambda: SimulatorSource(SimulatorSettings(kind="simulator", records=COUNT))


def _memory(folder: Path, request: pytest.FixtureRequest) -> Callable[[], Source]:
    return lambda: MemorySource([b"%d" % i for i in range(COUNT)])


CASES = {"kafka": _kafka, "file": _file, "simulator": _simulator, "memory": _memory}


@pytest.fixture(params=CASES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Source]:
    """Makes sources that hold the same `COUNT` records."""
    made: Callable[[], Source] = CASES[request.param](tmp_path, request)
    return made


def _blocks(source: Source, count: int, *, at_once: int = 7) -> Iterator[Records]:
    """Those of the next *count* records."""
    polls = read = reached = 0
    while read < count and polls < 200:
        polls += 1
        for block in source.poll(min(at_once, count - read), 0.1):
            assert len(block) <= at_once
            assert len(block.offsets) == len(block.values) == len(block.keys) == len(block.timestamps_ms)
            assert list(block.offsets) == sorted(set(block.offsets))
            assert not block.offsets or block.next.offset > block.offsets[-1]
            assert not block.offsets or block.offsets[0] >= reached, "never passed over"
            reached = block.next.offset
            read += len(block)
            yield block


def _read(source: Source, count: int, *, at_once: int = 7) -> list[Row]:
    rows: list[Row] = []
    for block in _blocks(source, count, at_once=at_once):
        rows += zip([block.origin] * len(block), block.offsets, block.values, strict=True)
    return rows


def test_records_come_once_and_in_order(make: Callable[[], Source]) -> None:
    """All of them, with ascending offsets per partition, and positions that follow."""
    source = make()
    source.open({})
    rows = _read(source, COUNT)
    assert len(rows) == COUNT
    (partition,) = {row[0] for row in rows}
    assert [row[1] for row in rows] == list(range(COUNT))
    assert source.positions()[partition].offset == COUNT
    ends = source.ends()
    assert not ends or ends[partition] == COUNT
    assert all(lag == 0 for lag in source.lags().values())
    source.close()


@pytest.mark.parametrize("start", [1, 20, COUNT])
def test_the_same_records_come_again_from_the_same_offset(make: Callable[[], Source], start: int) -> None:
    """In another process, too: the source has no memory of its own."""
    first = make()
    first.open({})
    rows = _read(first, COUNT)
    first.close()
    again = make()
    again.open({rows[0][0]: Position(start)})
    assert _read(again, COUNT - start, at_once=11) == rows[start:]
    again.close()


def test_the_end_comes_back_empty_and_close_may_be_repeated(make: Callable[[], Source]) -> None:
    """No error at the end of the stream, and none in letting go twice or without open."""
    make().close()
    source = make()
    source.open({})
    rows = _read(source, COUNT)
    assert list(source.poll(10, 0.1)) == []
    source.acknowledge({rows[0][0]: COUNT})
    source.close()
    source.close()


def test_reopening_moves_to_the_asked_offset(make: Callable[[], Source]) -> None:
    """What a source was doing before does not matter."""
    rows: Any = None
    for _ in range(2):
        source = make()
        source.open({})
        found = _read(source, 10, at_once=3)
        assert rows is None or found == rows
        rows = found
        source.close()


def test_a_source_that_is_read_is_connected_and_its_topics_keep_their_identity(make: Callable[[], Source]) -> None:
    """What the checkpoint holds of the one that wrote it is accepted by the next one."""
    first = make()
    first.open({})
    rows = _read(first, COUNT)
    assert first.connected()
    identity = first.positions()[rows[0][0]].topic_id
    first.close()
    again = make()
    again.open({rows[0][0]: Position(20, topic_id=identity)})
    assert _read(again, COUNT - 20) == rows[20:]
    assert again.positions()[rows[0][0]].topic_id == identity
    again.close()


def test_what_stood_before_an_offset_is_known_again(make: Callable[[], Source]) -> None:
    """However it was read; the next source goes on behind what the checkpoint says of it."""
    known: list[Records] = []
    for at_once in (4, 20):
        source = make()
        source.open({})
        *_, newest = _blocks(source, 20, at_once=at_once)
        known.append(newest)
        source.close()
    left, right = known
    assert left.next == right.next
    again = make()
    again.open({left.origin: left.next})
    assert len(_read(again, COUNT - 20)) == COUNT - 20
    again.close()
