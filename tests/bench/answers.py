"""What answers before the truth cost: processor time per reading, next to learning with the truth at hand.

``python -m tests.bench.answers [READINGS]``. The sides take turns, so that a busy machine slows all of them. Each
figure is the median of the turns, with the smallest and the largest. The rest of a record's cost (polling, decoding) is
included; the sink is a file.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learnd.core.types import Position, Records, TopicPartition
from learnd.runtime.loop import Pipeline
from learnd.runtime.reader import decode
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import settings

BATCH, TURNS = 2000, 7
PARTITION = TopicPartition("memory", 0)
FORECAST: Mapping[str, Any] = {"target": None, "task": {"kind": "forecast", "window": 12, "horizon": 3}}
SIDES: Mapping[str, Mapping[str, Any]] = {
    "forecast, with the truth": {**FORECAST, "forecasts": "with_truth"},
    "forecast, at once": {**FORECAST, "forecasts": "at_once"},
    "regression, truth in the record": {},
    "regression, truth 1 record later": {"delay": 1},
    "regression, truth 1000 records later": {"delay": 1000},
}


def values_of(count: int, delay: int | None) -> list[bytes]:
    """Return *count* readings, each with its truth, or followed by it *delay* readings later."""
    random = np.random.default_rng(0)
    x = random.normal(size=(count, 3))
    rows = [{"t": 60.0 * i, "id": i, **dict(zip("abc", x[i].tolist(), strict=True))} for i in range(count)]
    truths = (x @ np.array([2.0, -1.0, 0.5])).tolist()
    if delay is None:
        return [json.dumps({**row, "y": y}).encode() for row, y in zip(rows, truths, strict=True)]
    values = []
    for i, row in enumerate(rows):
        values.append(json.dumps(row).encode())
        if i >= delay:
            values.append(json.dumps({"id": i - delay, "t": 60.0 * (i - delay), "y": truths[i - delay]}).encode())
    return values


class Side:
    """One pipeline, fed with batches by hand."""

    def __init__(self, folder: Path, options: Mapping[str, Any], readings: int) -> None:
        sections = dict(options)
        delay, forecasts = sections.pop("delay", None), sections.pop("forecasts", "at_once")
        text = settings(
            folder,
            decode={"kind": "json", "time": "t", "time_numbers": "any"},
            learning={"mode": "per_sample"},
            checkpoint={"every_seconds": 1e6},
            predictions={"path": str(folder / "lines.jsonl"), "forecasts": forecasts},
            **({} if delay is None else {"truth": {"id": "id"}}),
            **sections,
        )
        self._values = values_of((TURNS + 1) * readings, delay)
        self._per_turn = len(self._values) // (TURNS + 1)
        self._readings = readings
        self._next = 0
        self.pipeline: Pipeline = make_pipeline(text, source=MemorySource([]))
        self.pipeline.open()
        self.turn()

    def turn(self) -> float:
        """Learn one turn; return the processor time per reading in microseconds."""
        stop = self._next + self._per_turn
        started_s = time.process_time()
        while self._next < stop:
            last = min(self._next + BATCH, stop)
            count = last - self._next
            offsets = list(range(self._next, last))
            run = Records(
                PARTITION, offsets, self._values[self._next : last], [None] * count, [0] * count, Position(last)
            )
            self.pipeline.learn(decode([run], self.pipeline.reader._decoder))
            self._next = last
        return (time.process_time() - started_s) / self._readings * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readings", type=int, nargs="?", default=10_000, help="readings per turn")
    readings = parser.parse_args().readings
    with tempfile.TemporaryDirectory() as folder:
        sides = {name: Side(Path(folder) / str(i), SIDES[name], readings) for i, name in enumerate(SIDES)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(TURNS):
            for name, side in sides.items():
                times[name].append(side.turn())
        for side in sides.values():
            side.pipeline.close()
    print("| side | processor time per reading, us | from | to |\n|---|---|---|---|")
    for name, column in times.items():
        print(f"| {name} | {statistics.median(column):.1f} | {min(column):.1f} | {max(column):.1f} |")


if __name__ == "__main__":
    main()
