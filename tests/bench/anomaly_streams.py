"""Streams with known anomalies, to see what raises an alarm on them, when, and what should not have.

All but the machine's temperature are made here or by the simulator, from a seed. Seed 0 was looked at while the alarms
were made; the others were measured afterwards.
"""

import csv
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from learnd.core.types import Position
from learnd.sources.settings import SimulatorSettings
from learnd.sources.simulator import PARTITION, SimulatorSource, sensor_names

Rows = np.ndarray[Any, np.dtype[np.float64]]
DATA = Path(__file__).parents[1] / "data" / "machine_temperature.csv.gz"
MINUTE_S = 60.0
DAY_TICKS = 288


@dataclass(frozen=True)
class Anomaly:
    """Rows *start* to *stop* (exclusive) of one key; *kind* says what happens there."""

    start: int
    stop: int
    kind: str
    key: str = ""


@dataclass(frozen=True)
class Watched:
    """A stream to watch.

    Attributes
    ----------
    x : (n, columns)
    times_s : (n,)
    anomalies : what should raise an alarm, by row of its key
    keys : (n,) of names; empty: one key
    changes : rows after which something new is normal; an alarm there is none of the false ones for `GRACE` rows
    window : window of learnd's forecast
    """

    x: Rows
    times_s: Rows
    anomalies: list[Anomaly]
    keys: list[str] = field(default_factory=list)
    changes: list[Anomaly] = field(default_factory=list)
    window: int = 64


def _plain(x: Rows, anomalies: list[Anomaly], *, step_s: float = MINUTE_S, **options: Any) -> Watched:
    x = x[:, None] if x.ndim == 1 else x
    return Watched(x, np.arange(len(x)) * step_s, anomalies, **options)


TEMPERATURE_WINDOWS = (
    ("2013-12-10 06:25", "2013-12-12 05:35", "first"),
    ("2013-12-15 17:50", "2013-12-17 17:00", "planned shutdown"),
    ("2014-01-27 14:20", "2014-01-29 13:30", "hard to see"),
    ("2014-02-07 14:55", "2014-02-09 14:05", "catastrophic failure"),
)


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def machine_temperature(seed: int) -> Watched:
    """Return the temperature of a machine, with the windows that its benchmark labels."""
    with gzip.open(DATA, "rt") as file:
        rows = list(csv.DictReader(file))
    times_s = np.array([_seconds(row["timestamp"]) for row in rows])
    anomalies = []
    for first, last, kind in TEMPERATURE_WINDOWS:
        inside = np.flatnonzero((times_s >= _seconds(first)) & (times_s <= _seconds(last)))
        anomalies.append(Anomaly(int(inside[0]), int(inside[-1]) + 1, kind))
    return Watched(np.array([[float(row["value"])] for row in rows]), times_s, anomalies)


MACHINES, TICKS, SENSORS = 4, 6000, 6


def simulated(seed: int) -> Watched:
    """Return the simulator's fleet, with its faults by what they did to a sensor."""
    options = {"machines": MACHINES, "records": MACHINES * TICKS, "sensors": SENSORS, "seed": seed + 1}
    settings = SimulatorSettings.model_validate({"kind": "simulator", "fault_rate": 0.03, **options})
    broken, sound = _fleet(settings), _fleet(settings.model_copy(update={"fault_rate": 0.0}))
    names = sensor_names(SENSORS)
    x = np.array([[record[name] for name in names] for record in broken])
    difference = x - np.array([[record[name] for name in names] for record in sound])
    anomalies = []
    for machine in range(MACHINES):
        rows = slice(machine, None, MACHINES)
        faulty = np.array([record["truth"]["fault"] for record in broken[rows]])
        edges = np.flatnonzero(np.diff(np.concatenate([[False], faulty, [False]]).astype(int))).tolist()
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            part = difference[rows][start:stop]
            column = int(np.abs(part).sum(axis=0).argmax())
            kind = "noise"
            if np.ptp(part[:, column]) < 1e-3 * np.abs(part[:, column]).max():
                kind = "offset"
            elif np.ptp(x[rows][start:stop, column]) < 1e-9:
                kind = "stuck elsewhere"
            anomalies.append(Anomaly(start, stop, kind, broken[machine]["machine"]))
    times_s = np.array([record["ts"] for record in broken])
    changes = [Anomaly(4096, TICKS, "drift", broken[machine]["machine"]) for machine in range(MACHINES)]
    keys = [record["machine"] for record in broken]
    return Watched(x, times_s, anomalies, keys, changes, window=16)


def _fleet(settings: SimulatorSettings) -> list[dict[str, Any]]:
    source = SimulatorSource(settings)
    source.open({PARTITION: Position(0)})
    records: list[dict[str, Any]] = []
    while not source.exhausted():
        records += [json.loads(value) for part in source.poll(4096, 0.0) for value in part.values]
    return records


def _correlated(random: np.random.Generator, rows: int) -> Rows:
    """Return an autoregressive series of unit spread."""
    noise = random.normal(size=rows) * np.sqrt(1 - 0.9**2)
    series = np.empty(rows)
    value = 0.0
    for i in range(rows):
        series[i] = value = 0.9 * value + noise[i]
    return series


def faults(seed: int) -> Watched:
    """Return a noisy daily cycle with five faults: long, stuck, spike, ramp, variance."""
    random = np.random.default_rng([seed, 10])
    rows = 22_000
    x = np.sin(2 * np.pi * np.arange(rows) / DAY_TICKS) + 0.3 * _correlated(random, rows)
    x += 0.05 * random.normal(size=rows)
    x[4000:7000] += 4.0
    x[10_000:10_300] = x[10_000]
    x[12_500] += 4.0
    x[15_000:17_000] += np.linspace(0.0, 4.0, 2000)
    x[19_500:20_300] += 0.8 * random.normal(size=800)
    anomalies = [
        Anomaly(4000, 7000, "shift of 3000 rows"),
        Anomaly(10_000, 10_300, "stuck"),
        Anomaly(12_500, 12_501, "spike"),
        Anomaly(15_000, 17_000, "ramp"),
        Anomaly(19_500, 20_300, "variance"),
    ]
    return _plain(x, anomalies, step_s=300.0)


SHAPES: dict[str, Callable[[Rows], Rows]] = {
    "sine": lambda phase: np.sin(2 * np.pi * phase),
    "two tones": lambda phase: np.sin(2 * np.pi * phase) + 0.5 * np.sin(6 * np.pi * phase + 1.0),
    "sawtooth": lambda phase: 2.0 * (phase % 1.0) - 1.0,
    "pulse": lambda phase: (
        np.exp(-(((phase % 1.0) - 0.4) ** 2) / 0.005) - 0.4 * np.exp(-(((phase % 1.0) - 0.6) ** 2) / 0.01)
    ),
}
CYCLE = 40


def odd_cycles(shape: str) -> Callable[[int], Watched]:
    """Return the maker of a periodic series in which four cycles are wrong, within the usual range."""

    def made(seed: int) -> Watched:
        random = np.random.default_rng([seed, 20, list(SHAPES).index(shape)])
        rows = 10_000
        phase = np.arange(rows) / CYCLE
        wave = SHAPES[shape]
        anomalies = []
        x = wave(phase)
        for place, kind in ((4000, "flat"), (5600, "reversed"), (7200, "doubled frequency"), (8800, "phase shift")):
            cycle = slice(place, place + CYCLE)
            if kind == "flat":
                x[cycle] = x[place]
            elif kind == "reversed":
                x[cycle] = x[cycle][::-1].copy()
            elif kind == "doubled frequency":
                x[cycle] = wave(2.0 * phase[cycle])
            else:
                x[cycle] = wave(phase[cycle] + 0.5)
            anomalies.append(Anomaly(place, place + CYCLE, kind))
        return _plain(x + 0.03 * random.normal(size=rows), anomalies)

    return made


def drift(kind: str) -> Callable[[int], Watched]:
    """Return the maker of a series that is different from its middle on; ``none``: it is not."""

    def made(seed: int) -> Watched:
        random = np.random.default_rng([seed, 30])
        rows, half = 12_000, 6000
        steps = np.arange(rows)
        length = np.where(steps < half, 1.0 / 40, 1.0 / (25 if kind == "frequency" else 40))
        x = np.sin(2 * np.pi * np.cumsum(length)) + 0.2 * random.normal(size=rows)
        if kind == "level":
            x[half:] += 3.0
        if kind == "spread":
            x[half:] *= 2.5
        if kind == "none":
            return _plain(x, [])
        return _plain(x, [Anomaly(half, half + 1000, f"drift of {kind}")], changes=[Anomaly(half, rows, kind)])

    return made


def several_columns(seed: int) -> Watched:
    """Return eight correlated columns; first one column fails, then only the correlation."""
    random = np.random.default_rng([seed, 40])
    rows = 12_000
    factors = np.stack([_correlated(random, rows) for _ in range(2)], axis=1)
    mix = random.normal(size=(2, 8))
    mix /= np.sqrt((mix**2).sum(axis=0))
    x = factors @ mix + 0.2 * random.normal(size=(rows, 8))
    x[4000:4200, 2] += 4.0
    other = np.stack([_correlated(random, rows) for _ in range(2)], axis=1)
    x[6500:6700, 5] = (other @ mix)[6500:6700, 5] + 0.2 * random.normal(size=200)
    x[9000:9200, 1] *= -1.0
    anomalies = [
        Anomaly(4000, 4200, "one column shifted"),
        Anomaly(6500, 6700, "one column independent"),
        Anomaly(9000, 9200, "one column mirrored"),
    ]
    return _plain(x, anomalies, window=16)


STREAMS: dict[str, Callable[[int], Watched]] = {
    "machine temperature": machine_temperature,
    "simulator": simulated,
    "faults": faults,
    **{f"cycles: {name}": odd_cycles(name) for name in SHAPES},
    **{f"drift: {kind}": drift(kind) for kind in ("none", "level", "spread", "frequency")},
    "8 columns": several_columns,
}
