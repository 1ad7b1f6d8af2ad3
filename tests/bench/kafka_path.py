"""The whole path from a topic of JSON to learned weights, against the same consumer that only polls and decodes.

Both sides read the same topic through the same reader thread; one throws the batches away, the other learns them (MLP
16-32-16-1, windowed averaging, metrics). `python -m tests.bench.kafka_path`
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.sides import interleave, median, show, spread  # isort: skip - sets the log level

import time

import numpy as np

from learnd.config.loader import loads
from learnd.config.settings import Settings
from learnd.runtime.reader import Reader
from learnd.testing.kafka import KafkaCluster, running_cluster
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.pipeline import make_pipeline
from learnd.wiring.stream import make_decoder, make_source
from tests.support.helpers import config_text

RECORDS, ROUNDS = 300_000, 5
NAMES = [f"sensor_{i:02d}" for i in range(16)]


def _records() -> list[bytes]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(RECORDS, 16)).round(4)
    target = (rows @ random.normal(size=16)).round(4)
    return [
        json.dumps({"ts": 60.0 * i, "machine": f"m{i % 5}", **dict(zip(NAMES, row, strict=True)), "y": y}).encode()
        for i, (row, y) in enumerate(zip(rows.tolist(), target.tolist(), strict=True))
    ]


def _settings(cluster: KafkaCluster, topic: str, optimizer: str, folder: Path) -> Settings:
    text = config_text(
        folder,
        source={"kind": "kafka", "bootstrap_servers": [cluster.bootstrap], "topics": [topic]},
        decode={"kind": "json", "time": "ts", "key": "machine"},
        features=NAMES,
        model={"kind": "mlp", "hidden": [32, 16]},
        learning={"optimizer": {"kind": optimizer}},
        averaging={"kind": "window", "size": 20, "every_samples": 100},
    )
    return loads(text)


def _only_read(settings: Settings) -> float:
    decoder = make_decoder(settings)
    reader = Reader(make_source(settings, decoder), decoder, once=True)
    return _rate(reader, lambda batch: None)


def _learn(settings: Settings, pipeline: Any) -> float:
    decoder = make_decoder(settings)
    pipeline.reader = Reader(make_source(settings, decoder), decoder, once=True)
    return _rate(pipeline.reader, pipeline.learn)


def _rate(reader: Reader, take: Any) -> float:
    reader.start({})
    count, started_s = 0, 0.0
    while not reader.finished:
        batch = reader.next(timeout_s=1.0)
        if batch is None:
            continue
        if not started_s:
            started_s = time.perf_counter()
        else:
            count += batch.record_count
        take(batch)
    rate = count / (time.perf_counter() - started_s)
    reader.close()
    return rate


def main() -> None:
    """Print the table."""
    rows = []
    with running_cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        topic = cluster.create_topic("bench")
        cluster.produce(topic, _records())
        for optimizer in ("sgd", "adam"):
            settings = _settings(cluster, topic, optimizer, Path(folder))
            configure_tensorflow(settings.learning)
            pipeline = make_pipeline(settings)
            sides = {"read": lambda s=settings: _only_read(s), "learn": lambda s=settings, p=pipeline: _learn(s, p)}
            interleave(sides, rounds=1)
            figures = interleave(sides, rounds=ROUNDS)
            ratios = [a / b for a, b in zip(figures["learn"], figures["read"], strict=True)]
            rows.append([optimizer, median(figures["read"]), median(figures["learn"]), median(ratios), spread(ratios)])
    columns = ["optimizer", "poll and decode, records/s", "whole path, records/s", "ratio", "ratios"]
    show(f"Kafka to weights, {RECORDS} JSON records of 19 fields", columns, rows)


if __name__ == "__main__":
    main()
