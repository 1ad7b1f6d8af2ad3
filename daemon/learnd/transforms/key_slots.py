"""Places for keys, in which a learner keeps the last values of each key."""

import zlib
from dataclasses import replace

import numpy as np

from learnd.core.types import Batch, Int32Array, ObjectArray, State, Transformed


class KeySlots:
    """The place of each sample's key, from 0 to *size* - 1, in the order in which keys appear.

    Once all places are taken, a new key shares one, which follows from its text alone. So memory is bounded, and the
    result does not depend on how the stream was cut.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._slots: dict[str, int] = {}

    def __call__(self, batch: Batch) -> Transformed:
        return Transformed(replace(batch.samples, slots=self._of(batch.samples.keys)))

    def _of(self, keys: ObjectArray) -> Int32Array:
        slots = np.empty(len(keys), np.int32)
        for row, key in enumerate(keys.tolist()):
            slot = self._slots.get(key)
            if slot is None:
                if len(self._slots) < self._size:
                    slot = self._slots[key] = len(self._slots)
                else:
                    slot = zlib.crc32(key.encode()) % self._size
            slots[row] = slot
        return slots

    def state(self) -> State:
        return {"keys": list(self._slots)}

    def restore(self, state: State) -> None:
        self._slots = {key: slot for slot, key in enumerate(state["keys"])}
