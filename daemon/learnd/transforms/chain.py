"""Several transforms, one after the other."""

from collections.abc import Mapping

from learnd.core.protocols import Transform
from learnd.core.types import Batch, State


class Chain:
    """Applies named transforms in order, and adds what each of them rejected, skipped and replaced to the batch.

    The state of each is found by its name. A transform without a saved state starts fresh, so that the rules of the
    features may come and go between two runs.
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
