"""Streams that are made here: two concepts that drift, and sensors that break. Their best possible figure is known.

All come from fixed seeds and need no package besides NumPy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Rows = Any
MADE_ROWS = 15_000
BROKEN_ROWS = 20_000
BROKEN_COUNTED = (17_500, None)
NOISE = 0.1
"""The standard deviation of what nobody can predict in the streams of this module."""
MEAN_OF_ABSOLUTE = float(np.sqrt(2.0 / np.pi))
"""The mean of the absolute value of standard normal noise."""


@dataclass(frozen=True)
class Stream:
    """Rows and targets, and what is counted.

    `figure` is the accuracy of classes, the mean absolute error of numbers, or the sum of errors after a drift. The
    first row is left out, because nothing can be known before it.
    """

    x: Rows
    y: Rows
    classes: int = 0
    counted: tuple[int, int | None] = (1, None)
    as_sum: bool = False
    chosen_on: bool = False
    """The stream was looked at while the default was made. The others were measured afterwards."""
    noise: float | None = None
    """The mean error of who knows everything but the noise; None: unknown, as in real streams."""

    @property
    def smaller_is_better(self) -> bool:
        return not self.classes or self.as_sum

    @property
    def what(self) -> str:
        return "sum of errors" if self.as_sum else "accuracy" if self.classes else "mean error"

    @property
    def floor(self) -> float | None:
        """The best possible figure; None: unknown."""
        if self.noise is None:
            return None
        return self.noise * len(self.y[slice(*self.counted)]) if self.as_sum else self.noise

    def errors(self, predictions: Rows) -> Rows:
        """Return one error per row: absolute, or 1 for a wrong class. Negative classes are no answer."""
        return np.asarray((predictions != self.y) if self.classes else np.abs(predictions - self.y), float)

    def figure(self, predictions: Rows) -> float:
        counted = self.errors(predictions)[slice(*self.counted)]
        if self.as_sum:
            return float(counted.sum())
        return float(1.0 - counted.mean()) if self.classes else float(counted.mean())


def naive(stream: Stream) -> Rows:
    """The last value; for classes the better of the last class and the most frequent one so far."""
    last = np.concatenate([[0.0], stream.y[:-1]])
    if not stream.classes:
        return last
    counts = np.zeros(stream.classes)
    frequent = np.zeros(len(stream.y))
    for i, label in enumerate(stream.y.astype(int)):
        frequent[i] = counts.argmax() if i else -1.0
        counts[label] += 1
    return min((last, frequent), key=lambda predictions: stream.errors(predictions)[slice(*stream.counted)].sum())


def concepts(second: Callable[[int], float], *, rows_after: int) -> Stream:
    """Two nonlinear functions of eight inputs; *second* is the probability of the second one at a row.

    What is counted are the *rows_after* the middle.
    """
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 8))
    x = random.normal(size=(MADE_ROWS, 8))
    which = (random.random(MADE_ROWS) < np.array([second(i) for i in range(MADE_ROWS)])).astype(int)
    products = np.stack([x[:, 0] * x[:, 1], x[:, 2] * x[:, 3]])
    every = np.tanh(x @ weights.T) * 2.0
    y = every[np.arange(MADE_ROWS), which] + products[which, np.arange(MADE_ROWS)]
    y += NOISE * random.normal(size=MADE_ROWS)
    half = MADE_ROWS // 2
    return Stream(x, y, counted=(half, half + rows_after), as_sum=True, noise=NOISE * MEAN_OF_ABSOLUTE)


def broken(change: Callable[[Rows, Rows], None]) -> Stream:
    """Four sensors of different units and their target, after a *change* of both in place.

    What is counted is the mean error of the last 2500 rows. A learner that the change does not harm has the noise
    alone, 0.08: no change hides what the target depends on.
    """
    random = np.random.default_rng(5)
    u = random.normal(size=(BROKEN_ROWS, 4))
    x = u * [1.0, 5.0, 0.1, 20.0] + [0.0, 50.0, 1.0, -100.0]
    y = u[:, 0] + np.sin(u[:, 1]) + 0.5 * u[:, 2] + NOISE * random.normal(size=BROKEN_ROWS)
    change(x, y)
    return Stream(x, y, counted=BROKEN_COUNTED, noise=NOISE * MEAN_OF_ABSOLUTE)


def _set(column: int | None, rows: slice | int, change: Callable[[Rows], Rows]) -> Callable[[Rows, Rows], None]:
    """Return a change of the sensor in *column*, or of the target."""

    def apply(x: Rows, y: Rows) -> None:
        values = y if column is None else x[:, column]
        values[rows] = change(values[rows])

    return apply


def _standstill(x: Rows, y: Rows) -> None:
    """Half of the stream repeats one row; then the machine runs as before."""
    x[5000:15_000], y[5000:15_000] = x[5000], y[5000]


def _rising(x: Rows, y: Rows) -> None:
    """The target rises by 200, 120 times its spread, over the stream."""
    y += 0.01 * np.arange(BROKEN_ROWS)


def _switching(x: Rows, y: Rows) -> None:
    """A sensor is 50 of its spreads higher during every second 300 rows."""
    x[:, 1] += 250.0 * (np.arange(BROKEN_ROWS) // 300 % 2)


def _no_change(x: Rows, y: Rows) -> None: ...


_FROM_15_000 = slice(15_000, None)
_HALF = MADE_ROWS // 2
DRIFTS: dict[str, Callable[[], Stream]] = {
    "abrupt drift": lambda: replace(concepts(lambda i: float(i >= _HALF), rows_after=5000), chosen_on=True),
    "gradual drift": lambda: concepts(lambda i: min(1.0, max(0.0, (i - _HALF) / 2000.0)), rows_after=5000),
    "recurring drift": lambda: concepts(lambda i: float(i // 2500 % 2), rows_after=2500),
}
BROKEN: dict[str, Callable[[], Stream]] = {
    "nothing broken": lambda: broken(_no_change),
    "reading of 1e6": lambda: broken(_set(1, 10, lambda _: 1e6)),
    "target of 1e6": lambda: broken(_set(None, 10, lambda _: 1e6)),
    "late reading of 1e6": lambda: broken(_set(1, 15_000, lambda _: 1e6)),
    "sensor shifted": lambda: broken(_set(1, _FROM_15_000, lambda v: v + 250.0)),
    "unit changed": lambda: broken(_set(1, _FROM_15_000, lambda v: v * 1000.0)),
    "standstill": lambda: broken(_standstill),
    "target shifted": lambda: broken(_set(None, _FROM_15_000, lambda v: v + 50.0)),
    "target rises": lambda: broken(_rising),
    "sensor of 1e9": lambda: broken(_set(1, slice(None), lambda v: v + 1e9)),
    "switches on and off": lambda: broken(_switching),
}
