"""The meaning of a classifier's outputs: logits or probabilities, of exclusive or of independent classes.

A model that answers probabilities and is taken for one that answers logits gives wrong numbers without any error. So
the meaning follows from evidence, in this order: the configuration, the last operation, the loss that the model was
compiled with, and the model's answers. Without evidence the model is refused.
"""

import re
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import KerasModel
from learnd.core.types import Float64Array
from learnd.models.stored.activation import output_activation
from learnd.models.stored.model import Loss
from learnd.models.whole_numbers import WholeNumbers

_EXCLUSIVE_LOSSES = frozenset({"categorical_crossentropy", "sparse_categorical_crossentropy"})
_INDEPENDENT_LOSSES = frozenset({"binary_crossentropy", "binary_focal_crossentropy"})
_LOSSES_WITH_LOGITS = _EXCLUSIVE_LOSSES | _INDEPENDENT_LOSSES | {"categorical_focal_crossentropy"}
_ROWS, _SPREADS = 64, (0.1, 1.0, 10.0)
"""The inputs of the last evidence. Inputs ten times the usual size drive logits out of the range of probabilities."""
_SUM_TOLERANCE = 1e-3
"""Largest distance of a row of probabilities from a sum of one. float16 is exact to half of it."""


@dataclass(frozen=True, slots=True)
class OutputMeaning:
    """The meaning of the outputs of a model.

    Attributes
    ----------
    probabilities : they are probabilities; otherwise logits
    independent : each output is the probability, or the logit, of a label of its own; several may be true at once
    evidence : how that is known, for the log
    """

    probabilities: bool
    independent: bool
    evidence: str


LOGITS = OutputMeaning(probabilities=False, independent=False, evidence="a layer of learnd answers logits")
"""The meaning of built-in models and of new heads."""


def output_meaning(
    model: KerasModel,
    loss: Loss | None,
    row_shape: tuple[int, ...],
    *,
    configured: str = "auto",
    whole: WholeNumbers | None = None,
) -> OutputMeaning:
    """Return the meaning of the outputs of *model*, shape (n, outputs).

    Parameters
    ----------
    loss : the loss that the model was compiled with, if it is known
    row_shape : shape of one input row
    configured : ``logits`` or ``probabilities`` if the user says so, otherwise ``auto``
    whole : the inputs, if they are whole numbers

    Raises
    ------
    ConfigError
        if there is no evidence.
    """
    activation = output_activation(model, row_shape)
    known = _by_loss(loss)
    independent = activation == "sigmoid" or (known is not None and known.independent)
    if configured != "auto":
        return OutputMeaning(configured == "probabilities", independent, "task.outputs")
    if activation in ("softmax", "sigmoid"):
        return OutputMeaning(True, independent, f"the last operation is {activation}")
    if activation == "log_softmax":  # softmax leaves log probabilities as they are
        return OutputMeaning(False, False, "the last operation is log_softmax")
    if activation == "linear" and (known is None or not known.probabilities):
        return OutputMeaning(False, independent, "the last operation is linear")
    if known is not None and activation is None:
        return known
    return _by_answers(model, row_shape, whole, independent=independent)


def _by_loss(loss: Loss | None) -> OutputMeaning | None:
    """Return the meaning that a cross-entropy implies; None for any other loss.

    >>> _by_loss("binary_crossentropy").probabilities, _by_loss("mse")
    (True, None)
    >>> _by_loss(keras.losses.CategoricalCrossentropy(from_logits=True)).probabilities
    False
    """
    if loss is None:
        return None
    # A loss object may have any name; its class tells which loss it is.
    named = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    name = _snake_case(named if isinstance(named, str) else str(getattr(named, "__name__", "")))
    if name not in _LOSSES_WITH_LOGITS:
        return None
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    from_logits = bool(config.get("from_logits", False))
    evidence = f"it was compiled with {name}(from_logits={from_logits})"
    return OutputMeaning(not from_logits, name in _INDEPENDENT_LOSSES, evidence)


def _snake_case(name: str) -> str:
    """Return the name of a loss as Keras writes it.

    >>> _snake_case("BinaryCrossentropy"), _snake_case("binary_crossentropy")
    ('binary_crossentropy', 'binary_crossentropy')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _by_answers(
    model: KerasModel, row_shape: tuple[int, ...], whole: WholeNumbers | None, *, independent: bool
) -> OutputMeaning:
    """Return the meaning that the answers to made-up rows imply.

    Raises
    ------
    ConfigError
        if the answers could be either.
    """
    answers = np.concatenate([_answers(model, row_shape, whole, spread) for spread in _SPREADS])
    evidence = f"its answers to {len(answers)} rows"
    low, high = float(answers.min()), float(answers.max())
    if low < 0.0 or high > 1.0 or high == 0.0:
        return OutputMeaning(False, independent, f"{evidence} reach from {low:.3g} to {high:.3g}")
    if answers.shape[1] > 1 and np.abs(answers.sum(axis=1) - 1.0).max() < _SUM_TOLERANCE:
        return OutputMeaning(True, False, f"{evidence} sum to one")
    count = answers.shape[1]
    outputs = "its output lies" if count == 1 else f"its {count} outputs do not sum to one, but lie"
    message = (
        f"it cannot be told whether the model answers logits or probabilities: {outputs} between {low:.3g} and"
        f" {high:.3g}, and neither its last operation nor a compiled loss says; set logits or probabilities"
    )
    raise ConfigError(Problem("task.outputs", message))


def _answers(model: KerasModel, row_shape: tuple[int, ...], whole: WholeNumbers | None, spread: float) -> Float64Array:
    draw = np.random.default_rng(0)
    shape = (_ROWS, *row_shape)
    rows = draw.normal(size=shape) * spread if whole is None else draw.integers(0, whole.highest(), size=shape)
    answers = np.asarray(model(tf.constant(rows, tf.float32), training=False), np.float64)
    return answers.reshape(_ROWS, -1)
