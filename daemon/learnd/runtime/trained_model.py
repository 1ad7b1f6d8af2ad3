"""The model as the loop sees it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from learnd.core.protocols import Learner
from learnd.core.tensors import Array
from learnd.learners.averaged import AveragedModel


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A learner, its averaged weights, and what can be asked of both.

    Attributes
    ----------
    classes : the names of the classes so far, by number; empty where there are none
    refusals : updates refused, and rollbacks, since the model began
    weights : the served state by the names that a checkpoint gives it, with averaged weights; the arrays never change
    continuation : what an exported model needs besides its weights to be trained further, as arrays that never change
    retraces : compilations of the update that nothing called for
    """

    learner: Learner
    averaged: AveragedModel
    classes: Callable[[], tuple[str, ...]]
    refusals: Callable[[], tuple[int, int]]
    weights: Callable[[], Mapping[str, Array]]
    continuation: Callable[[], Mapping[str, Array]]
    retraces: Callable[[], int]
