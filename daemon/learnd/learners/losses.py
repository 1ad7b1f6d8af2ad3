"""Losses: one loss per row, from a name, the user's code, or the loss of a loaded model."""

from collections.abc import Callable

import keras
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.core.tensors import Tensor

_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class RowLoss:
    """A traced loss with a name: ``(targets, outputs) -> losses``, shape (n,).

    Parameters
    ----------
    function : returns the losses of all numbers or rows, without reducing them to a scalar
    name : for logs and manifests
    """

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor], name: str) -> None:
        self._function = function
        self.learnd_name = name

    def __call__(self, targets: Tensor, outputs: Tensor) -> Tensor:
        losses: Tensor = tf.convert_to_tensor(self._function(targets, outputs))
        if losses.shape.rank:
            losses = tf.reduce_mean(tf.reshape(losses, (tf.shape(losses)[0], -1)), axis=1)
        return losses


def make_loss(source: object, *, classify: bool) -> RowLoss | None:
    """Return the loss that *source* stands for; None for the task's own loss.

    Parameters
    ----------
    source : a Keras name, ``package.module:object``, a Keras loss or its class, a function, or None

    Raises
    ------
    ConfigError
        if *source* is none of these, or does not give one number per row.
    """
    if source is None:
        return None
    if isinstance(source, str) and ":" in source:
        source = load_object(source, "learning.loss")
    if isinstance(source, type) and issubclass(source, keras.losses.Loss):
        source = source()
    if classify and _name(source) in _ENTROPIES and not _options(source):
        return None  # the task computes the same from logits, exactly, and accepts numbers and one-hot labels
    if classify:
        source = _of_probabilities(source)
    loss = RowLoss(_function(source), _name(source))
    _require_rows(loss)
    return loss


def _name(source: object) -> str:
    """Return the snake-case name of a Keras loss.

    >>> _name(keras.losses.SparseCategoricalCrossentropy())
    'sparse_categorical_crossentropy'
    """
    if isinstance(source, str):
        return source
    return str(getattr(source, "name", getattr(source, "__name__", "")))


def _options(source: object) -> dict[str, object]:
    """Return the options with which a Keras loss differs from the default of its name."""
    config = source.get_config() if isinstance(source, keras.losses.Loss) else {}
    neutral = {"label_smoothing": 0.0, "ignore_class": None}
    return {key: config[key] for key, none in neutral.items() if config.get(key, none) != none}


def _of_probabilities(source: object) -> object:
    """Return the same loss for one-hot targets and probabilities, which a classification passes to its loss."""
    if isinstance(source, keras.losses.SparseCategoricalCrossentropy):
        message = f"{_name(source)} with {_options(source)} is not supported; name another loss"
        raise ConfigError(Problem("learning.loss", message))
    if not isinstance(source, keras.losses.Loss) or "from_logits" not in source.get_config():
        return source
    loss: object = type(source).from_config({**source.get_config(), "from_logits": False})
    return loss


def _function(source: object) -> Callable[[Tensor, Tensor], Tensor]:
    try:
        loss = keras.losses.get(source)
    except ValueError as error:
        raise ConfigError(Problem("learning.loss", f"{source!r} is not a loss: {error}")) from error
    # A Loss object reduces its losses to one number; its call() returns them unreduced.
    function: Callable[[Tensor, Tensor], Tensor] = loss.call if isinstance(loss, keras.losses.Loss) else loss
    return function


def _require_rows(loss: RowLoss) -> None:
    """Raise `ConfigError` unless *loss* gives one number per row."""
    name = loss.learnd_name
    trial = tf.fill((3, 2), 0.5)
    try:
        shape = tuple(loss(trial, trial).shape)
    except Exception as error:
        message = f"{name} fails on targets and outputs of shape (3, 2): {error}"
        raise ConfigError(Problem("learning.loss", message)) from error
    if shape != (3,):
        message = f"{name} gives shape {shape} for 3 rows; it must give one loss per row"
        raise ConfigError(Problem("learning.loss", message))
