"""What only a real broker can show: dead letters, starting points, data loss and health."""

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import learnd
from learnd.cli.main import main
from learnd.core.errors import BrokerUnavailableError, ConfigError, DataLossError
from learnd.core.types import Position, TopicPartition, offsets_of
from learnd.sinks.topics import TopicSink
from learnd.sources.kafka import KafkaSource
from learnd.sources.settings import KafkaSettings
from learnd.testing.kafka import KafkaCluster, free_ports
from tests.support.helpers import Daemon, config_text, read_values, readings, until


def _source(broker: KafkaCluster, topic: str, **options: Any) -> KafkaSource:
    settings = KafkaSettings(kind="kafka", bootstrap_servers=[broker.bootstrap], topics=[topic], **options)
    return KafkaSource(settings, group_id="learnd-tests")


def test_a_configuration_can_be_made_from_a_topic(
    kafka_broker: KafkaCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From its JSON records, nested or not; and the data of a topic can be looked at without learning them."""
    topic, path = kafka_broker.create_topic("plant"), tmp_path / "plant.yaml"
    kafka_broker.produce(
        topic, [json.dumps({"ts": 1705320000 + i, "d": {"a": i, "b": 2.5 * i}, "y": -i}).encode() for i in range(30)]
    )
    assert main(["init", str(path), "--from", f"kafka://{kafka_broker.bootstrap}/{topic}"]) == 0
    assert "paths:\n    a: d.a\n    b: d.b\n" in path.read_text()
    assert main(["validate", "--data", str(path)]) == 0
    assert capsys.readouterr().out.count("30 records: 30 accepted, 0 rejected") == 2
    empty = kafka_broker.create_topic("empty")
    assert main(["init", str(tmp_path / "e.yaml"), "--from", f"kafka://{kafka_broker.bootstrap}/{empty}"]) == 64
    assert "has no JSON among its first 0 records" in capsys.readouterr().err


def test_bad_records_reach_the_dead_letter_topic_and_stop_nothing(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Whole, with Kafka Connect's headers, counted by reason; predictions of the good ones reach their topic."""
    topic = kafka_broker.create_topic("sensors")
    dead, predictions = kafka_broker.create_topic("dead"), kafka_broker.create_topic("predictions")
    good = readings(40)
    bad: dict[bytes | None, str] = {
        b"junk": "unparsable",
        b'{"a": "1", "b": 1, "c": 1, "y": 1}': "wrong_type",
        b'{"a": 1, "b": 1, "y": 1}': "missing_field",
        b'{"a": Infinity, "b": 1, "c": 1, "y": 1}': "not_finite",
        b'{"a": -1e9, "b": 1, "c": 1, "y": 1}': "out_of_range",
        b"x" * 5000: "oversized",
        None: "tombstone",
        b'{"a": 1, "b": 1, "c": 1, "y": 1, "k": "\xff"}': "bad_utf8",
    }
    kafka_broker.produce(topic, [*good[:20], *bad, *good[20:]])
    config = tmp_path / "config.yaml"
    config.write_text(
        config_text(
            tmp_path / "data",
            source={"kind": "kafka", "bootstrap_servers": [kafka_broker.bootstrap], "topics": [topic]},
            decode={"kind": "json", "max_bytes": 1000},
            features={"a": {"min": -1000}, "b": None, "c": None},
            dead_letter={"topic": dead},
            predictions={"topic": predictions},
        )
    )
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 40, what="the good records")
        for reason in bad.values():
            assert daemon.metric("learnd_records_rejected_total", reason=reason) == 1, reason
        assert daemon.metric("learnd_consumer_lag_records", topic=topic) == 0
        daemon.terminate()
    letters = kafka_broker.consume(dead, count=len(bad))
    assert [letter.value for letter in letters] == list(bad)
    for position, (letter, reason) in enumerate(zip(letters, bad.values(), strict=True)):
        headers = {name.removeprefix("__connect.errors."): value.decode() for name, value in letter.headers}
        assert headers["exception.class.name"] == reason
        assert headers["exception.message"]
        assert (headers["topic"], headers["partition"], headers["offset"]) == (topic, "0", str(20 + position))
        assert headers["connector.name"] == "test"
    told = kafka_broker.consume(predictions, count=40)
    assert [json.loads(record.value)["offset"] for record in told] == [*range(20), *range(28, 48)]


def test_health_and_metrics_over_http(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Everything that an operator watches is there, and nothing else answers."""
    topic = kafka_broker.create_topic(partitions=2)
    for partition in (0, 1):
        kafka_broker.produce(topic, readings(500, seed=partition), partition=partition)
    config = tmp_path / "config.yaml"
    source = {"kind": "kafka", "bootstrap_servers": [kafka_broker.bootstrap], "topics": [topic]}
    config.write_text(config_text(tmp_path / "data", source=source))
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 1000, what="1000 samples")
        assert daemon.get("/livez")[0] == daemon.get("/readyz")[0] == 200
        for path in ("/", "/metric", "/metrics/x", "/../etc/passwd"):
            assert daemon.get(path)[0] == 404
        text = daemon.get("/metrics")[1]
        for name in (
            "learnd_records_consumed_total 1000.0",
            "learnd_updates_total 1000.0",
            'learnd_prequential_loss{weights="live"}',
            'learnd_prequential_loss{weights="averaged"}',
            "learnd_update_duration_seconds_count",
            f'learnd_consumer_lag_records{{partition="1",topic="{topic}"}} 0.0',
            "learnd_checkpoints_total",
            "learnd_checkpoint_duration_seconds",
            "learnd_checkpoint_last_success_timestamp_seconds",
            "learnd_export_duration_seconds",
            "learnd_export_last_success_timestamp_seconds",
            "learnd_compiled_retraces 0.0",
            'learnd_build_info{name="test"',
            "process_resident_memory_bytes",
        ):
            assert name in text, name
        now = time.time()
        assert now - 120 < (daemon.metric("learnd_checkpoint_last_success_timestamp_seconds") or 0) <= now
        daemon.terminate()


def test_a_dead_letter_that_the_topic_finds_too_large_arrives_cut(kafka_broker: KafkaCluster) -> None:
    """Its headers say where the whole one is; a flush neither loses it nor fails for ever."""
    topic = kafka_broker.create_topic(configs={"max.message.bytes": "10000"})
    sink = TopicSink(topic, {"bootstrap_servers": kafka_broker.bootstrap}, key="dead_letter.topic")
    sink.open()
    sink.send([(b"x" * 50_000, b"k", [("reason", b"oversized")]), (b"small", None, [])])
    sink.flush()
    sink.close()
    records = {len(record.value): dict(record.headers) for record in kafka_broker.consume(topic, count=2)}
    assert records == {5: {}, 1000: {"reason": b"oversized", "learnd.value.bytes": b"50000"}}


def test_an_answer_between_two_polls_is_a_sign_of_life(kafka_broker: KafkaCluster) -> None:
    """kafka-python hears it on a thread of its own; the poll that finds the records ready need not hear another."""
    topic = kafka_broker.create_topic()
    servers = [kafka_broker.bootstrap]
    # The broker holds the fetch of the first poll back until there is a record.
    settings = KafkaSettings(kind="kafka", bootstrap_servers=servers, topics=[topic], fetch_max_wait_ms=20_000)
    looks = itertools.count()
    source = KafkaSource(settings, group_id="learnd-tests", clock=lambda: 100.0 * next(looks))
    source.open({})
    assert source.poll(10, 2.0) == []
    assert not source.connected(), "that poll took 100 s by this clock"
    kafka_broker.produce(topic, [b"one"])
    until(lambda: source._consumer._fetcher._completed_fetches, what="the answer", timeout_s=15)
    assert [value for block in source.poll(10, 0.0) for value in block.values] == [b"one"]
    assert source.connected()
    source.close()


def test_a_sinks_topic_that_is_not_there_is_a_mistake_of_the_configuration(kafka_broker: KafkaCluster) -> None:
    """No broker that is away: waiting for it would not help."""
    near = kafka_broker.create_topic("not-there-but-elsewhere")
    sink = TopicSink("not-there", {"bootstrap_servers": kafka_broker.bootstrap}, key="predictions.topic")
    with pytest.raises(
        ConfigError, match=r"predictions\.topic: not-there does not exist on .*--topic not-there`"
    ) as told:
        sink.open()
    assert near in str(told.value)
    sink.close()


def test_start_from_latest_and_from_a_timestamp(kafka_broker: KafkaCluster) -> None:
    """Only where no offset is known; a known one wins."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, [b"old"])
    time.sleep(0.05)
    between = datetime.now(UTC)
    time.sleep(0.05)
    kafka_broker.produce(topic, [b"new"])
    partition = TopicPartition(topic, 0)

    since = _source(kafka_broker, topic, start_from=between)
    since.open({})
    assert read_values(since, 1) == [b"new"]
    since.close()

    future = _source(kafka_broker, topic, start_from=between + timedelta(days=1))
    future.open({})
    assert offsets_of(future.positions()) == {partition: 2}
    future.close()

    latest = _source(kafka_broker, topic, start_from="latest")
    latest.open({})
    assert offsets_of(latest.positions()) == {partition: 2}
    kafka_broker.produce(topic, [b"later"])
    assert read_values(latest, 1) == [b"later"]
    latest.close()

    known = _source(kafka_broker, topic, start_from="latest")
    known.open({partition: Position(1)})
    assert read_values(known, 2) == [b"new", b"later"]
    assert known.ends() == {partition: 3}
    known.close()


def test_offsets_that_are_gone_stop_the_daemon(kafka_broker: KafkaCluster) -> None:
    """Both offsets are named; nothing jumps to another place in silence."""
    topic = kafka_broker.create_topic()
    kafka_broker.produce(topic, [b"x"] * 5)
    beyond = _source(kafka_broker, topic)
    beyond.open({TopicPartition(topic, 0): Position(99)})
    with pytest.raises(DataLossError, match="the next offset to learn is 99, but the broker holds 0 to 5"):
        for _ in range(50):
            beyond.poll(10, 0.2)
    beyond.close()


def test_a_topic_that_does_not_exist_is_a_configuration_error(kafka_broker: KafkaCluster) -> None:
    """After a short wait, with its name and the broker's, what it may have been, and the command that creates it."""
    near = kafka_broker.create_topic("no-such-topics")
    source = _source(kafka_broker, "no-such-topic", connect_timeout_s=1.0)
    with pytest.raises(ConfigError, match=r"source\.topics: no-such-topic does not exist on") as told:
        source.open({})
    assert f"did you mean {near}" in str(told.value)
    command = f"kafka-topics.sh --bootstrap-server {kafka_broker.bootstrap} --create --topic no-such-topic"
    assert f"`{command}`" in str(told.value)
    source.close()


def test_no_broker_is_exit_code_69(tmp_path: Path) -> None:
    """The error names the address and the way out."""
    address = f"127.0.0.1:{free_ports()[0]}"
    source = {"kind": "kafka", "bootstrap_servers": [address], "topics": ["t"], "connect_timeout_s": 1}
    config = tmp_path / "config.yaml"
    config.write_text(config_text(tmp_path / "data", source=source))
    with Daemon(config) as daemon:
        daemon.finish(code=BrokerUnavailableError.exit_code)
        assert f"no broker answers at {address}" in daemon.events("stopped")[0]["error"]
        assert daemon.stray_lines() == [], "the Kafka client has said something too"


def test_the_python_api_takes_n_records_and_then_the_rest(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """``max_records``, then the present end of the topic, then records that arrive while it follows."""
    topic = kafka_broker.create_topic()
    values = readings(90)
    kafka_broker.produce(topic, values[:60])
    source = {"kind": "kafka", "bootstrap_servers": [kafka_broker.bootstrap], "topics": [topic]}
    text = config_text(tmp_path / "data", source=source, model={"kind": "linear"}, learning={"compile": False})
    settings = learnd.loads(text)
    assert learnd.run(settings, max_records=25).state.positions == {(topic, 0): 25}
    rest = learnd.run(settings)
    assert [line["offset"] for line in rest.predictions] == list(range(25, 60))
    kafka_broker.produce(topic, values[60:])
    followed = learnd.run(settings, follow=True, max_records=30)
    assert (followed.records, followed.state.samples) == (30, 90)
