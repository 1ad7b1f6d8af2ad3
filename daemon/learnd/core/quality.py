"""Figures that say how good a model is, next to a naive forecast of the same samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

_Float64Array = npt.NDArray[np.float64]

WORSE_MARGIN = 0.05
"""An error counts as worse than another if it is larger by more than this share."""
_STANDSTILL = 0.1


@dataclass(frozen=True, slots=True)
class Errors:
    """Mean errors on the same samples, in the same units: those that a naive forecast exists for.

    The units are the target's own for a single number, and nats for classes. For several numbers, the error of each is
    divided by its standard deviation over these samples, and the mean is taken.

    Attributes
    ----------
    live, averaged, naive : of the live weights, of the averaged weights, and of the naive forecast; nan: unknown
    usual_naive : the error of the naive forecast since the start
    samples : number of samples
    """

    live: float = math.nan
    averaged: float = math.nan
    naive: float = math.nan
    usual_naive: float = math.nan
    samples: int = 0

    def worse_than_naive(self, error: float, *, margin: float, naive: float | None = None) -> bool:
        """Return whether *error* exceeds the naive error by more than the share *margin*.

        It never does while the naive error is below a tenth of the usual one. A machine that stands still is predicted
        perfectly by its last value, which says nothing about a model. *naive* replaces the naive error.

        >>> Errors(naive=1.0, usual_naive=1.0).worse_than_naive(1.1, margin=0.05)
        True
        >>> Errors(naive=0.01, usual_naive=1.0).worse_than_naive(0.1, margin=0.05)
        False
        """
        naive = self.naive if naive is None else naive
        return naive > 0.0 and naive >= _STANDSTILL * self.usual_naive and is_worse(error, naive, margin=margin)

    @property
    def live_skill(self) -> float:
        """The skill of the live weights."""
        return skill(self.live, self.naive)

    @property
    def averaged_skill(self) -> float:
        """The skill of the averaged weights."""
        return skill(self.averaged, self.naive)


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures over some samples, by name.

    Attributes
    ----------
    samples : number of samples that were evaluated; the sum of their weights, if they fade
    errors : the errors that skill compares
    measures : figures over all outputs, such as ``mae``; nan: unknown
    parts : the same for parts of the output: targets, steps ahead, or classes; a bounded number of them
    """

    samples: int = 0
    errors: Errors = field(default_factory=Errors)
    measures: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of predictions that were made before their samples were learned.

    Attributes
    ----------
    recent : over the last 1000 samples at most (901 at least, once there were as many)
    total : over all samples since the model began
    fading : over all samples, with weights that halve every 5000 samples
    """

    recent: Figures = field(default_factory=Figures)
    total: Figures = field(default_factory=Figures)
    fading: Figures = field(default_factory=Figures)


@dataclass(frozen=True, slots=True)
class Compared:
    """The naive errors on the samples of one batch that have a target, m of them.

    Attributes
    ----------
    truth : shape (m, k), the k numbers that are evaluated; the class number for classes
    naive_errors : shape (forecasts, m, k), of each naive forecast; the better one counts
    known : shape (m,), True where there is a naive forecast
    """

    truth: _Float64Array
    naive_errors: _Float64Array
    known: npt.NDArray[np.bool_]

    def take(self, rows: slice) -> "Compared":
        """Return only the samples of *rows*."""
        return Compared(self.truth[rows], self.naive_errors[:, rows], self.known[rows])

    @staticmethod
    def joined(parts: "Sequence[Compared]") -> "Compared":
        """Return the samples of all *parts*, in order."""
        return Compared(
            np.concatenate([part.truth for part in parts]),
            np.concatenate([part.naive_errors for part in parts], axis=1),
            np.concatenate([part.known for part in parts]),
        )


class Measure(Protocol):
    """The error of predictions in units that do not depend on the model."""

    def errors(self, truth: _Float64Array, predictions: _Float64Array) -> _Float64Array:
        """Return the error of each evaluated number, shape (n, k), for the *truth* of a `Compared`."""
        ...


def skill(error: float, naive_error: float) -> float:
    """Return ``1 - error / naive_error``: 1 is perfect, 0 is as good as naive, negative is worse.

    Returns nan if the naive forecast makes no error, because nothing can be better than that.

    >>> skill(0.25, 1.0), skill(2.0, 1.0), skill(0.1, 0.0)
    (0.75, -1.0, nan)
    """
    return 1.0 - error / naive_error if naive_error > 0.0 else math.nan


def is_worse(error: float, reference: float, *, margin: float) -> bool:
    """Return whether *error* exceeds *reference* by more than the share *margin*.

    >>> is_worse(1.1, 1.0, margin=0.05), is_worse(1.04, 1.0, margin=0.05), is_worse(math.nan, 1.0, margin=0.05)
    (True, False, False)
    """
    return error > reference * (1.0 + margin)
