"""One update per micro-batch."""

from dataclasses import fields

import numpy as np

from learnd.core.types import Samples, State, StepResult, TopicPartition
from learnd.learners.chunk import CompiledChunk
from learnd.learners.per_sample import learn_in_chunks
from learnd.learners.settings import MicroBatchSettings


class MicroBatchLearner:
    """Learns samples in groups of ``batch_size``; an incomplete group waits, in the checkpoint too.

    Groups are cut by the count of samples, so they are the same ones after a restart and whatever the polls bring.
    """

    def __init__(self, chunk: CompiledChunk, settings: MicroBatchSettings) -> None:
        self._chunk = chunk
        self._size = settings.batch_size
        self._waiting: Samples | None = None

    def prepare(self) -> None:
        self._chunk.prepare()

    def learn(self, samples: Samples) -> StepResult:
        together = samples if self._waiting is None else Samples.concat([self._waiting, samples])
        whole = len(together) - len(together) % self._size
        self._waiting = together.take(slice(whole, None)) if whole < len(together) else None
        return learn_in_chunks(self._chunk, together.take(slice(whole)), updates=whole // self._size)

    def state(self) -> State:
        if self._waiting is None:
            return {}
        columns = {field.name: getattr(self._waiting, field.name) for field in fields(Samples)}
        columns = {name: column for name, column in columns.items() if column is not None}
        columns["keys"] = list(self._waiting.keys)
        columns["origins"] = [list(origin) for origin in self._waiting.origins]
        return {"waiting": columns}

    def restore(self, state: State) -> None:
        columns = state.get("waiting")
        if columns is None:
            self._waiting = None
            return
        origins = np.empty(len(columns["origins"]), dtype=object)
        origins[:] = [TopicPartition(*origin) for origin in columns["origins"]]
        keys = np.empty(len(columns["keys"]), dtype=object)
        keys[:] = columns["keys"]
        self._waiting = Samples(**{**columns, "keys": keys, "origins": origins})
