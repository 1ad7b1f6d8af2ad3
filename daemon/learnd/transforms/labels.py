"""Class numbers for labels, and weights for classes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import structlog

from learnd.core.reasons import SkipReason
from learnd.core.types import Batch, State, Transformed

log = structlog.get_logger()

ClassWeights = Mapping[str, float] | Literal["balanced"] | None


class Labels:
    """Class numbers, in the order in which labels first appear. The number becomes the sample's target.

    Samples of classes beyond *capacity* are collected in the class *other*, for which one place is kept free. Without
    it they are skipped. Both are logged with their count, at 1, 2, 4, 8 ... samples. With *weights*, a sample is
    weighted by its class: from a table (1 for a class that is not in it), or ``balanced``, inversely to the class's
    frequency so far, ``n / (classes * n_class)``.

    Parameters
    ----------
    first : the classes known before the first sample
    """

    def __init__(self, first: Sequence[str], *, capacity: int, weights: ClassWeights, other: str | None = None) -> None:
        self._capacity = capacity
        self._weights = weights
        self._numbers = {label: number for number, label in enumerate(first)}
        self._counts = [0] * len(first)
        self._other = other
        self._beyond = 0
        """Number of samples whose class has no number of its own."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes so far, by number."""
        return tuple(self._numbers)

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        labels = samples.labels if samples.labels is not None else np.empty(0, object)
        known = samples.has_target if samples.has_target is not None else np.ones(len(samples), np.bool_)
        # A sample without a label is only predicted; the number of its class is never read.
        numbers = np.array([self._number(str(t)) if k else 0 for t, k in zip(labels, known, strict=True)], np.int64)
        learnable = numbers >= 0
        weights = samples.weights
        if self._weights is not None:
            rows = zip(labels, numbers, learnable & known, strict=True)
            by_class = [self._weight(str(label), number) if counts else 0.0 for label, number, counts in rows]
            weights = np.array(by_class, np.float32) * (1.0 if weights is None else weights)
        targets = numbers.astype(np.float64)[:, None]
        numbered = replace(samples, y=targets, weights=weights, labels=None)
        if learnable.all():
            return Transformed(numbered)
        return Transformed(numbered.take(learnable), skipped={SkipReason.TOO_MANY_CLASSES: int((~learnable).sum())})

    def _number(self, label: str) -> int:
        number = self._numbers.get(label)
        if number is not None:
            return number
        reserved = self._other is not None and self._other not in self._numbers and label != self._other
        if len(self._numbers) + reserved < self._capacity:
            return self._add(label)
        self._beyond += 1
        if self._beyond & (self._beyond - 1) == 0:
            self._report(label)
        if self._other is None or len(self._numbers) + reserved > self._capacity:
            return -1
        return self._add(self._other) if reserved else self._numbers[self._other]

    def _add(self, label: str) -> int:
        self._numbers[label] = number = len(self._numbers)
        self._counts.append(0)
        log.info("class_added", always=True, label=label, number=number, classes=len(self._numbers))
        return number

    def _report(self, label: str) -> None:
        """Log the newest *label* that has no number of its own, and how many samples were like it."""
        figures = {"label": label, "max_classes": self._capacity, "samples": self._beyond}
        if self._other is None:
            note = (
                "skipped; set task.other_class to collect such samples, or a higher task.max_classes in a new data_dir"
            )
            log.error("class_refused", always=True, **figures, note=note)
        else:
            log.warning("class_collected", always=True, **figures, other_class=self._other)

    def _weight(self, label: str, number: int) -> float:
        """Count this sample and return its weight. A class that is collected weighs as the class that collects."""
        self._counts[number] += 1
        if isinstance(self._weights, Mapping):
            return self._weights.get(label if label in self._numbers else self._other or label, 1.0)
        seen = sum(count > 0 for count in self._counts)
        return sum(self._counts) / (seen * self._counts[number])

    def state(self) -> State:
        return {"names": list(self._numbers), "counts": list(self._counts), "beyond": self._beyond}

    def restore(self, state: State) -> None:
        self._numbers = {label: number for number, label in enumerate(state["names"])}
        self._counts = list(state["counts"])
        self._beyond = int(state["beyond"])
