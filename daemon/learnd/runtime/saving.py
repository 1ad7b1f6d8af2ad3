"""The schedule and the outcomes of checkpoints."""

import time
from collections.abc import Callable

import structlog

from learnd.checkpoint.checkpointer import Checkpoints, Saved
from learnd.core.errors import FileLostError, SaveFailedError
from learnd.core.schedule import Clock, IntervalTrigger
from learnd.core.types import Offsets, State
from learnd.observability.metrics import Metrics
from learnd.runtime.progress import readable

log = structlog.get_logger()


class Saving:
    """Checkpoints that start when they are due. Failures that last too long end learning.

    Parameters
    ----------
    trigger : the schedule of checkpoints
    retry : the schedule after a failure, instead of *trigger*, until a checkpoint succeeds
    give_up_s : time without a success, from the first failure on, after which learning ends; None: never
    max_failures : number of failures in a row after which learning ends; None: any number
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        *,
        trigger: IntervalTrigger,
        retry: IntervalTrigger,
        give_up_s: float | None,
        max_failures: int | None,
        metrics: Metrics,
        clock: Clock = time.monotonic,
    ) -> None:
        self._give_up_s = give_up_s
        self._clock = clock
        self._failing_since_s: float | None = None
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
        if self.checkpoints.restored is not None:
            self._metrics.found_saved(*self.checkpoints.restored)
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
            if checkpoints have failed for too long, or another attempt cannot help.
        """
        durable = []
        while (saved := self.checkpoints.outcome()) is not None:
            self.failure = saved.error
            self.failures = 0 if saved.error is None else self.failures + 1
            self._metrics.checkpoint_consecutive_failures.set(self.failures)
            if saved.error is not None:
                self._note_failed(saved.error, samples)
                continue
            self._failing_since_s = None
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
        now_s = self._clock()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        failing_s = now_s - self._failing_since_s
        option = ""
        if self._give_up_s is not None and failing_s >= self._give_up_s:
            option = "give_up_seconds"
        elif self._max_failures is not None and self.failures >= self._max_failures:
            option = "max_failures"
        if option:
            raise SaveFailedError(
                f"no checkpoint could be saved for {failing_s:.0f} s, in {self.failures} attempts "
                f"(checkpoint.{option}), the last with: {error}; make room or repair the disk, then start again: "
                "learning continues from the last checkpoint"
            )
