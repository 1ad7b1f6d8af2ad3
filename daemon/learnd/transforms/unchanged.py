"""Nothing happens: every sample stands for itself."""

from learnd.core.types import Batch, State


class Unchanged:
    """Passes batches through."""

    def __call__(self, batch: Batch) -> Batch:
        return batch

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        """There is nothing to restore."""
