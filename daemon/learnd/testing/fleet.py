"""``python -m learnd.testing.fleet``: a local Kafka broker, and a simulated fleet that produces to a topic.

It provides the stream for ``configs/press-7.yaml`` on a machine without Kafka. It needs ``learnd[testing]``; Ctrl-C
stops it.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer

from learnd.sources.settings import SimulatorSettings
from learnd.sources.simulator import SimulatorSource
from learnd.testing.kafka import make_broker


def main() -> None:
    """Run the broker and the fleet until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m learnd.testing.fleet", description=__doc__)
    parser.add_argument("--port", type=int, default=9092, help="port of the broker")
    parser.add_argument("--topic", default="press-7.sensors", help="topic of the readings")
    parser.add_argument("--dead-letters", default="press-7.dead", help="topic to create for rejected records")
    parser.add_argument("--predictions", default="press-7.predictions", help="topic to create for predictions")
    parser.add_argument("--rate", type=float, default=2000.0, help="records per second")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="learnd-fleet-") as folder, contextlib.suppress(KeyboardInterrupt):
        broker = make_broker(Path(folder), port=options.port)
        broker.start()
        try:
            topics = (options.topic, options.dead_letters, options.predictions)
            admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
            admin.create_topics({topic: {"num_partitions": 1, "replication_factor": 1} for topic in topics})
            admin.close()
            print(f"{options.rate:g} records per second to {options.topic} at {broker.bootstrap}; Ctrl-C stops it")  # noqa: T201
            _produce(broker.bootstrap, options.topic, options.rate)
        finally:
            broker.stop()


def _produce(bootstrap: str, topic: str, rate_per_s: float) -> None:
    source = SimulatorSource(SimulatorSettings(kind="simulator", rate_per_s=rate_per_s))
    source.open({})
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=20)
    try:
        while True:
            for block in source.poll(1000, 0.1):
                for value in block.values:
                    producer.send(topic, value=value)
    finally:
        producer.close(timeout=2.0)


if __name__ == "__main__":
    main()
