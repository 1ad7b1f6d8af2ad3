"""Naive forecasts of classes: by the key's previous class, and by how frequent each class is."""

import math
from typing import NamedTuple

import numpy as np

from learnd.core.types import BoolArray, Float64Array, ObjectArray, State
from learnd.evaluation.naive import MAX_KEYS

FADING = 0.998
"""Factor on every count at each sample: a horizon of 500 samples."""
_PRIOR_WEIGHT = 1.0
"""Number of samples that the frequencies count for in a row of the table, so that a new row begins with them."""
_UNSEEN_WEIGHT = 0.5
"""Number of samples that each class counts for beyond its own, and that all unseen classes count for together."""
_LARGEST_WEIGHT = 1e6
_FORGOTTEN = 1e-9


class ClassForecasts(NamedTuple):
    """The errors of both forecasts on n samples: by the previous class first, then by frequency.

    Attributes
    ----------
    losses : shape (2, n), in nats
    right : shape (2, n), 1 where the most probable class is the true one
    known : shape (n,), False where the class had never appeared before
    """

    losses: Float64Array
    right: Float64Array
    known: BoolArray


class _Counts:
    """Fading counts of classes, and the most frequent one. Counts are in units of a weight that grows with time.

    All counts fade by the same factor, so only the count that grows can become the largest.
    """

    def __init__(self, counts: dict[int, float] | None = None, best: int = -1) -> None:
        self.of = counts if counts is not None else {}
        self.total = 0.0
        for count in self.of.values():
            self.total += count
        self.best = best

    def add(self, label: int, weight: float) -> None:
        grown = self.of.get(label, 0.0) + weight
        self.of[label] = grown
        self.total += weight
        if self.best < 0 or grown >= self.of[self.best]:
            self.best = label

    def rescaled(self, weight: float) -> "_Counts":
        """Return these counts in units of *weight*, without those that have faded away."""
        return _Counts(
            {c: n / weight for c, n in self.of.items() if n / weight > _FORGOTTEN or c == self.best}, self.best
        )

    def state(self) -> State:
        return {"classes": list(self.of), "counts": list(self.of.values()), "total": self.total, "best": self.best}

    @staticmethod
    def from_state(state: State) -> "_Counts":
        counts = _Counts(dict(zip(state["classes"], state["counts"], strict=True)), state["best"])
        counts.total = state["total"]
        return counts


class ClassTable:
    """A fading table of which class follows which at one key, and the fading frequencies of the classes.

    A plain loop: about 1.5 µs per sample, and every step depends on the one before.
    """

    def __init__(self) -> None:
        self._frequencies = _Counts()
        self._following: dict[int, _Counts] = {}
        self._seen: set[int] = set()
        self._previous: dict[str, int] = {}
        self._weight = 1.0

    def forecast(self, keys: ObjectArray, labels: list[int]) -> ClassForecasts:
        """Return the errors of the forecasts of *labels*, then learn from them."""
        losses: list[float] = []
        right: list[bool] = []
        known = []
        seen, previous_of, log = self._seen, self._previous, math.log
        for key, label in zip(keys, labels, strict=True):
            frequencies, weight = self._frequencies, self._weight
            previous = previous_of.get(key, -1)
            row = self._following.get(previous)
            known.append(label in seen)
            # Counts are in units of the weight, so the constants are as well.
            each = _UNSEEN_WEIGHT * weight
            by_frequency = (frequencies.of.get(label, 0.0) + each) / (frequencies.total + each * (len(seen) + 1))
            if row is None:
                by_previous, best = by_frequency, frequencies.best
            else:
                smooth = _PRIOR_WEIGHT * weight
                by_previous = (row.of.get(label, 0.0) + smooth * by_frequency) / (row.total + smooth)
                best = row.best
            losses += (-log(by_previous), -log(by_frequency))
            right += (best == label, frequencies.best == label)
            self._learn(key, previous, label, row)
        shape = (len(labels), 2)
        return ClassForecasts(
            np.array(losses, np.float64).reshape(shape).T,
            np.array(right, np.float64).reshape(shape).T,
            np.array(known, np.bool_),
        )

    def _learn(self, key: str, previous: int, label: int, row: _Counts | None) -> None:
        """Count one sample; *row* counts what followed the class *previous*."""
        self._weight = weight = self._weight / FADING
        self._frequencies.add(label, weight)
        self._seen.add(label)
        if previous >= 0:
            if row is None:
                row = self._following[previous] = _Counts()
            row.add(label, weight)
        if previous >= 0 or len(self._previous) < MAX_KEYS:
            self._previous[key] = label
        if weight > _LARGEST_WEIGHT:
            self._frequencies = self._frequencies.rescaled(weight)
            self._following = {label: row.rescaled(weight) for label, row in self._following.items()}
            self._weight = 1.0

    def state(self) -> State:
        return {
            "frequencies": self._frequencies.state(),
            "following": [[label, row.state()] for label, row in self._following.items()],
            "seen": sorted(self._seen),
            "keys": list(self._previous),
            "previous": np.array(list(self._previous.values()), np.int64),
            "weight": self._weight,
        }

    def restore(self, state: State) -> None:
        self._frequencies = _Counts.from_state(state["frequencies"])
        self._following = {label: _Counts.from_state(row) for label, row in state["following"]}
        self._seen = set(state["seen"])
        self._previous = dict(zip(state["keys"], state["previous"].tolist(), strict=True))
        self._weight = state["weight"]
