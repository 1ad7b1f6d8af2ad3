"""Inputs that a model takes for whole numbers, such as the ids of an embedding, and the largest that it knows."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import KerasModel, Tensor
from learnd.models.stored.graph import PASSES_ON

LARGEST = 2**24
"""Largest whole number up to which float32, the type of exported inputs, holds each one."""
_PASSES_ON = PASSES_ON | {"Reshape", "Squeeze", "ExpandDims"}
_ONLY_SHAPE = frozenset({"Shape", "Size", "Rank"})


@dataclass(frozen=True, slots=True)
class WholeNumbers:
    """The inputs that a model takes for whole numbers.

    Attributes
    ----------
    limits : for each feature, the number of ids from 0 on that the model knows; None: any number
    """

    limits: tuple[int | None, ...]

    def highest(self) -> list[int]:
        """Return an exclusive limit for made-up ids of each feature."""
        return [limit if limit is not None else 1000 for limit in self.limits]


def whole_numbers(model: KerasModel, row_shape: tuple[int, ...], place: str, *, scaled: bool) -> WholeNumbers | None:
    """Return the limits of the inputs of *model* if it takes whole numbers only; None if it takes any.

    Parameters
    ----------
    row_shape : shape of one input row; its last axis holds the features
    place : where the configuration names the model
    scaled : the inputs would be standardised

    Raises
    ------
    ConfigError
        if only a part of the inputs becomes whole numbers and all of them would be standardised.
    """
    share = _share_cast(model, row_shape)
    if share == 0.0:
        return None
    if share < 1.0:
        if scaled:
            message = (
                "the model converts a part of its inputs to whole numbers, as for an Embedding, and would get"
                " standardised ones; add scaling: {inputs: none}, and scale the others inside the model"
            )
            raise ConfigError(Problem(place, message))
        return None
    return WholeNumbers(tuple(_limits(model, row_shape)))


def _share_cast(model: KerasModel, row_shape: tuple[int, ...]) -> float:
    """Return the share of the uses of the model's input that convert it to whole numbers."""
    inputs = getattr(model, "inputs", None)
    if inputs and keras.backend.is_int_dtype(inputs[0].dtype):
        return 1.0
    trace = tf.function(lambda rows: model(rows, training=False), autograph=False)
    try:
        graph = trace.get_concrete_function(tf.TensorSpec((1, *row_shape), tf.float32)).graph
    except Exception:  # a model that cannot be traced is refused later, with the reason
        return 0.0
    uses = [_casts(tensor) for tensor in graph.inputs[:1]]
    casts, others = sum(use[0] for use in uses), sum(use[1] for use in uses)
    return casts / (casts + others) if casts else 0.0


def _casts(tensor: Tensor) -> tuple[int, int]:
    """Return how many uses of *tensor*, and of its parts, convert it to whole numbers, and how many do not."""
    casts = others = 0
    for operation in tensor.consumers():  # type: ignore[attr-defined]  # TensorFlow has no types
        if operation.type == "Cast" and operation.outputs[0].dtype.is_integer:
            casts += 1
        elif operation.type in _PASSES_ON or operation.type in ("StridedSlice", "Split", "SplitV", "Unpack"):
            for part in operation.outputs:
                inner = _casts(part)
                casts, others = casts + inner[0], others + inner[1]
        elif operation.type not in _ONLY_SHAPE:
            others += 1
    return casts, others


def _limits(model: KerasModel, row_shape: tuple[int, ...]) -> list[int | None]:
    """Return how many ids of each feature the model knows. An unknown id makes TensorFlow's kernels on a CPU fail.

    Compiled by XLA, the same model would answer for another id without an error, so the limits have to be known. Most
    models have one table for all features, so its limit is found first and then only tried with each of them.
    """
    features = range(row_shape[-1])
    smallest = _limit(model, row_shape, list(features))
    if smallest is None:
        return [None for _ in features]
    return [
        _limit(model, row_shape, [feature]) if _accepts(model, row_shape, [feature], smallest) else smallest
        for feature in features
    ]


def _limit(model: KerasModel, row_shape: tuple[int, ...], features: Sequence[int]) -> int | None:
    """Return the smallest id that the model refuses in *features*; None if it refuses none."""
    if _accepts(model, row_shape, features, LARGEST):
        return None
    low, high = 0, LARGEST  # accepted, refused
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _accepts(model, row_shape, features, middle) else (low, middle)
    return high


def _accepts(model: KerasModel, row_shape: tuple[int, ...], features: Sequence[int], number: int) -> bool:
    row = np.zeros((1, *row_shape), np.float32)
    row[..., features] = number
    with tf.device("/CPU:0"):
        try:
            model(tf.constant(row), training=False)
        except tf.errors.InvalidArgumentError:
            return False
    return True
