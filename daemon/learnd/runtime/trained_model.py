"""The interface of the model to the loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from learnd.core.protocols import Learner
from learnd.core.snapshot import ChosenWeights, MixtureState
from learnd.core.tensors import Array
from learnd.learners.averaged import AveragedModel


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A learner with its averaged weights, and functions that read their state.

    Attributes
    ----------
    classes : returns the names of the classes so far, by number; empty if there are none
    refusals : returns the numbers of refused updates and of rollbacks since the model began
    weights : returns the served state by its names in a checkpoint, with averaged weights; the arrays never change
    continuation : returns the arrays that an export needs, besides weights, for further training; they never change
    mixture : returns the state of the mixture of experts; None for a single learner
    chosen : returns which weights are published; None if there is no choice
    refresh : renews what layers have copied from their variables, after a restore and before tracing
    retraces : returns the number of unexpected compilations of the update
    batch_rows : rows per update
    """

    learner: Learner
    averaged: AveragedModel
    classes: Callable[[], tuple[str, ...]]
    refusals: Callable[[], tuple[int, int]]
    weights: Callable[[], Mapping[str, Array]]
    continuation: Callable[[], Mapping[str, Array]]
    mixture: Callable[[], MixtureState | None]
    chosen: Callable[[], ChosenWeights | None]
    refresh: Callable[[], None]
    retraces: Callable[[], int]
    batch_rows: int = 1
