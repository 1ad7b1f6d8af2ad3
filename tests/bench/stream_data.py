"""Streams with a known answer: real ones that the package `river` ships, made ones that drift, and broken sensors.

Nothing is downloaded. Each stream has rows in order of arrival, and a figure by which predictions are compared.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
from river import datasets
from river.datasets import synth

Rows = Any
MADE_ROWS = 15_000
BROKEN_ROWS = 20_000


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
    """The numbers of the default were chosen with a prototype on this stream; the others were held out."""

    @property
    def smaller_is_better(self) -> bool:
        return not self.classes or self.as_sum

    def figure(self, predictions: Rows) -> float:
        errors = (predictions != self.y) if self.classes else np.abs(predictions - self.y)
        counted = np.asarray(errors[slice(*self.counted)], float)
        if self.as_sum:
            return float(counted.sum())
        return float(1.0 - counted.mean()) if self.classes else float(counted.mean())


def _numbers(values: dict[Any, Any]) -> Iterator[float]:
    for value in values.values():
        if isinstance(value, datetime):
            yield from (float(value.hour), float(value.weekday()))
        elif isinstance(value, bool | int | float):
            yield float(value)


def _of(rows: Any, *, classes: bool, **options: Any) -> Stream:
    pairs = list(rows)
    x = np.array([list(_numbers(features)) for features, _ in pairs])
    if not classes:
        return Stream(x, np.array([float(target) for _, target in pairs]), **options)
    numbers: dict[object, int] = {}
    y = np.array([numbers.setdefault(label, len(numbers)) for _, label in pairs], float)
    return Stream(x, y, classes=len(numbers), **options)


def _water_flow() -> Stream:
    """The next hour's flow from hour, day of the week and six earlier hours."""
    lags = (1, 2, 3, 6, 12, 24)
    readings = [(moment["Time"], value) for moment, value in datasets.WaterFlow()]
    rows = [
        ({"time": readings[i][0], **{f"lag{k}": readings[i - k][1] for k in lags}}, readings[i][1])
        for i in range(max(lags), len(readings))
    ]
    return _of(rows, classes=False, chosen_on=True)


def _concepts(second: Callable[[int], float]) -> Stream:
    """Two nonlinear functions of eight inputs; *second* is the probability of the second one at a row."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(2, 8))
    x = random.normal(size=(MADE_ROWS, 8))
    which = (random.random(MADE_ROWS) < np.array([second(i) for i in range(MADE_ROWS)])).astype(int)
    products = np.stack([x[:, 0] * x[:, 1], x[:, 2] * x[:, 3]])
    every = np.tanh(x @ weights.T) * 2.0
    y = every[np.arange(MADE_ROWS), which] + products[which, np.arange(MADE_ROWS)]
    half = MADE_ROWS // 2
    return Stream(x, y + 0.1 * random.normal(size=MADE_ROWS), counted=(half, half + 5000), as_sum=True)


def _two(first: Any, then: Any) -> Stream:
    half = MADE_ROWS // 2
    rows = [*islice(first, half), *islice(then, half)]
    return _of(rows, classes=True, counted=(half, half + 5000), as_sum=True)


def _sea(variant: int, seed: int) -> Any:
    return synth.SEA(seed=seed, variant=variant, noise=0.1)


def _agrawal(function: int, seed: int) -> Any:
    return synth.Agrawal(classification_function=function, seed=seed)


def _friedman() -> Stream:
    rows = synth.FriedmanDrift(drift_type="lea", position=(4000, 7500, 11_000), seed=1)
    return _of(islice(rows, MADE_ROWS), classes=False, counted=(11_000, 15_000), as_sum=True)


def _broken(change: Callable[[Rows, Rows], None]) -> Stream:
    """Four sensors of different units whose target has noise of 0.1 (mean error 0.08), after a *change*."""
    random = np.random.default_rng(5)
    u = random.normal(size=(BROKEN_ROWS, 4))
    x = u * [1.0, 5.0, 0.1, 20.0] + [0.0, 50.0, 1.0, -100.0]
    y = u[:, 0] + np.sin(u[:, 1]) + 0.5 * u[:, 2] + 0.1 * random.normal(size=BROKEN_ROWS)
    change(x, y)
    return Stream(x, y, counted=(17_500, None))


def _set(column: int | None, rows: slice | int, change: Callable[[Rows], Rows]) -> Callable[[Rows, Rows], None]:
    """Return a change of the sensor in *column*, or of the target."""

    def apply(x: Rows, y: Rows) -> None:
        values = y if column is None else x[:, column]
        values[rows] = change(values[rows])

    return apply


def _standstill(x: Rows, y: Rows) -> None:
    x[5000:15_000], y[5000:15_000] = x[5000], y[5000]


def _rising(x: Rows, y: Rows) -> None:
    y += 0.01 * np.arange(BROKEN_ROWS)


def _switching(x: Rows, y: Rows) -> None:
    x[:, 1] += 250.0 * (np.arange(BROKEN_ROWS) // 300 % 2)


_SECOND_HALF = slice(15_000, None)
STREAMS: dict[str, Callable[[], Stream]] = {
    "trump-approval": lambda: _of(datasets.TrumpApproval(), classes=False, chosen_on=True),
    "chick-weights": lambda: _of(datasets.ChickWeights(), classes=False, chosen_on=True),
    "sp500": lambda: _of(datasets.SP500Stocks(), classes=False),
    "water-flow": _water_flow,
    "phishing": lambda: _of(datasets.Phishing(), classes=True),
    "bananas": lambda: _of(datasets.Bananas(), classes=True, chosen_on=True),
    "image-segments": lambda: _of(datasets.ImageSegments(), classes=True, chosen_on=True),
    "shuttle": lambda: _of(islice(datasets.Shuttle(), 20_000), classes=True),
    "abrupt drift": lambda: _concepts(lambda i: float(i >= MADE_ROWS // 2)),
    "gradual drift": lambda: _concepts(lambda i: min(1.0, max(0.0, (i - MADE_ROWS // 2) / 2000.0))),
    "recurring drift": lambda: _concepts(lambda i: float(i // 2500 % 2)),
    "friedman drift": _friedman,
    "sea drift": lambda: _two(_sea(0, 1), _sea(2, 2)),
    "agrawal drift": lambda: _two(_agrawal(0, 1), _agrawal(4, 2)),
    "nothing broken": lambda: _broken(lambda x, y: None),
    "reading of 1e6": lambda: _broken(_set(1, 10, lambda _: 1e6)),
    "target of 1e6": lambda: _broken(_set(None, 10, lambda _: 1e6)),
    "late reading of 1e6": lambda: _broken(_set(1, 15_000, lambda _: 1e6)),
    "sensor shifted": lambda: _broken(_set(1, _SECOND_HALF, lambda v: v + 250.0)),
    "unit changed": lambda: _broken(_set(1, _SECOND_HALF, lambda v: v * 1000.0)),
    "standstill": lambda: _broken(_standstill),
    "target shifted": lambda: _broken(_set(None, _SECOND_HALF, lambda v: v + 50.0)),
    "target rises": lambda: _broken(_rising),
    "sensor of 1e9": lambda: _broken(_set(1, slice(None), lambda v: v + 1e9)),
    "switches on and off": lambda: _broken(_switching),
}
