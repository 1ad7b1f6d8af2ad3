"""What an export is made from, and what is known of the one before."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from learnd.core.quality import Quality, skill
from learnd.core.types import Float32Array, Float64Array, IntervalOffsets, Offsets, PrequentialScores


@dataclass(frozen=True, slots=True)
class MixtureState:
    """The state of a mixture of experts.

    Attributes
    ----------
    weights : of each expert, by its name; they add up to 1
    drifts : number of times that the reservoir was emptied because the stream had changed
    """

    weights: Mapping[str, float]
    drifts: int


@dataclass(frozen=True, slots=True)
class ChosenWeights:
    """The choice of the weights that are published.

    Attributes
    ----------
    name : of the chosen candidate, such as `live`, `average`, or `recent_average`
    losses : of each candidate while it stood still, on rows that came after its weights; empty until that is known
    """

    name: str
    losses: Mapping[str, float] = field(default_factory=dict)


FrozenLosses = Callable[[Float64Array, Float64Array], tuple[Float32Array, Float32Array]]
"""From raw rows and their targets to the losses, shape (n,), and the predictions of weights that never change."""


@dataclass(frozen=True, slots=True)
class Published:
    """The errors of an export on samples that arrived after it.

    Attributes
    ----------
    loss, samples : the mean loss, and the number of samples
    error, naive_error : over the last 1000 of them, as in `learnd.core.quality.Errors`
    recent_loss, averaged_loss, recent_samples : the mean loss over the last 1000 of them, and that of the averaged
        weights, which keep learning, on the same samples
    """

    number: int
    loss: float
    samples: int
    error: float = math.nan
    naive_error: float = math.nan
    recent_loss: float = math.nan
    averaged_loss: float = math.nan
    recent_samples: int = 0

    @property
    def skill(self) -> float:
        """The skill of the export."""
        return skill(self.error, self.naive_error)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable copy of the served state, with its training history."""

    weights: tuple[npt.NDArray[Any], ...]
    """The averaged weights, then the other variables of the served model (`Network.served_state`)."""
    probe_inputs: Float32Array
    """Recent real inputs, shape (m, *row_shape). An export must answer them as the live model does."""
    samples: int
    updates: int
    offsets: Offsets
    first_time_s: float
    last_time_s: float
    signal: PrequentialScores
    labels: tuple[str, ...] = ()
    """Names of the classes, in the order of the model's outputs."""
    learning: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    """The other arrays of an update (slots, moments, counts), by their names in a checkpoint."""
    published: Published | None = None
    """The errors of the previous export, if known."""
    quality: Quality = field(default_factory=Quality)
    intervals: IntervalOffsets | None = None
    """The present prediction intervals; None: there are none."""
    chosen: ChosenWeights | None = None
    """Which weights these are; None: there was no choice."""
