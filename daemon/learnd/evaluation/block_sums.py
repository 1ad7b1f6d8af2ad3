"""Sums over the most recent samples, over all, and with fading weights, in a space that does not grow."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from learnd.core.types import Float64Array, State

WINDOW_SAMPLES = 1000
BLOCKS = 10
FADING_HALF_LIFE_SAMPLES = 5000
"""Number of samples after which a sample's weight has halved, in the sums that fade. Five windows: figures that fade
hardly fluctuate, and still forget."""


class BlockSums:
    """Sums of rows in blocks of consecutive samples: over the newest blocks, since the start, and with fading weights.

    Each sum is strictly from left to right, so it does not depend on how the stream was cut. A sum of a block is never
    subtracted again, so no rounding error outlives its block. The window holds between `WINDOW_SAMPLES` less one block
    and `WINDOW_SAMPLES`. Weights fade block by block.

    Parameters
    ----------
    shape : shape of one row
    """

    def __init__(self, shape: tuple[int, ...], *, window_samples: int = WINDOW_SAMPLES) -> None:
        self._size = window_samples // BLOCKS
        self._blocks = np.zeros((BLOCKS, *shape))
        self._complete = np.zeros(shape)
        self._faded = np.zeros(shape)
        self._fading = 0.5 ** (self._size / FADING_HALF_LIFE_SAMPLES)
        self.samples = 0
        """Number of rows that were added since the start."""

    def add(self, rows: Float64Array) -> None:
        """Add *rows*, shape (n, *shape)."""
        for start, stop, block in self._pieces(len(rows)):
            if stop - start == 1:
                block += rows[start]
            else:
                # `cumsum` adds from left to right, which `sum` does not.
                block[:] = np.cumsum(np.concatenate([block[None], rows[start:stop]]), axis=0)[-1]

    def count(self, places: npt.NDArray[np.int64]) -> None:
        """Add 1 at each of *places*, shape (n, m), for each of n samples. The sums must have one axis."""
        for start, stop, block in self._pieces(len(places)):
            if stop - start == 1:
                block[places[start]] += 1.0
            else:
                block += np.bincount(places[start:stop].ravel(), minlength=len(block))

    def _pieces(self, count: int) -> Iterator[tuple[int, int, Float64Array]]:
        """Yield the start, the stop and the block of each run of rows that fall into one block."""
        start = 0
        while start < count:
            filled = self.samples % self._size
            block = self._blocks[self.samples // self._size % BLOCKS]
            if not filled:
                block[:] = 0.0
            stop = min(count, start + self._size - filled)
            yield start, stop, block
            self.samples += stop - start
            if not self.samples % self._size:
                self._complete += block
                self._faded *= self._fading
                self._faded += block
            start = stop

    @property
    def recent_samples(self) -> int:
        """The number of samples in the window."""
        complete = min(self.samples // self._size, BLOCKS - bool(self.samples % self._size))
        return complete * self._size + self.samples % self._size

    def recent(self) -> Float64Array:
        """Return the sums over the window."""
        sums: Float64Array = self._blocks.sum(axis=0)
        return sums

    def total(self) -> Float64Array:
        """Return the sums since the start."""
        if not self.samples % self._size:
            return self._complete.copy()
        total: Float64Array = self._complete + self._blocks[self.samples // self._size % BLOCKS]
        return total

    def fading(self) -> Float64Array:
        """Return the sums with weights that halve every `FADING_HALF_LIFE_SAMPLES`."""
        if not self.samples % self._size:
            return self._faded.copy()
        fading: Float64Array = self._faded * self._fading + self._blocks[self.samples // self._size % BLOCKS]
        return fading

    @property
    def fading_samples(self) -> float:
        """The sum of the weights of all samples in `fading`."""
        complete, rest = divmod(self.samples, self._size)
        weights: float = self._size * (1.0 - self._fading**complete) / (1.0 - self._fading)
        return weights * self._fading + rest if rest else weights

    def state(self) -> State:
        return {
            "blocks": self._blocks.copy(),
            "complete": self._complete.copy(),
            "faded": self._faded.copy(),
            "samples": self.samples,
        }

    def restore(self, state: State) -> None:
        self._blocks = np.array(state["blocks"])
        self._complete = np.array(state["complete"])
        self._faded = np.array(state["faded"])
        self.samples = int(state["samples"])
