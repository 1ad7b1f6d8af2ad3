"""Drift: how soon it is detected, how often in vain, and what reactions gain.

`python -m tests.bench.drift` prints all tables; with

    --tables NAMES   these only, between commas: reactions, false, real, cost
    --seeds A,B      seeds of the streams; 0 was looked at while the defaults were chosen

A side is the whole path from samples to drifts: alarms, learning, detectors, reactions. It has no sinks and no broker.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.sides import interleave, median, show, spread  # isort: skip - sets the log level

import logging

import numpy as np
import structlog

from learnd.config.loader import from_values
from learnd.core.types import Batch
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.pipeline import make_pipeline
from tests.bench.anomaly_streams import machine_temperature
from tests.support.helpers import make_samples
from tests.support.shared_traces import sharing

Rows = np.ndarray[Any, np.dtype[np.float64]]
ROWS, DRIFT_AT, COUNTED = 11_000, 6000, 5000
CHUNK_ROWS = 1000
NOISE = 0.1
SINGLE: Mapping[str, Any] = {"learning": {"mode": "per_sample"}}
LEARNERS: Mapping[str, Mapping[str, Any]] = {"single": SINGLE, "default": {}}
RATE = {"kind": "raise_rate"}
CHALLENGER = {"kind": "challenger"}
BACK = {"kind": "go_back", "copy_every_samples": 2000, "copies": 5}
CHAINS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "none": [],
    "raise_rate": [RATE],
    "go_back": [BACK],
    "challenger": [CHALLENGER],
    "all three": [BACK, RATE, CHALLENGER],
}


@dataclass(frozen=True)
class Outcome:
    """The absolute errors of all rows, and the drifts that were detected."""

    errors: Rows
    drifts: list[Mapping[str, Any]]
    duration_s: float

    @property
    def detected(self) -> list[int]:
        """The numbers of learned samples at which something was detected."""
        return [drift["samples"] for drift in self.drifts]

    def count(self, kind: str, on: str, *, after: int) -> int:
        """Return the number of drifts that the detector *kind* found on the ``loss`` or on ``features``."""
        found = [drift for drift in self.drifts if drift["detector"] == kind and drift["samples"] > after]
        return sum((drift["on"] == "loss") == (on == "loss") for drift in found)


def _probability(kind: str) -> Callable[[int], float]:
    """Return the probability of the second concept at a row."""
    if kind == "abrupt":
        return lambda i: float(i >= DRIFT_AT)
    if kind == "gradual":
        return lambda i: min(max((i - DRIFT_AT) / 2000, 0.0), 1.0)
    if kind == "recurring":
        return lambda i: float(i >= DRIFT_AT and (i - DRIFT_AT) // 2500 % 2 == 0)
    return lambda i: 0.0


def stream(kind: str, seed: int, rows: int = ROWS) -> tuple[Rows, Rows]:
    """Return inputs and targets: two nonlinear functions of eight inputs, as in `tests.bench.made_streams`."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(2, 8))
    x = random.normal(size=(rows, 8))
    probability = _probability(kind)
    which = (random.random(rows) < np.array([probability(i) for i in range(rows)])).astype(int)
    products = np.stack([x[:, 0] * x[:, 1], x[:, 2] * x[:, 3]])
    every = np.tanh(x @ weights.T) * 2.0
    y = every[np.arange(rows), which] + products[which, np.arange(rows)]
    return x, y + NOISE * random.normal(size=rows)


def follow(x: Rows, y: Rows | None, drift: Mapping[str, Any], **sections: Any) -> Outcome:
    """Learn the rows in order, with the section *drift*."""
    with tempfile.TemporaryDirectory() as folder:
        values = {
            "data_dir": folder,
            "source": {"kind": "simulator"},
            "features": [f"x{i}" for i in range(x.shape[1])],
            "model": {"kind": "mlp"},
            "export": {"formats": []},
            "drift": drift,
            **({} if y is None else {"target": "y"}),
            **sections,
        }
        settings = from_values({key: value for key, value in values.items() if value is not None})
        configure_tensorflow(settings.learning)
        pipeline = make_pipeline(settings)
        pipeline.alarming.prepare()
        pipeline.model.learner.prepare()
        errors, drifts = [], []
        targets = np.empty((len(x), 0)) if y is None else y[:, None]
        times_s = np.arange(len(x)) * 60.0
        started_s = time.process_time()
        for first in range(0, len(x), CHUNK_ROWS):
            rows = slice(first, first + CHUNK_ROWS)
            made = make_samples(x[rows], targets[rows], first=first, times_s=times_s[rows])
            batch = pipeline.transforms(Batch(made, (), {}, len(made), 0))
            samples, hold = pipeline.alarming.watch(batch.samples)
            result = pipeline.model.learner.learn(samples, hold)
            drifts += [line for _, line in pipeline.drifting.observe(result)]
            if y is not None:
                errors.append(np.abs(result.predictions[:, 0] - y[rows]))
        duration_s = time.process_time() - started_s
        return Outcome(np.concatenate(errors) if errors else np.empty(0), drifts, duration_s)


def reactions(seeds: Sequence[int]) -> None:
    """Print the errors after a drift with each chain of reactions, and the delay of the detection."""
    rows: list[list[object]] = []
    counted = slice(DRIFT_AT, DRIFT_AT + COUNTED)
    for name, learner in LEARNERS.items():
        for kind in ("abrupt", "gradual", "recurring"):
            for chain, links in CHAINS.items():
                outcomes = []
                for seed in seeds:
                    x, y = stream(kind, seed)
                    outcomes.append(follow(x, y, {"reactions": list(links)}, **learner))
                errors = [float(each.errors[counted].mean()) for each in outcomes]
                if chain == "none":
                    plain = errors
                delays = [
                    min((at - DRIFT_AT for at in each.detected if at > DRIFT_AT), default=-1) for each in outcomes
                ]
                before = [sum(at <= DRIFT_AT for at in each.detected) for each in outcomes]
                ratios = [error / base for error, base in zip(errors, plain, strict=True)]
                shown = ", ".join("none" if delay < 0 else str(delay) for delay in delays)
                rows.append([name, kind, chain, median(errors), f"{median(ratios):.2f}", shown, sum(before)])
                print(rows[-1], flush=True)
    columns = ["learner", "drift", "reactions", "mean error", "against none", "delay, samples", "before the drift"]
    show(f"Error of the {COUNTED} rows after a drift; seeds {', '.join(map(str, seeds))}", columns, rows)


DETECTORS = [{"kind": kind, "on": ["loss", "features"]} for kind in ("adwin", "page_hinkley")]


def _counts(outcomes: Sequence[Outcome], *, after: int) -> list[list[object]]:
    """Return the numbers of detections, a row for each detector."""
    return [
        [detector["kind"], on, ", ".join(str(each.count(str(detector["kind"]), on, after=after)) for each in outcomes)]
        for detector in DETECTORS
        for on in ("loss", "features")
    ]


def false_alarms(seeds: Sequence[int]) -> None:
    """Print the number of detections per 100 000 samples on a stationary stream, from the 5000th on."""
    rows: list[list[object]] = []
    for name, learner in LEARNERS.items():
        outcomes = [follow(*stream("none", seed, 105_000), {"detectors": DETECTORS}, **learner) for seed in seeds]
        rows += [[name, *row] for row in _counts(outcomes, after=5000)]
    show(
        "False alarms per 100 000 samples (eight features and the target), one number per seed",
        ["learner", "detector", "on", "detections"],
        rows,
    )


def real(_: Sequence[int]) -> None:
    """Print the number of detections on a real sensor, whose readings depend on each other."""
    x = machine_temperature(0).x
    outcome = follow(x, None, {"detectors": DETECTORS}, task={"kind": "forecast", "window": 64})
    rows = _counts([outcome], after=0)
    show(f"Detections on the temperature of a machine ({len(x)} readings)", ["detector", "on", "detections"], rows)


def cost(_: Sequence[int]) -> None:
    """Print the processor time per sample, next to learning without detectors."""
    x, y = stream("none", 0, 20_000)
    sides = {
        "off": {"enabled": False},
        "default": {},
        "default, with features": {"detectors": [{"kind": "adwin", "on": ["loss", "features"]}]},
        "with reviews": {"reactions": [RATE]},
        "with reviews each 64": {"reactions": [RATE], "review_every_samples": 64},
    }
    rows: list[list[object]] = []
    for name, learner in LEARNERS.items():

        def side(drift: Mapping[str, Any], learner: Mapping[str, Any] = learner) -> float:
            return follow(x, y, drift, **learner).duration_s / len(y) * 1e6

        made = {label: lambda drift=drift: side(drift) for label, drift in sides.items()}  # type: ignore[misc]
        figures = interleave(made, rounds=3)
        for label, values in figures.items():
            ratios = [value / base for value, base in zip(values, figures["off"], strict=True)]
            rows.append([name, label, median(values), f"{median(ratios):.3f} ({spread(ratios)})"])
    show("Processor time per sample in us, in chunks of 1000", ["learner", "drift", "us", "against off"], rows)


TABLES = {"reactions": reactions, "false": false_alarms, "real": real, "cost": cost}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--seeds", default="1,2,3")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with sharing():  # else most of the time goes by in compiling the same update again
        for name in arguments.tables.split(","):
            TABLES[name]([int(seed) for seed in arguments.seeds.split(",")])


if __name__ == "__main__":
    main()
