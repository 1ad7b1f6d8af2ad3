"""The processor time of the alarms, against that of learning with the default configuration.

A regression, whose update is the cheapest: a forecast has a window of inputs, and costs several times as much.
`python -m tests.bench.alarm_cost`
"""

import time
from collections.abc import Callable

from tests.bench.sides import interleave, median, show, spread  # isort: skip - sets the log level

import numpy as np

from learnd.alarms.monitor import Monitor
from learnd.alarms.settings import AlarmSettings
from learnd.config.loader import from_values
from learnd.wiring.learner import configure_tensorflow
from tests.support.helpers import make_samples, step_result
from tests.support.learning import LearnerOfRows

ROWS, ROUNDS, FEATURES, BATCH = 2000, 5, (1, 4, 16), 500


def _watching(features: int) -> Callable[[], float]:
    """Return a function that watches further rows and returns the microseconds per row."""
    names = [f"x{i}" for i in range(features)]
    monitor = Monitor(AlarmSettings(), columns=names, readings=lambda samples: samples.x, hold="hold")
    random, seen = np.random.default_rng(0), 0

    def side() -> float:
        nonlocal seen
        batches = []
        for first in range(seen, seen + ROWS, BATCH):
            x = random.normal(size=(BATCH, features))
            times_s = (first + np.arange(BATCH)) * 60.0
            samples = make_samples(x, np.zeros((BATCH, 1)), first=first, times_s=times_s)
            batches.append(step_result(samples, np.zeros((BATCH, 1), np.float32), np.ones(BATCH, np.float32)))
        seen += ROWS
        started_s = time.process_time()
        for result in batches:
            watched, _ = monitor.watch(result.samples)
            monitor.evaluate(step_result(watched, result.predictions, result.losses))
        return (time.process_time() - started_s) / ROWS * 1e6

    return side


def _learning(features: int) -> Callable[[], float]:
    learner = LearnerOfRows(features=features, task={"kind": "regression"})
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, features))
    y = x.sum(axis=1)

    def side() -> float:
        started_s = time.process_time()
        learner.learn(x, y)
        return (time.process_time() - started_s) / ROWS * 1e6

    return side


def main() -> None:
    """Print the table."""
    values = {"source": {"kind": "simulator"}, "features": ["x"], "target": "y", "model": {"kind": "mlp"}}
    configure_tensorflow(from_values(values).learning)
    rows = []
    for features in FEATURES:
        sides = {"learning": _learning(features), "alarms": _watching(features)}
        for side in sides.values():
            side()
        figures = interleave(sides, rounds=ROUNDS)
        ratios = [alarms / learning for alarms, learning in zip(figures["alarms"], figures["learning"], strict=True)]
        share = f"{median(ratios):.2f} ({spread(ratios)})"
        rows.append([features, median(figures["learning"]), median(figures["alarms"]), share])
    columns = ["features", "learning, us per sample", "alarms", "alarms over learning"]
    show("Processor time of the alarms", columns, rows)


if __name__ == "__main__":
    main()
