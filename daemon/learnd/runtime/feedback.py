"""The file that people append their verdicts on alarms to, read while learnd runs."""

import math
from collections.abc import Iterator
from pathlib import Path

import structlog

from learnd.alarms.feedback import Verdict, verdict_from
from learnd.core.errors import UsageError
from learnd.core.schedule import Clock
from learnd.core.types import State

log = structlog.get_logger()

EVERY_S = 1.0
MAX_BYTES = 1 << 20
"""Bytes that are read at once; the others follow a second later."""


class FeedbackFile:
    """The lines that were appended since the last look. Each is used once: how far was read is in the checkpoint.

    A verdict takes effect between two batches, soon after it was written. After a crash it takes effect again, maybe
    some batches earlier or later.
    """

    def __init__(self, path: Path, *, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._next_s = -math.inf
        self._offset = 0

    def new(self) -> Iterator[Verdict]:
        """Yield the verdicts in complete new lines; log those that are none. Looks at most once per second."""
        if self._clock() < self._next_s:
            return
        self._next_s = self._clock() + EVERY_S
        try:
            size = self._path.stat().st_size
            if size < self._offset:
                log.warning("feedback_shortened", path=str(self._path), note="only lines from now on are used")
                self._offset = size
            if size == self._offset:
                return
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read(MAX_BYTES)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("feedback_unreadable", path=str(self._path), error=str(error))
            return
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.splitlines():
            try:
                yield verdict_from(line.decode(errors="replace"))
            except UsageError as error:
                log.warning(
                    "feedback_refused", path=str(self._path), line=line[:200].decode(errors="replace"), error=str(error)
                )

    def state(self) -> State:
        return {"offset": self._offset}

    def restore(self, state: State) -> None:
        self._offset = int(state["offset"])
