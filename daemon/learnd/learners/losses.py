"""One loss per row, from whatever says how errors are to be counted."""

from typing import Any

import keras
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object

_ENTROPIES = ("binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


def make_loss(wanted: Any, *, classify: bool) -> Any:
    """A function ``(targets, outputs) -> (n,)``, or None where the task's own loss is meant.

    Parameters
    ----------
    wanted : a Keras name, ``package.module:object``, a Keras loss, a function, or None

    Raises
    ------
    ConfigError
        if it is none of these, or gives no number per row.
    """
    if wanted is None:
        return None
    if isinstance(wanted, str) and ":" in wanted:
        wanted = load_object(wanted, "learning.loss")
    if isinstance(wanted, type) and issubclass(wanted, keras.losses.Loss):
        wanted = wanted()
    if classify and _name(wanted) in _ENTROPIES and not _options(wanted):
        return None  # the same from logits, exactly; and labels are numbers or one-hot as it pleases
    if classify:
        wanted = _of_probabilities(wanted)
    function = _function(wanted)
    _require_rows(function, wanted)
    function.learnd_name = _name(wanted)
    return function


def _name(wanted: Any) -> str:
    """The snake-case name of a Keras loss.

    >>> _name(keras.losses.SparseCategoricalCrossentropy())
    'sparse_categorical_crossentropy'
    """
    if isinstance(wanted, str):
        return wanted
    return str(getattr(wanted, "name", getattr(wanted, "__name__", "")))


def _options(wanted: Any) -> dict[str, Any]:
    """Of a Keras loss, what makes it another than its name says."""
    config = wanted.get_config() if isinstance(wanted, keras.losses.Loss) else {}
    neutral = {"label_smoothing": 0.0, "ignore_class": None}
    return {key: config[key] for key, none in neutral.items() if config.get(key, none) != none}


def _of_probabilities(wanted: Any) -> Any:
    """The same loss for one-hot targets and probabilities, which is what a classification hands over."""
    if isinstance(wanted, keras.losses.SparseCategoricalCrossentropy):
        raise ConfigError(
            Problem("learning.loss", f"{_name(wanted)} with {_options(wanted)} is not supported; name another")
        )
    if not isinstance(wanted, keras.losses.Loss) or "from_logits" not in wanted.get_config():
        return wanted
    return type(wanted).from_config({**wanted.get_config(), "from_logits": False})


def _function(wanted: Any) -> Any:
    try:
        loss = keras.losses.get(wanted)
    except ValueError as error:
        raise ConfigError(Problem("learning.loss", f"{wanted!r} is no loss: {error}")) from error
    # A Loss object would reduce to one number; its call() gives what it reduces.
    each = loss.call if isinstance(loss, keras.losses.Loss) else loss

    def rows(targets: Any, outputs: Any) -> Any:
        losses = tf.convert_to_tensor(each(targets, outputs))
        return tf.reduce_mean(tf.reshape(losses, (tf.shape(losses)[0], -1)), axis=1) if losses.shape.rank else losses

    return rows


def _require_rows(function: Any, wanted: Any) -> None:
    trial = tf.fill((3, 2), 0.5)
    try:
        shape = tuple(function(trial, trial).shape)
    except Exception as error:
        raise ConfigError(
            Problem("learning.loss", f"{_name(wanted)} fails on targets and outputs of shape (3, 2): {error}")
        ) from error
    if shape != (3,):
        raise ConfigError(
            Problem("learning.loss", f"{_name(wanted)} gives shape {shape} for 3 rows; it must give one loss per row")
        )
