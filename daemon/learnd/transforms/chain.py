"""The sequence of all transforms."""

from collections.abc import Mapping

from learnd.core.protocols import Transform
from learnd.core.types import Batch, State


class Chain:
    """Named transforms, applied in order. Their rejects and counts are added to the batch.

    State is saved by name. A transform without saved state starts fresh, so that the rules of features can be added and
    removed between two runs.
    """

    def __init__(self, parts: Mapping[str, Transform]) -> None:
        self._parts = dict(parts)

    def __call__(self, batch: Batch) -> Batch:
        for part in self._parts.values():
            batch = batch.with_(part(batch))
        return batch

    def state(self) -> State:
        return {name: part.state() for name, part in self._parts.items()}

    def restore(self, state: State) -> None:
        for name, part in self._parts.items():
            if name in state:
                part.restore(state[name])
