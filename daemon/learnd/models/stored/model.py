"""What opening a file gives, and how it is refused."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import keras
import numpy as np

from learnd.core.errors import ConfigError, Problem

LOAD = "model.load"
CODE = "model.code"
LAMBDA = "model.allow_lambda"
ARCHITECTURE = "model.architecture"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A trainable Keras 3 model with the weights of the file, and what the file knew of its training.

    Attributes
    ----------
    model : built; one float32 input (None, *row_shape), one output (None, n)
    format : for people
    optimizer : ``{"class_name": ..., "config": ...}`` as Keras 3 takes it; None where the file does not name one
    slots : ``<variable.path>/<slot>`` and ``iteration``, see `learnd.models.stored.slots`
    loss : what `compile` was given; None where unknown
    notes : what did not come along, and why
    """

    model: keras.Model
    format: str
    optimizer: Mapping[str, Any] | None = None
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss: Any = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Training:
    """What a file knew of its training; see `StoredModel`."""

    optimizer: Mapping[str, Any] | None = None
    slots: Mapping[str, np.ndarray] = field(default_factory=dict)
    loss: Any = None
    notes: tuple[str, ...] = ()


def stored(model: Any, kind: str, training: Training, *notes: str) -> StoredModel:
    """*model*, checked, with its training; *notes* come before the training's own."""
    return StoredModel(
        as_one_to_one(model), kind, training.optimizer, training.slots, training.loss, (*notes, *training.notes)
    )


def refuse(message: str, key: str = LOAD) -> NoReturn:
    """Always raises."""
    raise ConfigError(Problem(key, message))


@contextmanager
def refusing(what: str, key: str = LOAD) -> Iterator[None]:
    """Whatever a library raises inside leaves as a `ConfigError` that begins with *what*."""
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        raise ConfigError(Problem(key, f"{what}: {first_line(error)}")) from error


def first_line(error: BaseException) -> str:
    """The error's kind and the first line that it says, cut to a length that a log takes."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else "no reason given"
    return f"{type(error).__name__}: {said[:300]}"


def as_one_to_one(model: Any) -> Any:
    """*model* with one float32 input of rows and one output of shape (None, n), functional if it was not.

    Raises
    ------
    ConfigError
        for several inputs or outputs, an input that is not float32, or an output of another rank.
    """
    if not isinstance(model, keras.Model):
        refuse(f"holds a {type(model).__name__}, not a Keras model")
    # A subclassed model has no symbolic inputs, and a Sequential that never met data has none yet.
    model = model if getattr(model, "inputs", None) else _functional(model)
    if len(model.inputs) != 1:
        names = ", ".join(tensor.name for tensor in model.inputs)
        refuse(f"the model has {len(model.inputs)} inputs ({names}); it must have one")
    if len(model.outputs) != 1:
        refuse(f"the model has {len(model.outputs)} outputs; it must have one")
    (entry,), (result,) = model.inputs, model.outputs
    if entry.dtype != "float32":
        refuse(f"the model takes {entry.dtype}; it must take float32")
    if len(result.shape) < 2 or None in result.shape[1:]:
        refuse(f"the model's output has the shape {tuple(result.shape)}; it must be (None, n), numbers for each row")
    return model


def _functional(model: Any) -> Any:
    shape = _input_shape(model)
    with refusing(f"the model {model.name} cannot be called on rows of the shape {shape}"):
        inputs = keras.Input(shape[1:], dtype="float32")
        return keras.Model(inputs, model(inputs), name=model.name)


def _input_shape(model: Any) -> tuple[int | None, ...]:
    shapes = model.get_build_config() or {}
    shape = shapes.get("input_shape")
    if isinstance(shape, (list, tuple)) and shape and all(isinstance(n, int | None) for n in shape):
        return tuple(shape)
    return refuse(
        f"the model {model.name} does not say the shape of its one input; call it on data before it is saved, or"
        " write it as a functional model"
    )
