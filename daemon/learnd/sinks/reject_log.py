"""The log lines about rejected records."""

from collections import Counter
from collections.abc import Sequence

import structlog

from learnd.core.reasons import RejectReason
from learnd.core.types import Reject

log = structlog.get_logger()

FIRST = 3
"""Number of rejects per reason that each have a line of their own, at once."""


class RejectLog:
    """The first rejects of each reason with what is wrong; then at most one line per reason and batch, with counts.

    The message of a reject names the field, its value (cut; nothing of it if the feature is secret) and the option that
    would accept it. `learnd.observability.logs` holds back repetitions, except for the first.
    """

    def __init__(self) -> None:
        self._counts: Counter[RejectReason] = Counter()

    def put(self, rejects: Sequence[Reject]) -> None:
        """Log *rejects*, those of one batch."""
        later: dict[RejectReason, Reject] = {}
        for reject in rejects:
            self._counts[reject.reason] += 1
            if self._counts[reject.reason] <= FIRST:
                self._line(reject, always=True)
            else:
                later[reject.reason] = reject
        in_batch = Counter(reject.reason for reject in rejects)
        for reason, reject in later.items():
            self._line(reject, in_batch=in_batch[reason])

    def _line(self, reject: Reject, **more: object) -> None:
        log.warning(
            "record_rejected",
            reason=reject.reason,
            detail=reject.detail,
            topic=reject.origin.topic,
            partition=reject.origin.partition,
            offset=reject.offset,
            of_this_reason=self._counts[reject.reason],
            **more,
        )
