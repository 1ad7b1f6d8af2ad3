"""The alarms of the loop: from samples and results to events in the sink, the log and the metrics."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any

import structlog

from learnd.alarms.episodes import Alarm
from learnd.alarms.monitor import Monitor
from learnd.core.protocols import AlarmSink
from learnd.core.types import BoolArray, Samples, State, StepResult
from learnd.observability.metrics import Metrics
from learnd.runtime.feedback import FeedbackFile

log = structlog.get_logger()

LONG_S = 3.0
"""Time to compile that is worth a line; from a cache it takes a quarter of a second."""
LOGGED_PER_MINUTE = 20
"""Events that are logged in a minute; further ones are counted in one line."""


class Alarming:
    """The monitor with the places that its events go to.

    Parameters
    ----------
    monitor : None: there are no alarms
    """

    def __init__(
        self,
        monitor: Monitor | None,
        sink: AlarmSink,
        metrics: Metrics,
        feedback: FeedbackFile,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._monitor = monitor
        self._metrics = metrics
        self._feedback = feedback
        self._clock = clock
        self._minute_s = -60.0
        self._logged = self._left_out = 0
        self.sink = sink

    def prepare(self) -> None:
        """Compile the heads; log it if that took long, because the next start need not take as long."""
        if self._monitor is None:
            return
        self._metrics.alarms([], active=self._monitor.active())
        began_s = self._clock()
        self._monitor.prepare()
        if (duration_s := self._clock() - began_s) > LONG_S:
            note = "it is cached if the installation, or NUMBA_CACHE_DIR, can be written"
            log.info("alarms_compiled", duration_s=round(duration_s, 1), note=note)

    def watch(self, samples: Samples) -> tuple[Samples, BoolArray | None]:
        """Return *samples* as they are to be learned, and a mask of those to hold."""
        if self._monitor is None:
            return samples, None
        return self._monitor.watch(samples)

    def evaluate(self, result: StepResult, drifts: Sequence[tuple[int, dict[str, Any]]] = ()) -> StepResult:
        """Return *result* with its alarms. Lines of *drifts*, each with its row, go to the sink next to the alarms."""
        events: list[tuple[int, Alarm]] = []
        if self._monitor is not None:
            result, events = self._monitor.evaluate(result)
        if events or drifts:
            # In the order of rows: the file is then the same however the stream is cut.
            lines = sorted([*((row, event.as_line()) for row, event in events), *drifts], key=itemgetter(0))
            self.sink.put([line for _, line in lines])
        self._report([event for _, event in events])
        return result

    def follow_feedback(self) -> None:
        """Follow what people have said about alarms since the last call."""
        if self._monitor is None:
            return
        for verdict in self._feedback.new():
            said = {"alarm": verdict.alarm, "key": verdict.key, "anomaly": verdict.anomaly}
            if self._monitor.correct(verdict):
                log.info("feedback_followed", **said)
            else:
                log.warning("feedback_unknown", **said, note="the alarm is too old, or the key is not watched")

    def _report(self, events: Sequence[Alarm]) -> None:
        if events:
            begun = [event.head for event in events if event.phase == "began"]
            self._metrics.alarms(begun, active=self._monitor.active() if self._monitor is not None else 0)
            for event in events:
                self._log(event)

    def _log(self, event: Alarm) -> None:
        now_s = self._clock()
        if now_s - self._minute_s >= 60.0:
            if self._left_out:
                log.warning("alarms_not_logged", count=self._left_out, note="more than the log takes in a minute")
            self._minute_s, self._logged, self._left_out = now_s, 0, 0
        if self._logged >= LOGGED_PER_MINUTE:
            self._left_out += 1
            return
        self._logged += 1
        line = event.as_line()
        phase = line.pop("phase")
        log.warning(f"alarm_{phase}", **line)

    def state(self) -> State:
        return {} if self._monitor is None else {**self._monitor.state(), "feedback": self._feedback.state()}

    def restore(self, state: State) -> None:
        """Take over *state*; without one, or with one of other columns, the alarms start anew."""
        if self._monitor is not None and state:
            self._monitor.restore(state)
            self._feedback.restore(state["feedback"])
            self._metrics.alarms([], active=self._monitor.active())
