"""Schedules by elapsed time, by learned samples, or by whichever comes first."""

from collections.abc import Callable

Clock = Callable[[], float]
"""A monotonic clock, in seconds: ``time.monotonic``, or a test's own."""


class IntervalTrigger:
    """A trigger that is due once *seconds* have passed, or *samples* were learned, since the last reset.

    >>> now = 0.0
    >>> every = IntervalTrigger(seconds=30.0, samples=None, clock=lambda: now)
    >>> every.due(samples=10)
    False
    >>> now = 31.0
    >>> every.due(samples=10)
    True
    >>> every.reset(samples=10)
    >>> every.due(samples=10)
    False
    """

    def __init__(self, *, seconds: float | None, samples: int | None, clock: Clock) -> None:
        self._seconds = seconds
        self._samples = samples
        self._clock = clock
        self._last_s = clock()
        self._last_samples = 0
        self._hastened = False

    def due(self, samples: int) -> bool:
        """Return True if the trigger is due; *samples* is the number of samples learned so far."""
        if self._hastened:
            return True
        if self._seconds is not None and self._clock() - self._last_s >= self._seconds:
            return True
        return self._samples is not None and samples - self._last_samples >= self._samples

    def hasten(self) -> None:
        """Make the trigger due now."""
        self._hastened = True

    def reset(self, samples: int) -> None:
        """Start counting again from now; *samples* is the number of samples learned so far."""
        self._hastened = False
        self._last_s = self._clock()
        self._last_samples = samples
