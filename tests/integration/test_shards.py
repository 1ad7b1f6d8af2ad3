"""Shards: daemons that each own some partitions of one topic."""

import json
from pathlib import Path
from typing import Any

import pytest

from learnd.core.errors import ConfigError
from learnd.core.types import TopicPartition
from learnd.runtime.loop import run
from learnd.sources.kafka import KafkaSource
from learnd.sources.settings import KafkaSettings, ShardSettings
from learnd.testing.kafka import KafkaCluster
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import readings, settings

PARTITIONS, RECORDS = 5, 60


def _options(broker: KafkaCluster, topic: str, index: int, of: int) -> dict[str, Any]:
    return {
        "kind": "kafka",
        "bootstrap_servers": [broker.bootstrap],
        "topics": [topic],
        "shard": {"index": index, "of": of},
    }


def _learn(broker: KafkaCluster, topic: str, folder: Path, index: int, of: int) -> list[tuple[int, int]]:
    """Learn one shard to the present end; return the partition and offset of each learned record so far."""
    pipeline = make_pipeline(
        settings(
            folder / "data",
            name=f"shard-{index}",
            source=_options(broker, topic, index, of),
            learning={"mode": "per_sample", "compile": False},
            predictions={"path": str(folder / "predictions.jsonl")},
        ),
        once=True,
    )
    run(pipeline, stopping=lambda: False)
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [(line["partition"], line["offset"]) for line in map(json.loads, lines)]


def test_two_shards_side_by_side_learn_each_record_once(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Each its own partitions, p mod 2, from its own checkpoint, also after both were started again."""
    topic = kafka_broker.create_topic(partitions=PARTITIONS)
    values = readings(2 * RECORDS)
    shards = {index: tmp_path / str(index) for index in (0, 1)}
    for folder in shards.values():
        folder.mkdir()
    for part in (values[:RECORDS], values[RECORDS:]):
        for partition in range(PARTITIONS):
            kafka_broker.produce(topic, part[partition::PARTITIONS], partition=partition)
        learned = {index: _learn(kafka_broker, topic, folder, index, 2) for index, folder in shards.items()}
    assert {partition for partition, _ in learned[0]} == {0, 2, 4}
    assert {partition for partition, _ in learned[1]} == {1, 3}
    everything = [*learned[0], *learned[1]]
    per_partition = 2 * RECORDS // PARTITIONS
    assert sorted(everything) == [(p, offset) for p in range(PARTITIONS) for offset in range(per_partition)]


def test_a_changed_shard_does_not_take_over_a_state(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Its positions are those of other partitions: they would be lost here, and learned twice elsewhere."""
    topic = kafka_broker.create_topic(partitions=4)
    for partition in range(4):
        kafka_broker.produce(topic, readings(5), partition=partition)
    _learn(kafka_broker, topic, tmp_path, 1, 2)
    with pytest.raises(ConfigError, match=r"source: the checkpoints .* were learned with .*'index': 1.*'index': 0"):
        _learn(kafka_broker, topic, tmp_path, 0, 2)


def test_a_shard_without_partitions_says_so(kafka_broker: KafkaCluster) -> None:
    """More shards than partitions is a mistake, not an idle daemon."""
    topic = kafka_broker.create_topic(partitions=2)
    source = KafkaSource(KafkaSettings(**_options(kafka_broker, topic, 3, 4)), group_id="learnd-tests")
    with pytest.raises(ConfigError, match=r"source.shard: no partition of .* belongs to this shard \(index=3 of=4\)"):
        source.open({})
    source.close()


def test_a_shard_opens_only_its_partitions(kafka_broker: KafkaCluster) -> None:
    """Those of the others are neither read nor counted as lag."""
    topic = kafka_broker.create_topic(partitions=PARTITIONS)
    source = KafkaSource(KafkaSettings(**_options(kafka_broker, topic, 1, 3)), group_id="learnd-tests")
    source.open({})
    assert set(source.positions()) == {TopicPartition(topic, 1), TopicPartition(topic, 4)}
    source.close()


def test_an_index_beyond_the_number_of_shards_is_refused() -> None:
    """With the numbers that there are."""
    with pytest.raises(ValueError, match="index is 4, but 4 shards are numbered 0 to 3"):
        ShardSettings(index=4, of=4)
