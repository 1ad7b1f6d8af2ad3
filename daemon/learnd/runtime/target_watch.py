"""The watch for a target that never comes: a wrong name must not pass for records that are only asked about."""

from collections.abc import Sequence

import structlog

from learnd.core.types import Samples

log = structlog.get_logger()

FIRST_RECORDS = 100
"""Number of records without a target after which it is reported; then at twice as many, and so on."""


class TargetWatch:
    """The counts of this process: samples with and without a target.

    Parameters
    ----------
    targets : the names of the target fields; empty: the target is no field of a record, so nothing is watched
    """

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = tuple(targets)
        self._seen = False
        self._without = 0
        self._next = FIRST_RECORDS

    def observe(self, samples: Samples, *, model_samples: int) -> None:
        """Count *samples*; log an error while none had a target and the model has learned nothing in its life."""
        if self._seen or not self._targets or not len(samples):
            return
        known = samples.has_target
        if known is None or known.any() or model_samples:
            self._seen = True
            return
        self._without += len(samples)
        if self._without >= self._next:
            while self._next <= self._without:
                self._next *= 2
            self.report()

    @property
    def never_seen(self) -> bool:
        """True if records came, and the model never had a target to learn from."""
        return self._without > 0 and not self._seen

    def report(self, **more: object) -> None:
        """Log that no record had a target so far."""
        log.error(
            "no_target",
            always=True,
            target=list(self._targets),
            records=self._without,
            note="no record had a value of target, so nothing was learned and every answer is a guess; check the name "
            "in target, or set decode.missing_target: reject",
            **more,
        )
