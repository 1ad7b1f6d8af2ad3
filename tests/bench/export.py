"""What an export in the background costs the learner: samples per second with and without one under way.

Sides run in turn on one pipeline (simulated records decoded ahead, MLP 16-32-16-1, Adam): for the first an export is
started and learning goes on until it is published; the second learns for the same time alone.
`python -m tests.bench.export`
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.sides import median, show, spread  # isort: skip - sets the log level

import numpy as np

from learnd.build import configure_tensorflow, make_pipeline
from learnd.config import loads
from learnd.learners.chunk import CHUNK_ROWS
from tests.helpers import config_text

ROUNDS = 7
LETTERS = "abcdefghijklmnop"


def _learn_while(pipeline: Any, batch: Any, going_on: Any) -> tuple[int, float, list[float]]:
    samples, calls_s, started_s = 0, [], time.perf_counter()
    while going_on():
        call_s = time.perf_counter()
        pipeline.learn(batch)
        calls_s.append(time.perf_counter() - call_s)
        samples += len(batch.samples)
    return samples, time.perf_counter() - started_s, calls_s


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.jsonl"
        path.write_bytes(b"".join(value + b"\n" for value in _wide_readings()))
        text = config_text(
            Path(folder) / "data",
            source={"kind": "file", "path": str(path)},
            features=list(LETTERS),
            model={"kind": "mlp", "hidden": [32, 16]},
            averaging={"kind": "window", "size": 20, "every_samples": 100},
        )
        settings = loads(text)
        configure_tensorflow(settings.learning)
        pipeline = make_pipeline(settings)
        pipeline.open()
        batch = None
        while batch is None:
            batch = pipeline.reader.next(timeout_s=1.0)
        pipeline.learn(batch)
        ratios, durations_s, worst = [], [], []
        for _ in range(ROUNDS):
            pipeline.export()
            during, during_s, calls = _learn_while(pipeline, batch, pipeline.exporter.busy)
            exported = pipeline.exporter.outcome()
            assert exported is not None
            assert not exported.error, exported.error
            end_s = time.perf_counter() + during_s
            alone, alone_s, calls_alone = _learn_while(pipeline, batch, lambda end=end_s: time.perf_counter() < end)
            ratios.append((during / during_s) / (alone / alone_s))
            durations_s.append(exported.duration_s)
            worst.append(sorted(calls)[int(len(calls) * 0.99)] / sorted(calls_alone)[int(len(calls_alone) * 0.99)])
        pipeline.close()
    rows = [
        ["throughput during an export / alone", median(ratios), spread(ratios)],
        [f"p99 of one call of {CHUNK_ROWS} samples, during / alone", median(worst), spread(worst)],
        ["seconds an export takes at the lowest priority", median(durations_s), spread(durations_s)],
    ]
    show("Export in the background", ["what", "median", "least to most"], rows)


def _wide_readings() -> list[bytes]:
    rows = np.random.default_rng(0).normal(size=(CHUNK_ROWS, len(LETTERS)))
    return [json.dumps({**dict(zip(LETTERS, row, strict=True)), "y": sum(row)}).encode() for row in rows.tolist()]


if __name__ == "__main__":
    main()
