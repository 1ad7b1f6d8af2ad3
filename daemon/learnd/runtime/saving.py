"""The schedule and the outcomes of checkpoints."""

from collections.abc import Callable

import structlog

from learnd.checkpoint.checkpointer import Checkpoints, Saved
from learnd.core.errors import FileLostError, SaveFailedError
from learnd.core.schedule import IntervalTrigger
from learnd.core.types import Offsets, State
from learnd.observability.metrics import Metrics
from learnd.runtime.progress import readable

log = structlog.get_logger()


class Saving:
    """Checkpoints that start when they are due. Too many failures in a row end learning.

    Parameters
    ----------
    trigger : the schedule of checkpoints
    retry : the schedule after a failure, instead of *trigger*, until a checkpoint succeeds
    max_failures : number of failures in a row after which learning ends; None: never
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        trigger: IntervalTrigger,
        retry: IntervalTrigger,
        max_failures: int | None,
        metrics: Metrics,
    ) -> None:
        self.checkpoints = checkpoints
        self.trigger = trigger
        self._retry = retry
        self._max_failures = max_failures
        self._metrics = metrics
        self.last: Saved | None = None
        """The newest checkpoint of this process."""
        self.failure: SaveFailedError | None = None
        """The error of the last checkpoint; None if it succeeded."""
        self.failures = 0
        """Number of failures in a row."""

    def open(self) -> None:
        """Create the directory, and remove incomplete checkpoints of a crashed process."""
        self.checkpoints.open()

    def restore(self) -> State | None:
        """Restore the newest sound checkpoint; see `Checkpoints.restore`."""
        state = self.checkpoints.restore()
        self._metrics.checkpoints_damaged.inc(len(self.checkpoints.damaged))
        return state

    def due(self, samples: int) -> bool:
        """Return whether a checkpoint is due and none is being written."""
        trigger = self.trigger if self.failure is None else self._retry
        return trigger.due(samples) and not self.checkpoints.busy()

    def begin(self, state: State, offsets: Offsets, flush: Callable[[], None], *, samples: int) -> None:
        """Start a checkpoint of the current state; see `Checkpoints.begin`."""
        self.trigger.reset(samples)
        self.checkpoints.begin(state, offsets, flush)

    def collect(self, samples: int) -> list[Saved]:
        """Return the checkpoints that became durable since the last call, oldest first.

        Raises
        ------
        SaveFailedError
            if too many checkpoints in a row have failed, or another attempt cannot help.
        """
        durable = []
        while (saved := self.checkpoints.outcome()) is not None:
            self.failure = saved.error
            self.failures = 0 if saved.error is None else self.failures + 1
            self._metrics.checkpoint_consecutive_failures.set(self.failures)
            if saved.error is not None:
                self._note_failed(saved.error, samples)
                continue
            self.last = saved
            self._metrics.saved(saved.duration_s, saved.size_bytes)
            duration_s = round(saved.duration_s, 3)
            log.info("checkpoint_saved", number=saved.number, duration_s=duration_s, offsets=readable(saved.offsets))
            durable.append(saved)
        return durable

    def require_success(self) -> None:
        """Raise the failure of the last checkpoint, if it failed."""
        if self.failure is not None:
            raise self.failure

    def _note_failed(self, error: SaveFailedError, samples: int) -> None:
        self._metrics.checkpoint_failures.inc()
        log.error("checkpoint_failed", error=str(error), in_a_row=self.failures)
        self._retry.reset(samples)
        if isinstance(error, FileLostError):
            raise error
        if self._max_failures is not None and self.failures >= self._max_failures:
            raise SaveFailedError(
                f"{self.failures} checkpoints in a row failed (checkpoint.max_failures), the last with: {error}; make "
                "room or repair the disk, then start again: learning continues from the last checkpoint"
            )
