"""Reaction: a line in the log."""

from dataclasses import asdict

import structlog

from learnd.drift.channel import Drift
from learnd.drift.reactions.reaction import Momentary, Surroundings
from learnd.drift.reactions.settings import LogSettings

log = structlog.get_logger()


class Log(Momentary):
    """A line in the log, which says what has changed."""

    def __init__(self, settings: LogSettings, surroundings: Surroundings) -> None:
        self._level = settings.level

    def react(self, drift: Drift, samples: int) -> bool:
        getattr(log, self._level)("drift_detected", **asdict(drift))
        return True
