"""The drift monitor in the loop: drifts go to the alarms sink and the metrics."""

from typing import Any

from learnd.core.types import State, StepResult
from learnd.drift.monitor import DriftMonitor
from learnd.observability.metrics import Metrics

Line = tuple[int, dict[str, Any]]
"""A row of a result, and the line for the alarms sink that belongs to it."""


class Drifting:
    """The monitor with the places that its drifts go to.

    Parameters
    ----------
    monitor : None: nothing is observed
    within_learning : the learner calls the monitor itself, because reactions change the model
    """

    def __init__(self, monitor: DriftMonitor | None, metrics: Metrics, *, within_learning: bool) -> None:
        self._monitor = monitor
        self._metrics = metrics
        self._within_learning = within_learning

    def begin(self, samples: int) -> None:
        """Continue with a model that has learned *samples*, whose checkpoint may know nothing of drift."""
        if self._monitor is not None:
            self._monitor.begin(samples)

    def observe(self, result: StepResult) -> list[Line]:
        """Return the drifts of *result* as lines for the alarms sink."""
        if self._monitor is None:
            return []
        if not self._within_learning:
            self._monitor.observe(result)
        reviewed = self._monitor.reviewed()
        for each in reviewed:
            self._metrics.drift(each.drift.on, each.reactions)
        return [(each.row, each.as_line()) for each in reviewed]

    def close(self) -> None:
        """Release everything that the reactions hold."""
        if self._monitor is not None:
            self._monitor.close()

    def state(self) -> State:
        return {} if self._monitor is None else self._monitor.state()

    def restore(self, state: State) -> None:
        """Take over *state*; without one the detectors start again."""
        if self._monitor is not None and state:
            self._monitor.restore(state)
