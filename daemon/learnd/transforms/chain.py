"""Several transforms, one after the other."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from learnd.core.protocols import Transform
from learnd.core.types import Batch, State


class Chain:
    """Applies *parts* in order; what any of them skips is counted."""

    def __init__(self, parts: Sequence[Transform]) -> None:
        self._parts = parts

    def __call__(self, batch: Batch) -> Batch:
        skipped: Counter[str] = Counter()
        for part in self._parts:
            batch = part(batch)
            skipped.update(batch.skipped)
            batch = replace(batch, skipped={})
        return replace(batch, skipped=dict(skipped))

    def state(self) -> State:
        return {"parts": [part.state() for part in self._parts]}

    def restore(self, state: State) -> None:
        for part, of_part in zip(self._parts, state["parts"], strict=True):
            part.restore(of_part)
