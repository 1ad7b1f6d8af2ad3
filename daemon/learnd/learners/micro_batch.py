"""One update per micro-batch."""

from dataclasses import fields, replace

import numpy as np

from learnd.core.types import BoolArray, Samples, State, StepResult, TopicPartition
from learnd.learners.chunk import CompiledChunk
from learnd.learners.grouping import hold_mask, in_groups, learn_in_groups
from learnd.learners.settings import MicroBatchSettings


class MicroBatchLearner:
    """The learner with one update per ``batch_size`` samples. An incomplete group waits, also in the checkpoint.

    Groups are cut by counting samples, so they do not depend on restarts or on how the stream was cut. Samples that are
    only predicted do not wait: they are predicted with the weights after the last complete group.
    """

    def __init__(self, chunk: CompiledChunk, settings: MicroBatchSettings) -> None:
        self._chunk = chunk
        self._size = settings.batch_size
        self._waiting: Samples | None = None

    def prepare(self) -> None:
        self._chunk.prepare()

    def learn(self, samples: Samples, hold: BoolArray | None = None) -> StepResult:
        mask = hold_mask(samples, hold)
        if self._waiting is not None:
            mask = np.concatenate([np.zeros(len(self._waiting), np.bool_), mask])
            samples = Samples.concat([self._waiting, samples])
        index, waiting = in_groups(mask, self._size)
        self._waiting = replace(samples.take(waiting), has_target=None) if len(waiting) else None
        return learn_in_groups(self._chunk, samples, index, mask)

    def schedule(self, action: str, at_samples: int) -> None:
        self._chunk.schedule(action, at_samples)

    def state(self) -> State:
        actions = self._chunk.actions.state()
        if self._waiting is None:
            return {"actions": actions}
        columns = {field.name: getattr(self._waiting, field.name) for field in fields(Samples)}
        columns = {name: column for name, column in columns.items() if column is not None}
        columns["keys"] = list(self._waiting.keys)
        columns["origins"] = [list(origin) for origin in self._waiting.origins]
        return {"actions": actions, "waiting": columns}

    def restore(self, state: State) -> None:
        if self._chunk.actions.restore(state["actions"]):
            self._chunk.retrace()
        columns = state.get("waiting")
        if columns is None:
            self._waiting = None
            return
        origins = np.empty(len(columns["origins"]), dtype=object)
        origins[:] = [TopicPartition(*origin) for origin in columns["origins"]]
        texts = {}
        for name in columns.keys() & {"keys", "record_keys", "ids"}:
            texts[name] = np.empty(len(columns[name]), dtype=object)
            texts[name][:] = columns[name]
        self._waiting = Samples(**{**columns, **texts, "origins": origins})
