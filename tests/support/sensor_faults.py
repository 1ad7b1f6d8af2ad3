"""A simulated fleet with one sensor broken for a while, and what a model that learns from it gets wrong meanwhile."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from learnd.runtime.loop import run
from learnd.sources.memory import MemorySource
from learnd.sources.settings import SimulatorSettings
from learnd.sources.simulator import SimulatorSource, sensor_names
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import settings
from tests.unit.test_loop import NoExports

MACHINES = 5
SENSOR = "temperature"
"""The one that breaks: 64 to 95 when sound, and never more than 13 between two readings (wear begins anew)."""
RULES: Mapping[str, Mapping[str, Any]] = {
    "constant": {"stuck_after": 5},
    "out of range": {"min": -40, "max": 250},
    "scale times 1000": {"max_change": 15},
}
"""The rule that is meant for each fault."""
FAULTS: Mapping[str, Callable[[float, float], float]] = {
    "constant": lambda _, first: first,
    "out of range": lambda _now, _first: 900.0,
    "scale times 1000": lambda now, _: now * 1000.0,
}
"""What the sensor tells, from what it should tell now, and should have told when it broke."""


class Fault(NamedTuple):
    """What breaks on machine 0, and when, in ticks."""

    kind: str
    first: int
    ticks: int


def broken_fleet(ticks: int, faults: Sequence[Fault], *, seed: int) -> tuple[list[bytes], list[int]]:
    """The records of the fleet with *faults* in them, and the offsets of those that are faulty."""
    options: dict[str, Any] = {"machines": MACHINES, "fault_rate": 0.0, "drift": 0.0, "seed": seed}
    source = SimulatorSource(SimulatorSettings(kind="simulator", records=ticks * MACHINES, **options))
    source.open({})
    values = [v for block in source.poll(ticks * MACHINES, 0.0) for v in block.values if v is not None]
    faulty: list[int] = []
    for fault in faults:
        offsets = range(fault.first * MACHINES, (fault.first + fault.ticks) * MACHINES, MACHINES)
        first = json.loads(values[offsets[0]])[SENSOR]
        for offset in offsets:
            record = json.loads(values[offset])
            record[SENSOR] = FAULTS[fault.kind](record[SENSOR], first)
            values[offset] = json.dumps(record).encode()
        faulty += offsets
    return values, faulty


def errors(folder: Path, values: Sequence[bytes], rule: Mapping[str, Any] | None) -> dict[int, float]:
    """The absolute error of each prediction of wear that was made before its record was learned, by offset."""
    path = folder / "predictions.jsonl"
    text = settings(
        folder / "data",
        decode={"kind": "json", "time": "ts", "key": "machine"},
        features={name: rule if name == SENSOR else None for name in sensor_names(6)},
        target="wear",
        model={"kind": "mlp", "hidden": [16]},
        learning={"optimizer": {"kind": "adam", "learning_rate": 0.003}},
        checkpoint={"every_seconds": 3600},
        predictions={"path": str(path)},
    )
    pipeline = make_pipeline(text, source=MemorySource(values))
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    run(pipeline, stopping=lambda: False)
    lines = map(json.loads, path.read_text().splitlines())
    return {line["offset"]: abs(line["prediction"]["wear"] - line["truth"]["wear"]) for line in lines}


def mean_error(found: Mapping[int, float], offsets: Sequence[int]) -> float:
    """Over those of *offsets* that were predicted."""
    return float(np.mean([found[offset] for offset in offsets if offset in found]))
