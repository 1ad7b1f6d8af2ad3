"""The result of opening a file, and the errors that refuse one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import Array, KerasModel
from learnd.models.copies import refresh_copies
from learnd.models.requirements import in_float32

LOAD = "model.load"
CODE = "model.code"
LAMBDA = "model.allow_lambda"
ARCHITECTURE = "model.architecture"

Loss: TypeAlias = str | Callable[..., Any]
"""A loss as `keras.Model.compile` takes it: its name in Keras, a function or a `keras.losses.Loss`."""


@dataclass(frozen=True, slots=True)
class Training:
    """The part of a file that describes the model's training.

    Attributes
    ----------
    optimizer : ``{"class_name": ..., "config": ...}`` as Keras 3 takes it; None if the file does not name one
    slots : arrays by ``<variable.path>/<slot>`` and ``iteration``, see `learnd.models.stored.slots`
    loss : the loss that the model was compiled with; None if it is unknown
    notes : what could not be restored, and why
    """

    optimizer: Mapping[str, Any] | None = None
    slots: Mapping[str, Array] = field(default_factory=dict)
    loss: Loss | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A trainable Keras 3 model with the weights of the file, and what the file holds of its training.

    Attributes
    ----------
    model : built; one float32 input (None, *row_shape), one output (None, n)
    format : name of the file's format, for people
    optimizer, slots, loss, notes : as in `Training`
    """

    model: KerasModel
    format: str
    optimizer: Mapping[str, Any] | None = None
    slots: Mapping[str, Array] = field(default_factory=dict)
    loss: Loss | None = None
    notes: tuple[str, ...] = ()


def stored_model(model: KerasModel, file_format: str, training: Training, *notes: str) -> StoredModel:
    """Return *model*, checked by `as_one_to_one`, with its *training*. *notes* come before those of the training."""
    refresh_copies(model)
    return StoredModel(
        as_one_to_one(model), file_format, training.optimizer, training.slots, training.loss, (*notes, *training.notes)
    )


def refuse(message: str, key: str = LOAD) -> NoReturn:
    """Raise a `ConfigError` with *message* about the option *key*."""
    raise ConfigError(Problem(key, message))


@contextmanager
def refusing(what: str, key: str = LOAD) -> Iterator[None]:
    """Turn any error inside the ``with`` block into a `ConfigError` about *key* whose message starts with *what*.

    A `ConfigError` and a `MemoryError` pass unchanged.
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(Problem(key, f"{what}: {first_line(error)}")) from error


def first_line(error: BaseException) -> str:
    """Return the error's class and the first line of its message, cut to 300 characters to fit in a log.

    Empty lines do not count. The other lines are left out, because Keras' messages have many.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else "no reason given"
    return f"{type(error).__name__}: {message[:300]}"


def as_one_to_one(model: KerasModel) -> KerasModel:
    """Return *model* with one input of rows and one output of shape (None, n), as a functional model in float32.

    Raises
    ------
    ConfigError
        for several inputs or outputs, an input that holds no numbers, or an output of another rank.
    """
    if not isinstance(model, keras.Model):
        refuse(f"holds a {type(model).__name__}, not a Keras model")
    # A subclassed model has no symbolic inputs. A Sequential model that never saw data has none yet.
    built: KerasModel = in_float32(model if getattr(model, "inputs", None) else _functional(model))
    if len(built.inputs) != 1:
        names = ", ".join(tensor.name for tensor in built.inputs)
        refuse(f"the model has {len(built.inputs)} inputs ({names}); it must have one")
    if len(built.outputs) != 1:
        refuse(f"the model has {len(built.outputs)} outputs; it must have one")
    (entry,), (result,) = built.inputs, built.outputs
    if entry.dtype != "float32" and not keras.backend.is_int_dtype(entry.dtype):
        refuse(f"the model takes {entry.dtype}; it must take float32 or whole numbers")
    shape = tuple(result.shape)
    if len(shape) < 2 or None in shape[1:]:
        refuse(f"the model's output has the shape {shape}; it must be (None, n), n numbers per row")
    return built


def _functional(model: KerasModel) -> KerasModel:
    shape = _input_shape(model)
    with refusing(f"the model {model.name} cannot be called on rows of the shape {shape}"):
        inputs = keras.Input(shape[1:], dtype="float32")
        functional: KerasModel = keras.Model(inputs, model(inputs), name=model.name)
        return functional


def _input_shape(model: KerasModel) -> tuple[int | None, ...]:
    shapes = model.get_build_config() or {}
    shape = shapes.get("input_shape")
    if isinstance(shape, (list, tuple)) and shape and all(isinstance(n, int | None) for n in shape):
        return tuple(shape)
    return refuse(
        f"the file does not give the input shape of the model {model.name}; call the model on data before saving it, or"
        " write it as a functional model"
    )
