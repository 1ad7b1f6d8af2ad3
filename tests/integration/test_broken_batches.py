"""Batches that cannot be read, in a real broker's own log: they stop the daemon or are left out, as it was told."""

import json
import random
import time
from pathlib import Path
from typing import Any

import kafka.codec
import pytest

from learnd.core.errors import UnreadableError
from learnd.core.types import Records
from learnd.sources.kafka import KafkaSource
from learnd.sources.settings import KafkaSettings
from learnd.testing.kafka import KafkaCluster
from tests.support.faults import GZIP, ZSTD, Proxy, bomb, damage, own_broker, produce_batch
from tests.support.helpers import Daemon, config_text, readings, until

GIB = 1 << 30


def _source(bootstrap: str, topic: str, **options: Any) -> KafkaSource:
    settings = KafkaSettings(kind="kafka", bootstrap_servers=[bootstrap], topics=[topic], **options)
    return KafkaSource(settings, group_id="learnd-tests")


def _read_to(source: KafkaSource, end: int) -> list[Records]:
    """Every block, until the source stands at *end*."""
    blocks: list[Records] = []

    def there() -> bool:
        blocks.extend(source.poll(100, 0.2))
        return bool(blocks) and blocks[-1].next.offset >= end

    until(there, what=f"offset {end}", timeout_s=60)
    return blocks


def _offsets(blocks: list[Records]) -> list[int]:
    return [offset for block in blocks for offset in block.offsets]


def _three_batches(cluster: KafkaCluster, **configs: str) -> str:
    topic = cluster.create_topic(configs=configs)
    for start in (0, 10, 20):
        cluster.produce(topic, [b"%d" % i for i in range(start, start + 10)])
    return topic


def _config(folder: Path, bootstrap: str, topic: str, **source: Any) -> Path:
    config = folder / "config.yaml"
    config.write_text(
        config_text(
            folder / "data",
            source={"kind": "kafka", "bootstrap_servers": [bootstrap], "topics": [topic], **source},
            dead_letter={"path": str(folder / "dead.jsonl")},
            predictions={"path": str(folder / "predictions.jsonl")},
        )
    )
    return config


def _learned(folder: Path) -> list[int]:
    return [json.loads(line)["offset"] for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_damaged_batch_stops_the_daemon_within_five_seconds(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """By default, and after every good record before it; the error names its topic, partition and offset."""
    topic = kafka_broker.create_topic()
    for start in (0, 40, 80):
        kafka_broker.produce(topic, readings(120)[start : start + 40])
    bad = damage(own_broker(kafka_broker), topic, -1)
    config = _config(tmp_path, kafka_broker.bootstrap, topic)
    with Daemon(config) as daemon:
        until(lambda: daemon.events("batch_failed") or daemon.process.poll() is not None, what="the bad batch")
        started_s = time.monotonic()
        daemon.finish(code=UnreadableError.exit_code)
        assert time.monotonic() - started_s < 5.0
        error = daemon.events("stopped")[0]["error"]
    assert f"{topic}/0: the batch at offset {bad.start} cannot be read" in error
    assert "source.errors: dead_letter" in error


def test_damaged_batches_are_left_out_and_the_rest_is_learned(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Every good record once; what was left out is counted, and told in a reject with its first and last offset."""
    topic = kafka_broker.create_topic()
    for start in range(0, 120, 20):
        kafka_broker.produce(topic, readings(120)[start : start + 20])
    bad = [damage(own_broker(kafka_broker), topic, number) for number in (1, 2, -1)]
    skipped = {offset for block in bad for offset in block}
    config = _config(tmp_path, kafka_broker.bootstrap, topic, errors="dead_letter")
    with Daemon(config) as daemon:
        # Whether a batch is the last one of a fetch or not.
        kafka_broker.produce(topic, readings(30, seed=1))
        good = 150 - len(skipped)
        until(lambda: daemon.metric("learnd_samples_learned_total") == good, what="the good records")
        assert daemon.metric("learnd_records_unreadable_total") == len(skipped)
        assert (daemon.metric("learnd_records_rejected_total", reason="unreadable") or 0) >= 2
        assert daemon.get("/readyz")[0] == 200
        daemon.terminate()
    assert _learned(tmp_path) == [offset for offset in range(150) if offset not in skipped]
    letters = [json.loads(line)["headers"] for line in (tmp_path / "dead.jsonl").read_text().splitlines()]
    assert {letter["__connect.errors.exception.class.name"] for letter in letters} == {"unreadable"}
    told = " ".join(letter["__connect.errors.exception.message"] for letter in letters)
    assert f"offsets {bad[0].start} to" in told
    assert "crc" in told


def test_a_batch_that_breaks_on_the_way_is_fetched_again(kafka_broker: KafkaCluster, proxy: Proxy) -> None:
    """Bits that flip between the broker and us lose nothing, repeat nothing and stop nothing."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, [b"%05d" % i + b"x" * 500 for i in range(3000)])
    dice = random.Random(0)
    altered = []

    def alter(data: bytes) -> bytes:
        # In the middle of many values, not in the first batch's header.
        if len(data) < 20_000 or dice.random() < 0.7:
            return data
        altered.append(len(data))
        return data[:-5000] + bytes([data[-5000] ^ 0x10]) + data[-4999:]

    proxy.alter = alter
    source = _source(proxy.bootstrap, topic, max_partition_fetch_bytes=100_000)
    source.open({})
    blocks = _read_to(source, 3000)
    source.close()
    assert altered
    assert _offsets(blocks) == list(range(3000))
    assert [value[:5] for block in blocks for value in block.values if value] == [b"%05d" % i for i in range(3000)]


def test_a_codec_that_is_not_installed_stops_or_is_left_out(
    kafka_broker: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install; the next batch in another codec is read."""
    topic = _three_batches(kafka_broker, **{"compression.type": "snappy"})
    monkeypatch.setattr(kafka.codec, "snappy", None)
    stops = _source(kafka_broker.bootstrap, topic)
    stops.open({})
    with pytest.raises(UnreadableError, match=rf"{topic}/0: the batch at offset 0 .*snappy.*pip install"):
        _read_to(stops, 30)
    stops.close()
    goes_on = _source(kafka_broker.bootstrap, topic, errors="dead_letter")
    goes_on.open({})
    blocks = _read_to(goes_on, 30)
    goes_on.close()
    assert _offsets(blocks) == []
    assert sum(block.unreadable for block in blocks) == 30
    assert all(reject.reason == "unreadable" for block in blocks for reject in block.rejects)


def test_several_partitions_that_cannot_be_read_are_each_given_up(
    kafka_broker: KafkaCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kafka-python meets them in turn; the attempts at one do not begin anew with the other's."""
    topic = kafka_broker.create_topic(partitions=3, configs={"compression.type": "snappy"})
    for partition in range(3):
        kafka_broker.produce(topic, [b"%d" % i for i in range(10)], partition=partition)
    monkeypatch.setattr(kafka.codec, "snappy", None)
    stops = _source(kafka_broker.bootstrap, topic)
    stops.open({})
    with pytest.raises(UnreadableError, match="the batch at offset 0 cannot be read"):
        until(lambda: stops.poll(100, 0.2), what="a stop", timeout_s=20)
    stops.close()
    goes_on = _source(kafka_broker.bootstrap, topic, errors="dead_letter")
    goes_on.open({})
    left_out: dict[int, int] = {}

    def all_left_out() -> bool:
        for block in goes_on.poll(100, 0.2):
            left_out[block.origin.partition] = left_out.get(block.origin.partition, 0) + block.unreadable
        return left_out == {0: 10, 1: 10, 2: 10}

    until(all_left_out, what="the end of all three", timeout_s=20)
    goes_on.close()


@pytest.mark.parametrize(
    "codec", [pytest.param(GZIP, id="gzip"), pytest.param(ZSTD, marks=pytest.mark.slow, id="zstd")]
)
def test_a_decompression_bomb_is_rejected_within_bounds(codec: int, kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """A gibibyte in a mebibyte adds less than 256 MiB to the daemon's peak, and the records after it are learned."""
    if codec == ZSTD:
        pytest.importorskip("zstandard", reason="no zstd; pip install 'learnd[codecs]'")
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, readings(200))
    config = _config(tmp_path, kafka_broker.bootstrap, topic, errors="dead_letter")
    with Daemon(config, installed=True) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 200, what="the records before")
        before_kib = _memory_kib(daemon, "VmHWM")
        produce_batch(kafka_broker, topic, bomb(GIB, codec=codec))
        kafka_broker.produce(topic, readings(50, seed=1))
        until(lambda: daemon.metric("learnd_samples_learned_total") == 250, what="the records after")
        risen_mib = (_memory_kib(daemon, "VmHWM") - before_kib) / 1024
        print(f"peak memory rose by {risen_mib:.0f} MiB")
        assert risen_mib < 256
        assert daemon.metric("learnd_records_unreadable_total") == 1
        daemon.terminate()
    assert _learned(tmp_path) == [offset for offset in range(251) if offset != 200]
    assert "source.max_batch_bytes" in (tmp_path / "dead.jsonl").read_text()


def _memory_kib(daemon: Daemon, name: str) -> int:
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0])
