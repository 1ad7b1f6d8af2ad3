"""The broker goes away, loses records, grows partitions; the daemon is stopped in every bad moment.

Every test counts by identity: the file of predictions names each learned record by partition and offset, and is cut
back to the checkpoint after a crash, so that it holds exactly what the model has learned.
"""

import collections
import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka import TopicPartition as TheirPartition

from learnd.core.errors import BrokerUnavailableError, DataLossError
from learnd.core.types import Position, TopicPartition
from learnd.sources.kafka import KafkaSource
from learnd.sources.settings import KafkaSettings
from learnd.testing.kafka import KafkaCluster, make_broker
from tests.support import compile_cache
from tests.support.faults import Proxy, cut_back
from tests.support.helpers import SAVED_MODEL, Daemon, config_text, read_values, readings, until

RESUME_S = 30.0
STOP_S = 25.0


def _config(folder: Path, bootstrap: str, topics: Sequence[str], *, source: Any = None, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    common: dict[str, Any] = {
        "name": topics[0],
        "checkpoint": {"every_seconds": 1},
        "source": {"kind": "kafka", "bootstrap_servers": [bootstrap], "topics": list(topics), **(source or {})},
        "predictions": {"path": str(folder / "predictions.jsonl")},
    }
    config.write_text(config_text(folder / "data", **{**common, **sections}))
    return config


def _learned(config: Path) -> collections.Counter[tuple[str, int, int]]:
    whole, _, _ = config.with_name("predictions.jsonl").read_text().rpartition("\n")  # a daemon may be writing
    lines = map(json.loads, whole.splitlines())
    return collections.Counter((line["topic"], line["partition"], line["offset"]) for line in lines)


def _once_each(topic: str, *counts: int) -> collections.Counter[tuple[str, int, int]]:
    """What is learned when each of so many records of partitions 0, 1, ... is learned once."""
    return collections.Counter((topic, p, offset) for p, count in enumerate(counts) for offset in range(count))


def _has_learned(daemon: Daemon, config: Path, expected: collections.Counter[tuple[str, int, int]]) -> None:
    """What a checkpoint holds is *expected*, and stays so for two more; a kill spares the test the last export."""
    until(lambda: _learned(config) == expected, what=f"exactly {sum(expected.values())} records", timeout_s=60)
    saves = daemon.metric("learnd_checkpoints_total") or 0
    until(lambda: (daemon.metric("learnd_checkpoints_total") or 0) >= saves + 2, what="two more checkpoints")
    assert _learned(config) == expected
    daemon.kill()


def _learns(daemon: Daemon, count: int) -> None:
    until(lambda: (daemon.metric("learnd_model_samples") or 0) >= count, what=f"{count} samples in\n{daemon.log()}")


def _cpu_s(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def _admin(cluster: KafkaCluster, action: Callable[[KafkaAdminClient], Any]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        action(admin)
    finally:
        admin.close()


def _age_out(cluster: KafkaCluster, topic: str, before: int) -> None:
    _admin(cluster, lambda admin: admin.delete_records({TheirPartition(topic, 0): before}))


def _make_anew(cluster: KafkaCluster, topic: str, values: Sequence[bytes]) -> None:
    """Delete *topic* and create another one of its name that holds *values*."""
    _admin(cluster, lambda admin: admin.delete_topics([topic]))

    def created() -> bool:
        try:
            options = {"num_partitions": 1, "replication_factor": 1}
            _admin(cluster, lambda admin: admin.create_topics({topic: options}))
        except Exception:  # deleted in the background: it exists for a moment yet
            time.sleep(0.2)
            return False
        return True

    until(created, what="the new topic", timeout_s=30)
    cluster.produce(topic, values)


# ---- the broker goes away


@pytest.mark.parametrize("outage_s", [15.0, pytest.param(300.0, marks=pytest.mark.slow)])
def test_an_outage_is_lived_through(outage_s: float, kafka_broker: KafkaCluster, proxy: Proxy, tmp_path: Path) -> None:
    """Alive, not ready and idle while it lasts; ready within 30 s after it, with every record learned once."""
    topic = kafka_broker.create_topic("outage")
    kafka_broker.produce(topic, readings(500))
    config = _config(tmp_path / "run", proxy.bootstrap, [topic], checkpoint={"every_seconds": 5})
    with Daemon(config) as daemon:
        _learns(daemon, 500)
        assert daemon.get("/readyz")[0] == 200
        proxy.down()
        kafka_broker.produce(topic, readings(500, seed=1))
        until(lambda: daemon.get("/readyz")[0] == 503, what="readyz to tell", timeout_s=15)
        assert (daemon.metric("learnd_ready"), daemon.metric("learnd_source_connected")) == (0.0, 0.0)
        before_s, started_s = _cpu_s(daemon), time.monotonic()
        while time.monotonic() - started_s < outage_s:
            assert daemon.get("/livez")[0] == 200
            assert daemon.get("/readyz")[0] == 503
            time.sleep(1.0)
        share = (_cpu_s(daemon) - before_s) / (time.monotonic() - started_s)
        proxy.up()
        back_s = time.monotonic()
        _learns(daemon, 1000)
        resumed_s = time.monotonic() - back_s
        until(lambda: daemon.get("/readyz")[0] == 200, what="readyz", timeout_s=RESUME_S)
        print(f"idle {100 * share:.1f} % of a core, learning again after {resumed_s:.1f} s")
        assert share < 0.05
        assert resumed_s < RESUME_S
        assert (daemon.metric("learnd_ready"), daemon.metric("learnd_source_connected")) == (1.0, 1.0)
        assert daemon.stray_lines() == [], "the Kafka client has said something too"
        _has_learned(daemon, config, _once_each(topic, 1000))


def test_twenty_connection_resets_lose_and_repeat_nothing(
    kafka_broker: KafkaCluster, proxy: Proxy, tmp_path: Path
) -> None:
    """In the middle of a stream that does not wait for it."""
    topic = kafka_broker.create_topic("resets")
    config = _config(tmp_path / "run", proxy.bootstrap, [topic])
    values = readings(4000)
    resets = 0
    with Daemon(config) as daemon:
        until(lambda: daemon.get("/readyz")[0] == 200, what="readyz")
        for start in range(0, 4000, 200):
            kafka_broker.produce(topic, values[start : start + 200])
            until(lambda: proxy.reset() > 0, what="a connection to reset", timeout_s=30)
            resets += 1
        reset_s = time.monotonic()
        _learns(daemon, 4000)
        assert time.monotonic() - reset_s < RESUME_S
        assert daemon.get("/livez")[0] == 200
        _has_learned(daemon, config, _once_each(topic, 4000))
    assert resets == 20


def test_a_start_without_a_broker_waits_for_it_if_told_so(
    kafka_broker: KafkaCluster, proxy: Proxy, tmp_path: Path
) -> None:
    """Alive and not ready meanwhile; a stop in this time is a clean one. Otherwise: status 69."""
    topic = kafka_broker.create_topic("startup")
    kafka_broker.produce(topic, readings(100))
    proxy.down()
    fails = _config(tmp_path / "fails", proxy.bootstrap, [topic], source={"connect_timeout_s": 1})
    with Daemon(fails) as daemon:
        daemon.finish(code=BrokerUnavailableError.exit_code)
    waits = _config(tmp_path / "waits", proxy.bootstrap, [topic], source={"connect_timeout_s": 1, "startup": "retry"})
    with Daemon(waits) as daemon:
        daemon.wait_for("broker_unavailable")
        assert (daemon.get("/livez")[0], daemon.get("/readyz")[0]) == (200, 503)
        assert daemon.terminate() < STOP_S
    with Daemon(waits) as daemon:
        daemon.wait_for("broker_unavailable")
        proxy.up()
        _learns(daemon, 100)
        until(lambda: daemon.get("/readyz")[0] == 200, what="readyz", timeout_s=RESUME_S)
        _has_learned(daemon, waits, _once_each(topic, 100))


# ---- the records go away


def test_records_that_aged_out_stop_the_daemon_or_are_counted(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Both offsets are named; told to continue, it goes on at the oldest one left and counts the gap."""
    topic = kafka_broker.create_topic("aged")
    kafka_broker.produce(topic, readings(100))
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    with Daemon(config, "--once") as daemon:
        daemon.finish()
    kafka_broker.produce(topic, readings(100, seed=1))
    _age_out(kafka_broker, topic, 130)
    with Daemon(config) as daemon:
        daemon.finish(code=DataLossError.exit_code)
        error = daemon.events("stopped")[0]["error"]
        assert f"{topic}/0: the next offset to learn is 100, but the oldest one left is 130" in error
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], source={"on_data_loss": "continue"})
    with Daemon(config) as daemon:
        _learns(daemon, 170)
        assert daemon.metric("learnd_records_lost_total") == 30
        (event,) = daemon.events("records_lost")
        assert (event["offset"], event["resume"]) == (100, 130)
        lost = _once_each(topic, 130) - _once_each(topic, 100)
        _has_learned(daemon, config, _once_each(topic, 200) - lost)


@pytest.mark.parametrize("isolation_level", ["read_uncommitted", "read_committed"])
def test_the_markers_of_transactions_are_no_records_that_aged_out(
    isolation_level: str, kafka_broker: KafkaCluster
) -> None:
    """They are stepped over in the offsets too: when all is deleted, nothing was lost, and nothing lags."""
    topic = kafka_broker.create_topic("transactions")
    producer = KafkaProducer(bootstrap_servers=kafka_broker.bootstrap, acks="all", transactional_id=topic)
    try:
        producer.init_transactions()
        for end in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            for value in readings(20):
                producer.send(topic, value)
            producer.flush()
            end()
    finally:
        producer.close()
    settings = KafkaSettings(
        kind="kafka", bootstrap_servers=[kafka_broker.bootstrap], topics=[topic], isolation_level=isolation_level
    )
    source = KafkaSource(settings, group_id=topic)
    source.open({})
    offsets: dict[TopicPartition, int] = {}

    def stepped_over() -> bool:
        offsets.update({block.origin: block.next.offset for block in source.poll(7, 0.2)})
        return list(offsets.values()) == [42]

    until(stepped_over, what="both markers", timeout_s=20)
    assert list(source.lags().values()) == [0]
    source.close()
    _age_out(kafka_broker, topic, 42)
    source.open({origin: Position(offset) for origin, offset in offsets.items()})  # or it would stop here
    assert [position.offset for position in source.positions().values()] == [42]
    source.close()


@pytest.mark.parametrize("arguments", [["--once"], pytest.param([], marks=pytest.mark.slow)], ids=str)
def test_what_a_start_found_lost_is_in_the_checkpoint_also_where_nothing_is_left(
    arguments: list[str], kafka_broker: KafkaCluster, tmp_path: Path
) -> None:
    """Told to continue for one start, the next one finds nothing lost."""
    topic = kafka_broker.create_topic("all-aged")
    kafka_broker.produce(topic, readings(30))
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    with Daemon(config, "--max-records", "10") as daemon:
        daemon.finish()
    _age_out(kafka_broker, topic, 30)
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], source={"on_data_loss": "continue"})
    with Daemon(config, *arguments) as daemon:
        if not arguments:
            until(lambda: daemon.metric("learnd_records_lost_total") == 20, what="the gap", timeout_s=60)
            daemon.terminate()
        daemon.finish()
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    with Daemon(config, "--once") as daemon:
        daemon.finish()


@pytest.mark.slow
def test_logs_that_were_cut_back_are_noticed_in_every_partition(tmp_path: Path) -> None:
    """As by an unclean election: nothing above the cut is passed over, and what was learned is not learned again."""
    with _own_broker(tmp_path) as cluster:
        topic = _three_partitions(cluster)
        settings = {"kind": "kafka", "bootstrap_servers": [cluster.bootstrap], "topics": [topic]}
        told = {p: KafkaSource(KafkaSettings(**settings, on_data_loss=p), group_id=p) for p in ("stop", "continue")}
        for source in told.values():
            source.open({})
            assert len(read_values(source, 300)) == 300
        _cut_two_and_grow(cluster, topic)
        with pytest.raises(DataLossError, match=rf"{topic}/[01]: .* is 100, but the log was cut back to (60|70)"):
            until(lambda: told["stop"].poll(100, 0.2), what="a stop")
        lost: dict[int, int] = {}
        new: dict[int, int] = {}

        def all_there() -> bool:
            for block in told["continue"].poll(100, 0.2):
                lost[block.origin.partition] = lost.get(block.origin.partition, 0) + block.lost
                new[block.origin.partition] = new.get(block.origin.partition, 0) + len(block)
            return new == {0: 50, 1: 50, 2: 50}

        until(all_there, what="the new records of all partitions")
        assert lost == {0: 40, 1: 30, 2: 0}
        for source in told.values():
            source.close()


@pytest.mark.slow
def test_logs_that_were_cut_back_and_grew_while_learnd_was_away_are_noticed(tmp_path: Path) -> None:
    """All offsets of the checkpoint are there again, but other records stand before them."""
    with _own_broker(tmp_path) as cluster:
        topic = _three_partitions(cluster)
        config = _config(tmp_path / "run", cluster.bootstrap, [topic])
        with Daemon(config, "--once") as daemon:
            daemon.finish()
        assert _learned(config) == _once_each(topic, 100, 100, 100)
        _cut_two_and_grow(cluster, topic)
        with Daemon(config) as daemon:
            daemon.finish(code=DataLossError.exit_code)
            (event,) = daemon.events("stopped")
        wanted = rf"{topic}/[01]: the next offset to learn is 100, but the log was cut back to (60|70)"
        assert re.search(wanted, event["error"])
        config = _config(tmp_path / "run", cluster.bootstrap, [topic], source={"on_data_loss": "continue"})
        with Daemon(config) as daemon:
            _learns(daemon, 450)
            assert daemon.metric("learnd_records_lost_total") == 70
            # What took the place of learned records has their offsets.
            again = collections.Counter(
                (topic, p, offset) for p, cut in ((0, 60), (1, 70)) for offset in range(cut, 100)
            )
            _has_learned(daemon, config, _once_each(topic, 110, 120, 150) + again)
        with Daemon(config, "--once") as daemon:  # and once told it is over
            daemon.finish()
        assert not daemon.events("records_lost")


@contextlib.contextmanager
def _own_broker(folder: Path) -> Iterator[KafkaCluster]:
    """One that may be stopped, and its files cut."""
    broker = make_broker(folder / "broker")
    (folder / "broker").mkdir()
    broker.start()
    try:
        yield KafkaCluster(broker.bootstrap, broker)
    finally:
        broker.stop()


def _three_partitions(cluster: KafkaCluster) -> str:
    """A topic of three partitions, each with 100 records in ten batches."""
    topic = cluster.create_topic(partitions=3)
    for partition in range(3):
        for start in range(0, 100, 10):
            cluster.produce(topic, readings(10, seed=start + partition), partition=partition)
    return topic


def _cut_two_and_grow(cluster: KafkaCluster, topic: str) -> None:
    """Cut partition 0 back to 60 and 1 to 70; then each of the three gets 50 new records."""
    broker = cluster.broker
    assert broker is not None
    broker.stop()
    for partition, batch in ((0, 6), (1, 7)):
        cut_back(broker, topic, batch, partition=partition)
    broker.start()
    for partition in range(3):
        cluster.produce(topic, readings(50, seed=1000 + partition), partition=partition)


@pytest.mark.parametrize(
    "records", [pytest.param(60, marks=pytest.mark.slow, id="shorter"), pytest.param(150, id="longer")]
)
def test_a_topic_that_was_made_anew_is_noticed(records: int, kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """By its identity, also where it holds more records than before; told to continue, all of them are learned."""
    topic = kafka_broker.create_topic("anew")
    kafka_broker.produce(topic, readings(100))
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    with Daemon(config, "--once") as daemon:
        daemon.finish()
    _make_anew(kafka_broker, topic, readings(records, seed=1))
    with Daemon(config) as daemon:
        daemon.finish(code=DataLossError.exit_code)
        assert "the topic was deleted and recreated" in daemon.events("stopped")[0]["error"]
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], source={"on_data_loss": "continue"})
    for _ in range(2):  # and its identity is in the checkpoint: the second start finds nothing new
        with Daemon(config, "--once") as daemon:
            daemon.finish()
            assert daemon.events("finished")[-1]["model_samples"] == 100 + records
    assert _learned(config) == _once_each(topic, 100) + _once_each(topic, records)


@pytest.mark.slow
def test_a_topic_made_anew_while_the_daemon_runs_is_noticed(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Without a restart; the records of the new one are learned from its beginning."""
    topic = kafka_broker.create_topic("anew-running")
    kafka_broker.produce(topic, readings(100))
    source = {"on_data_loss": "continue", "discover_every_s": 1}
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], source=source)
    with Daemon(config) as daemon:
        _learns(daemon, 100)
        _make_anew(kafka_broker, topic, readings(150, seed=1))
        _learns(daemon, 250)
        assert daemon.events("topic_recreated")
        _has_learned(daemon, config, _once_each(topic, 100) + _once_each(topic, 150))


# ---- partitions


def test_new_partitions_are_found_and_learned_from_their_beginning(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """While the daemon runs, and while it does not, even where it started from the latest record."""
    topic = kafka_broker.create_topic("grows")
    kafka_broker.produce(topic, readings(50))
    source = {"discover_every_s": 1, "start_from": "latest"}
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], source=source)
    with Daemon(config) as daemon:
        until(lambda: daemon.get("/readyz")[0] == 200, what="readyz")
        kafka_broker.produce(topic, readings(50, seed=1))
        _learns(daemon, 50)
        _admin(kafka_broker, lambda admin: admin.create_partitions({topic: 2}))
        kafka_broker.produce(topic, readings(70, seed=2), partition=1)
        _learns(daemon, 120)
        daemon.terminate()
    _admin(kafka_broker, lambda admin: admin.create_partitions({topic: 3}))
    kafka_broker.produce(topic, readings(90, seed=3), partition=2)
    with Daemon(config) as daemon:
        _learns(daemon, 210)
        _has_learned(daemon, config, _once_each(topic, 100, 70, 90) - _once_each(topic, 50))


@pytest.mark.slow
def test_kills_in_the_middle_of_several_partitions_and_topics(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Each partition goes on exactly where the checkpoint has it."""
    topics = [kafka_broker.create_topic("kills-a", partitions=3), kafka_broker.create_topic("kills-b", partitions=2)]
    places = [(topics[0], 0), (topics[0], 1), (topics[0], 2), (topics[1], 0), (topics[1], 1)]
    rounds, portion = 12, 150

    def feed() -> None:
        for turn in range(rounds):
            for number, (topic, partition) in enumerate(places):
                values = readings(portion, seed=turn * 10 + number)
                kafka_broker.produce(topic, values, partition=partition)

    config = _config(
        tmp_path / "run", kafka_broker.bootstrap, topics, checkpoint={"every_seconds": None, "every_samples": 300}
    )
    feeding = threading.Thread(target=feed)
    feeding.start()
    for count in (1, 1500, 4000):
        with Daemon(config) as daemon:
            _learns(daemon, count)
            daemon.kill()
    feeding.join()
    with Daemon(config, "--once") as daemon:
        daemon.finish()
    whole = rounds * portion
    assert _learned(config) == _once_each(topics[0], *[whole] * 3) + _once_each(topics[1], *[whole] * 2)


# ---- signals


@pytest.mark.slow
def test_sigterm_under_load_relearns_nothing(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """Status 0 in time, and the next start goes on with the very next record."""
    topic = kafka_broker.create_topic("term")
    kafka_broker.produce(topic, readings(20_000))
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    learned = 0
    for _ in range(2):
        with Daemon(config) as daemon:
            _learns(daemon, learned + 100)
            assert daemon.terminate() < STOP_S
            learned = daemon.events("finished")[-1]["samples"]
            assert sum(_learned(config).values()) == learned
    with Daemon(config, "--once") as daemon:
        daemon.finish()
    assert _learned(config) == _once_each(topic, 20_000)


def test_sigterm_with_the_broker_gone_saves_what_was_read(
    kafka_broker: KafkaCluster, proxy: Proxy, tmp_path: Path
) -> None:
    """Dead letters that no broker took are in the checkpoint: they hold nothing up, and arrive after the next start."""
    topic, dead = kafka_broker.create_topic("gone"), kafka_broker.create_topic("gone-dead")
    kafka_broker.produce(topic, readings(300))
    checkpoint = {"every_seconds": 3600}
    config = _config(tmp_path / "run", proxy.bootstrap, [topic], dead_letter={"topic": dead}, checkpoint=checkpoint)
    with Daemon(config) as daemon:
        _learns(daemon, 300)
        # The last that the broker says are bad records; what becomes of them reaches it no more.
        said = threading.Event()

        def last_words(data: bytes) -> bytes:
            if b"no json" in data:
                proxy.deaf = True
                said.set()
            return data

        proxy.alter = last_words
        kafka_broker.produce(topic, [*[b"no json"] * 40, *readings(100, seed=1)])
        assert said.wait(30)
        until(lambda: daemon.metric("learnd_records_rejected_total", reason="unparsable"), what="bad records")
        until(lambda: daemon.get("/readyz")[0] == 503, what="readyz to tell", timeout_s=30)
        assert daemon.metric("learnd_deliveries_pending", sink="dead_letters") == 40
        proxy.down()
        took_s = daemon.terminate()
        print(f"ended after {took_s:.1f} s with the broker gone")
        assert took_s < STOP_S
        samples = daemon.events("finished")[-1]["samples"]
    assert sum(_learned(config).values()) == samples
    assert daemon.events("deliveries_pending")
    proxy.alter, proxy.deaf = (lambda data: data), False
    proxy.up()
    with Daemon(config, "--once") as daemon:
        daemon.finish()
        assert daemon.events("deliveries_resumed")
    bad = {(topic, 0, offset) for offset in range(300, 340)}
    assert _learned(config) == collections.Counter(set(_once_each(topic, 440)) - bad)
    letters = kafka_broker.consume(dead, count=40)
    told = {dict(letter.headers)["__connect.errors.offset"] for letter in letters}
    assert told == {str(offset).encode() for offset in range(300, 340)}


@pytest.mark.slow
def test_sigterm_ends_in_time_though_the_broker_hangs_and_an_export_too(
    kafka_broker: KafkaCluster, proxy: Proxy, tmp_path: Path
) -> None:
    """All that must be waited for at an end has to fit: both topics, the commit, the export, and letting go."""
    topic, dead, predictions = (kafka_broker.create_topic(name) for name in ("hangs", "dead", "predictions"))
    kafka_broker.produce(topic, [record for good in readings(20_000) for record in (good, b"no json")])
    (tmp_path / "sleepy.py").write_text(
        "import sys, time, keras\n"
        "def make(input_shape, outputs):\n"
        "    if any('export_worker' in word for word in sys.argv): time.sleep(60)\n"
        "    return keras.Sequential([keras.Input(input_shape), keras.layers.Dense(outputs)])\n"
    )
    config = _config(
        tmp_path / "run",
        proxy.bootstrap,
        [topic],
        model={"factory": "sleepy:make"},
        dead_letter={"topic": dead},
        predictions={"topic": predictions},
        export=SAVED_MODEL,
    )
    with Daemon(config, environ={"PYTHONPATH": str(tmp_path)}) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total"), what="samples")
        proxy.deaf = True
        took_s = daemon.terminate()
        print(f"ended after {took_s:.1f} s with the broker and an export hanging")
        assert took_s < STOP_S
        assert "Traceback" not in daemon.log()


@pytest.mark.slow
def test_sigterm_while_the_model_is_compiled_ends_in_time(kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """With status 0, whatever the compiler is at; a second signal ends at once, and the next start learns it all."""
    topic = kafka_broker.create_topic("compiles")
    kafka_broker.produce(topic, readings(200))
    model = {"kind": "lstm", "units": 96}
    task = {"kind": "forecast", "window": 48}
    slow = {
        "decode": {"kind": "json", "key": "k", "time": "t", "time_numbers": "any"},
        "model": model,
        "task": task,
        "target": None,
    }
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], **slow)
    with Daemon(config, environ=compile_cache.WITHOUT) as daemon:
        daemon.wait_for("http_listening")
        assert not daemon.events("finished")
        assert daemon.terminate() < STOP_S
    with Daemon(config, environ=compile_cache.WITHOUT) as daemon:
        daemon.wait_for("http_listening")
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) in (0, 128 + signal.SIGTERM)
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic], **slow)
    with Daemon(config, "--once") as daemon:
        daemon.finish()
        assert daemon.events("finished")[-1]["records"] == 200


@pytest.mark.parametrize("pause_s", [8.0, pytest.param(120.0, marks=pytest.mark.slow)])
def test_a_frozen_process_goes_on(pause_s: float, kafka_broker: KafkaCluster, tmp_path: Path) -> None:
    """SIGSTOP, then SIGCONT: nothing lost, nothing twice."""
    topic = kafka_broker.create_topic("frozen")
    kafka_broker.produce(topic, readings(2000))
    config = _config(tmp_path / "run", kafka_broker.bootstrap, [topic])
    with Daemon(config) as daemon:
        _learns(daemon, 100)
        daemon.process.send_signal(signal.SIGSTOP)
        kafka_broker.produce(topic, readings(1000, seed=1))
        time.sleep(pause_s)
        daemon.process.send_signal(signal.SIGCONT)
        _learns(daemon, 3000)
        _has_learned(daemon, config, _once_each(topic, 3000))
