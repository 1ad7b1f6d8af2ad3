"""Protocols of reviews: the part that observes a learner between two compiled calls, and its means to change it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from learnd.core.rows import LearnedRows
from learnd.core.tensors import Array
from learnd.core.types import Float32Array, Float64Array, StepResult


class Controls(Protocol):
    """The changes that a reaction to drift can make to a learner, between two compiled calls.

    All changes but that of the rates are changes of variables in the checkpoint.
    """

    def scale_rates(self, factor: float) -> None:
        """Set the learning rate of each optimizer to its configured one times *factor*."""
        ...

    def slot_reset(self) -> Callable[[], bool]:
        """Return a function that sets the optimizers' slots to their present values, before anything is learned.

        Slots that are copies of weights stay. The function returns False if there are no slots to set.
        """
        ...

    def weigh_replay(self, factor: float) -> bool:
        """Multiply the weights of replayed samples by *factor*; 0 removes them. Return False if there is no replay."""
        ...

    def restart_averages(self) -> bool:
        """Let the averages of the weights begin again; return False if there are none."""
        ...

    def hasten_scales(self, memory: float) -> bool:
        """Let scales follow as if they rested on *memory* values at most; return False if there are none."""
        ...

    def weights(self) -> tuple[Array, ...]:
        """Return the weights that learn; the arrays never change."""
        ...

    def published(self) -> tuple[Array, ...]:
        """Return the weights that an export would hold, in the same order; the arrays never change."""
        ...

    def put(self, weights: Sequence[Array]) -> None:
        """Replace the weights that learn."""
        ...

    def losses(self, weights: Sequence[Array], x: Float64Array, y: Float64Array) -> Float32Array:
        """Return the losses of rows with other *weights*, shape (n,), on the scale of the current losses."""
        ...

    def losses_of(self, predictions: Float64Array, x: Float64Array, y: Float64Array) -> Float32Array:
        """Return the losses of raw *predictions*, shape (n,), on the scale of the current losses."""
        ...

    def trial(self) -> "Trial":
        """Return a trial of the learner as it is now, before anything is learned."""
        ...


class Trial(Protocol):
    """A learner that begins again, on rows of its own."""

    def run(self, rows: LearnedRows, *, passes: int, scored: int) -> Float64Array:
        """Begin again and learn *rows*, those before the last *scored* ones *passes* times.

        Return the predictions of the last *scored* rows, made before each was learned. Scales and counts do not change.
        """
        ...

    def undo(self) -> None:
        """Continue with the learner from before `run`."""
        ...


class Reviewer(Protocol):
    """A part that observes results while they are learned, and may change the learner at fixed sample counts."""

    @property
    def every_samples(self) -> int:
        """The number of learned samples between two reviews, a multiple of the samples per update."""
        ...

    def observe(self, result: StepResult) -> None:
        """Observe the next rows. They end at the review, if they reach it, which takes place in this call."""
        ...
