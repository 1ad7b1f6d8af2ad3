"""All streams by name: real ones and drifting ones from the package `river`, and those that are made here.

Nothing is downloaded: `river` ships its data.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
from river import datasets
from river.datasets import synth

from tests.bench.made_streams import BROKEN, DRIFTS, MADE_ROWS, MEAN_OF_ABSOLUTE, Stream

_FLIPPED = 0.1
"""The share of SEA's labels that are flipped."""


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


def _two(first: Any, then: Any, *, noise: float) -> Stream:
    half = MADE_ROWS // 2
    rows = [*islice(first, half), *islice(then, half)]
    return _of(rows, classes=True, counted=(half, half + 5000), as_sum=True, noise=noise)


def _sea(variant: int, seed: int) -> Any:
    return synth.SEA(seed=seed, variant=variant, noise=_FLIPPED)


def _agrawal(function: int, seed: int) -> Any:
    return synth.Agrawal(classification_function=function, seed=seed)


def _friedman() -> Stream:
    """Ten inputs, five of which matter, and standard normal noise; the last of three drifts is counted."""
    rows = synth.FriedmanDrift(drift_type="lea", position=(4000, 7500, 11_000), seed=1)
    return _of(
        islice(rows, MADE_ROWS),
        classes=False,
        counted=(11_000, MADE_ROWS),
        as_sum=True,
        chosen_on=True,
        noise=MEAN_OF_ABSOLUTE,
    )


STREAMS: dict[str, Callable[[], Stream]] = {
    "trump-approval": lambda: _of(datasets.TrumpApproval(), classes=False, chosen_on=True),
    "chick-weights": lambda: _of(datasets.ChickWeights(), classes=False, chosen_on=True),
    "sp500": lambda: _of(datasets.SP500Stocks(), classes=False, chosen_on=True),
    "water-flow": _water_flow,
    "phishing": lambda: _of(datasets.Phishing(), classes=True, chosen_on=True),
    "bananas": lambda: _of(datasets.Bananas(), classes=True, chosen_on=True),
    "image-segments": lambda: _of(datasets.ImageSegments(), classes=True, chosen_on=True),
    "shuttle": lambda: _of(islice(datasets.Shuttle(), 20_000), classes=True),
    **DRIFTS,
    "friedman drift": _friedman,
    "sea drift": lambda: _two(_sea(0, 1), _sea(2, 2), noise=_FLIPPED),
    "agrawal drift": lambda: _two(_agrawal(0, 1), _agrawal(4, 2), noise=0.0),
    **BROKEN,
}
