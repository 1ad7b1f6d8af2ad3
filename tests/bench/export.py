"""What an export in the background costs the learner: its rate and its slowest updates, with and without one under way.

Sides run in turn on one pipeline (records decoded ahead, MLP 16-32-16-1, Adam): for the first an export is started and
learning goes on until it is published; the second learns for the same time alone. Both with full batches, as in a
backlog, and with single samples, as from a slow stream.
`python -m tests.bench.export [ROUNDS]`
"""

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.sides import median, show, spread  # isort: skip - sets the log level

import numpy as np

from learnd.config.loader import loads
from learnd.core.types import Samples
from learnd.learners.chunk import CHUNK_ROWS
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import config_text

ROWS = (CHUNK_ROWS, 1)
LETTERS = "abcdefghijklmnop"


def _learn_while(pipeline: Any, batch: Any, going_on: Any) -> list[float]:
    """Seconds of each call, until *going_on* says no."""
    calls_s, end_s = [], time.perf_counter()
    while going_on():
        started_s = end_s
        pipeline.learn(batch)
        end_s = time.perf_counter()
        calls_s.append(end_s - started_s)
    return calls_s


def _p99(calls_s: list[float]) -> float:
    return sorted(calls_s)[int(len(calls_s) * 0.99)]


def _compare(pipeline: Any, batch: Any, rounds: int) -> list[list[Any]]:
    """Rows of the table for calls with *batch*."""
    rates, slowest, slowest_s, slowest_alone_s, durations_s = [], [], [], [], []
    for _ in range(rounds):
        pipeline.export()
        during = _learn_while(pipeline, batch, pipeline.publishing.exporter.busy)
        exported = pipeline.publishing.exporter.outcome()
        assert exported is not None
        assert not exported.error, exported.error
        end_s = time.perf_counter() + sum(during)
        alone = _learn_while(pipeline, batch, lambda end_s=end_s: time.perf_counter() < end_s)
        rates.append(len(during) / sum(during) / (len(alone) / sum(alone)))
        slowest_s.append(1000 * _p99(during))
        slowest_alone_s.append(1000 * _p99(alone))
        slowest.append(slowest_s[-1] / slowest_alone_s[-1])
        durations_s.append(exported.duration_s)
    name = f"calls of {len(batch.samples)}"
    figures = {
        "samples a second during an export / alone": rates,
        "p99 of a call during / alone": slowest,
        "p99 of a call during an export, ms": slowest_s,
        "p99 of a call alone, ms": slowest_alone_s,
        "seconds that an export takes": durations_s,
    }
    return [[f"{name}: {what}", median(found), spread(found)] for what, found in figures.items()]


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.jsonl"
        path.write_bytes(b"".join(value + b"\n" for value in _wide_readings()))
        text = config_text(
            Path(folder) / "data",
            source={"kind": "file", "path": str(path)},
            features=list(LETTERS),
            model={"kind": "mlp", "hidden": [32, 16]},
            averaging={"kind": "window", "size": 20, "every_samples": 100},
            export={"formats": ["saved_model", "tflite"]},
        )
        settings = loads(text)
        configure_tensorflow(settings.learning)
        pipeline = make_pipeline(settings)
        pipeline.open()
        batch = None
        while batch is None:
            batch = pipeline.reader.next(timeout_s=1.0)
        rows = []
        many = Samples.concat([batch.samples] * CHUNK_ROWS)  # the reader begins with small batches
        for count in ROWS:
            part = dataclasses.replace(batch, samples=many.take(slice(count)))
            pipeline.learn(part)
            rows += _compare(pipeline, part, rounds)
        pipeline.close()
    show("Export in the background", ["what", "median", "least to most"], rows)


def _wide_readings() -> list[bytes]:
    rows = np.random.default_rng(0).normal(size=(CHUNK_ROWS, len(LETTERS)))
    return [json.dumps({**dict(zip(LETTERS, row, strict=True)), "y": sum(row)}).encode() for row in rows.tolist()]


if __name__ == "__main__":
    main()
