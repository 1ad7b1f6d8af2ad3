"""One update per sample."""

from learnd.core.types import BoolArray, Samples, State, StepResult
from learnd.learners.chunk import CompiledChunk
from learnd.learners.grouping import hold_mask, learn_in_groups, single_rows
from learnd.learners.settings import PerSampleSettings


class PerSampleLearner:
    """The learner with one update per sample, in the exact order of arrival."""

    def __init__(self, chunk: CompiledChunk, settings: PerSampleSettings) -> None:
        self._chunk = chunk

    def prepare(self) -> None:
        self._chunk.prepare()

    def learn(self, samples: Samples, hold: BoolArray | None = None) -> StepResult:
        return learn_in_groups(self._chunk, samples, single_rows(len(samples)), hold_mask(samples, hold))

    def schedule(self, action: str, at_samples: int) -> None:
        self._chunk.schedule(action, at_samples)

    def state(self) -> State:
        return {"actions": self._chunk.actions.state()}

    def restore(self, state: State) -> None:
        if self._chunk.actions.restore(state["actions"]):
            self._chunk.retrace()
