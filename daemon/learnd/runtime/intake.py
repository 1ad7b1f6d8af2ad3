"""Figures about incoming records: the age of the last accepted one, the share of rejects, the time to catch up."""

import math
import time
from collections import deque

from learnd.core.schedule import Clock

SHARE_RECORDS = 1000
"""Number of records, at least, over which the share of rejects is taken."""
SPAN_S = 30.0
"""Time over which the change of the lag is measured; a broker's batches make it jump from second to second."""
LEAST_S = 5.0
EVERY_S = 1.0


class Intake:
    """Figures about the newest records of this process.

    Parameters
    ----------
    clock : must never go back
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._accepted_s = math.nan
        self._batches: deque[tuple[int, int]] = deque()
        self._records = self._rejected = 0
        self._lags: deque[tuple[float, int, int]] = deque()
        """Time, lag and total of the records so far, over the last `SPAN_S`."""
        self._total = 0

    def begin(self) -> None:
        """Start to count the time without a record: reading begins."""
        self._accepted_s = self._clock()

    def observe(self, records: int, rejected: int) -> None:
        """Count a batch of *records*, of which *rejected* were rejected."""
        records = max(records, rejected)  # the source may reject what it could not count
        self._total += records
        if records > rejected:
            self._accepted_s = self._clock()
        self._batches.append((records, rejected))
        self._records, self._rejected = self._records + records, self._rejected + rejected
        while self._records - self._batches[0][0] >= SHARE_RECORDS:
            old_records, old_rejected = self._batches.popleft()
            self._records, self._rejected = self._records - old_records, self._rejected - old_rejected

    def accepted_age_s(self) -> float:
        """Return the time since a record was accepted, or since reading began if none was; nan before that."""
        return self._clock() - self._accepted_s

    def rejected_share(self) -> float:
        """Return the share of the last `SHARE_RECORDS` records, or somewhat more, that was rejected; nan before any."""
        return self._rejected / self._records if self._records else math.nan

    def observe_lag(self, lag_records: int) -> None:
        """Observe the lag of all partitions together. Calls within `EVERY_S` of the last one do nothing."""
        now_s = self._clock()
        if self._lags and now_s - self._lags[-1][0] < EVERY_S:
            return
        self._lags.append((now_s, lag_records, self._total))
        while now_s - self._lags[0][0] > SPAN_S:
            self._lags.popleft()

    def catch_up_s(self) -> float:
        """Return the time until the backlog will have been learned.

        0 if it is less than what is learned in a second; infinity if it grows; nan while unknown.
        """
        if not self._lags:
            return math.nan
        (first_s, first_lag, first_total), (last_s, lag, total) = self._lags[0], self._lags[-1]
        elapsed_s = last_s - first_s
        if not lag:
            return 0.0
        if elapsed_s < LEAST_S:
            return math.nan
        if lag * elapsed_s <= total - first_total:
            return 0.0
        return lag * elapsed_s / (first_lag - lag) if first_lag > lag else math.inf


def spoken_duration(seconds: float) -> str:
    """Return a time in the largest unit that fits.

    >>> [spoken_duration(seconds) for seconds in (7.4, 90, 5400, 200_000)]
    ['7 s', '2 min', '1.5 h', '2.3 d']
    """
    for unit, length_s, digits in (("d", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.{digits}f} {unit}"
    return f"{seconds:.0f} s"
