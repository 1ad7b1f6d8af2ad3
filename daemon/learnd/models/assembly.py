"""A core from its settings: built in, the user's code, or loaded; then cut, widened and checked."""

import inspect
import json
from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.models import MODELS
from learnd.models.core import CoreSpec
from learnd.models.heads import widened, with_head
from learnd.models.settings import FactorySettings, LoadSettings
from learnd.models.stored.activation import output_activation
from learnd.models.stored.model import StoredModel
from learnd.models.stored.open import open_stored

_PROBABILITIES = ("softmax", "sigmoid")


@dataclass(frozen=True, slots=True)
class Core:
    """A checked core.

    Attributes
    ----------
    model : from rows of the asked shape to ``outputs`` numbers
    stored : what was loaded, with the optimizer's state; None for a model that starts afresh
    outputs : numbers that it gives: as asked for, or 1 for two classes
    probabilities : its outputs are probabilities already
    loss : the one that it was compiled with, if any
    """

    model: Any
    stored: StoredModel | None
    outputs: int
    probabilities: bool
    loss: Any = None


def make_core(settings: Any, spec: CoreSpec) -> Core:
    """The core that *settings* (one of `learnd.models.settings.AnyModel`) describe.

    Raises
    ------
    ConfigError
        if it cannot be made, loaded or cut, or does not fit the task, with the way out.
    """
    stored = None
    settings, of_own = _own_export(settings)
    if isinstance(settings, LoadSettings):
        stored = open_stored(settings, architecture=None)
    elif settings.load is not None:
        stored = open_stored(settings, architecture=lambda: _architecture(settings, _before_the_head(settings, spec)))
    model = stored.model if stored is not None else _architecture(settings, _before_the_head(settings, spec))
    model = _with_one_output(model)
    if spec.unroll:
        _unroll(model)
    place = "model.factory" if isinstance(settings, FactorySettings) else "model.load"
    given = _try(model, spec, place)
    loss = stored.loss if stored is not None else getattr(model, "loss", None)
    probabilities = False
    if settings.head is not None:
        model = with_head(model, settings.head, spec.row_shape, spec.outputs)
        given = spec.outputs
    elif spec.known is not None and given == spec.known < spec.outputs:
        model, given = widened(model, spec.outputs), spec.outputs
    else:
        probabilities = of_own == "classification" or output_activation(model) in _PROBABILITIES
    if given != spec.outputs and not (spec.classify and given == 1 and spec.outputs == 2):
        hint = "add `head: {}` to replace its last layer" if settings.head is None else "change model.head"
        raise ConfigError(Problem(place, f"gives {given} numbers, the task asks for {spec.outputs}; {hint}"))
    return Core(model, stored, given, probabilities, loss)


def _with_one_output(model: Any) -> Any:
    """*model*, without the name of its only output, where it has one: as in the .keras files that learnd exports."""
    output = getattr(model, "output", None) if getattr(model, "built", False) else None
    if not (isinstance(output, dict) and len(output) == 1):
        return model
    again = keras.Model(model.inputs, next(iter(output.values())), name=model.name)
    again.loss = getattr(model, "loss", None)
    return again


def _before_the_head(settings: Any, spec: CoreSpec) -> CoreSpec:
    old = settings.head.old_units if settings.head is not None else None
    return spec if old is None else replace(spec, outputs=old)


def _own_export(settings: Any) -> tuple[Any, str | None]:
    """Where *settings* load an export of learnd's own: its SavedModel instead, and the task that it was made for."""
    manifest = settings.load / "learnd.json" if settings.load is not None else None
    if manifest is None or not manifest.is_file():
        return settings, None
    task = json.loads(manifest.read_text(encoding="utf-8"))["task"]
    return settings.model_copy(update={"load": settings.load / "saved_model"}), task


def _architecture(settings: Any, spec: CoreSpec) -> Any:
    if not isinstance(settings, FactorySettings):
        return MODELS[settings.kind].load()(settings, spec)
    return _from_factory(settings, spec)


def _from_factory(settings: FactorySettings, spec: CoreSpec) -> Any:
    factory = load_object(settings.factory, "model.factory")
    if not callable(factory):
        raise ConfigError(Problem("model.factory", f"{settings.factory} is no function but a {type(factory).__name__}"))
    arguments = {"input_shape": spec.row_shape, "outputs": spec.outputs, **settings.arguments}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        message = f"{settings.factory} cannot be called with {', '.join(arguments)} ({error})"
        raise ConfigError(Problem("model.factory", message)) from None
    try:
        model = factory(**arguments)
    except Exception as error:
        message = f"{settings.factory} failed: {type(error).__name__}: {_short(error)}"
        raise ConfigError(Problem("model.factory", message)) from error
    if not isinstance(model, keras.Model):
        message = f"{settings.factory} returned a {type(model).__name__}; it must return a keras.Model"
        raise ConfigError(Problem("model.factory", message))
    return model


def _try(model: Any, spec: CoreSpec, place: str) -> int:
    """How many numbers *model* gives for one row, which builds it too."""
    expected = getattr(model, "input_shape", None) if getattr(model, "built", False) else None
    if isinstance(expected, tuple) and not _fits(expected[1:], spec.row_shape):
        message = f"takes rows of shape {expected[1:]}; features and task.window give {spec.row_shape}"
        raise ConfigError(Problem(place, message))
    try:
        answer = model(tf.zeros((1, *spec.row_shape)), training=False)
    except Exception as error:
        message = f"the model fails on an input of shape (1, {', '.join(map(str, spec.row_shape))}): {_short(error)}"
        raise ConfigError(Problem(place, message)) from error
    if not isinstance(answer, tf.Tensor):
        raise ConfigError(Problem(place, f"the model returns a {type(answer).__name__}; it must return one tensor"))
    if not answer.dtype.is_floating or answer.shape.rank < 2:
        message = (
            f"the model returns {answer.dtype.name} of shape {tuple(answer.shape)}; it must be float32, (n, outputs)"
        )
        raise ConfigError(Problem(place, message))
    if not model.trainable_variables and not model.built:
        raise ConfigError(Problem(place, "the model has no weights; build it, or give it layers"))
    return int(tf.size(answer))


def _unroll(model: Any) -> None:
    """Write out the loops over time of a model that somebody else built."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True


def _fits(expected: tuple[Any, ...], given: tuple[int, ...]) -> bool:
    return len(expected) == len(given) and all(e in (None, g) for e, g in zip(expected, given, strict=True))


def _short(error: Exception) -> str:
    """The line of an error that says something: Keras wraps its own in several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
