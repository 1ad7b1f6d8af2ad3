"""Assembly of a core from its settings: built in, the user's code, or loaded; then cut, widened and checked."""

import inspect
import json
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.core.tensors import KerasModel
from learnd.models import MODELS
from learnd.models.compiled import with_compiled
from learnd.models.core import CoreSpec
from learnd.models.heads import widened, with_head
from learnd.models.output_meaning import LOGITS, OutputMeaning, output_meaning
from learnd.models.requirements import in_float32, require_float32, require_stateless
from learnd.models.settings import AnyModel, FactorySettings, LoadSettings
from learnd.models.stored.model import Loss, StoredModel, first_line
from learnd.models.stored.open import open_stored
from learnd.models.whole_numbers import WholeNumbers, whole_numbers


@dataclass(frozen=True, slots=True)
class Core:
    """A checked core.

    Attributes
    ----------
    model : maps rows of the requested shape to ``outputs`` numbers
    stored : the loaded model, or the compiled model of a factory, with the optimizer's state; None for any other
    outputs : numbers per row: as requested, or 1 for two classes
    meaning : whether the outputs of a classifier are logits or probabilities
    loss : the loss that the model was compiled with, if there is one
    whole : the inputs, if the model takes whole numbers only
    """

    model: KerasModel
    stored: StoredModel | None
    outputs: int
    meaning: OutputMeaning
    loss: Loss | None = None
    whole: WholeNumbers | None = None


def make_core(settings: AnyModel, spec: CoreSpec) -> Core:
    """Return the core that *settings* describe.

    Raises
    ------
    ConfigError
        if it cannot be made, loaded or cut, or does not fit the task. The message says how to correct that.
    """
    settings, exported_task = _own_export(settings)
    place = "model.factory" if isinstance(settings, FactorySettings) else "model.load"
    model, stored = _model(settings, spec)
    model = _with_one_output(model)
    if spec.unroll:
        _unroll(model)
    require_stateless(model, place)
    outputs = _count_outputs(model, spec, place)
    require_float32(model, place)
    whole = whole_numbers(model, spec.row_shape, place, scaled=spec.scaled) if settings.has_end else None
    loss = stored.loss if stored is not None else None
    meaning = LOGITS
    if settings.head is not None:
        model, outputs = with_head(model, settings.head, spec.row_shape, spec.outputs), spec.outputs
    elif exported_task in ("classification", "multilabel"):
        independent = exported_task == "multilabel"
        meaning = OutputMeaning(probabilities=True, independent=independent, evidence="it is an export of learnd")
    elif (spec.classify or spec.independent) and settings.has_end:
        meaning = output_meaning(model, loss, spec.row_shape, configured=spec.meaning, whole=whole)
    if meaning is not LOGITS and outputs > 1:
        _require_fitting(meaning, outputs, spec, place)
    if settings.head is None and spec.known is not None and outputs == spec.known < spec.outputs:
        model, outputs, meaning = widened(model, spec.outputs), spec.outputs, LOGITS
    if outputs != spec.outputs and not (spec.classify and outputs == 1 and spec.outputs == 2):
        hint = "add `head: {}` to replace its last layer" if settings.head is None else "change model.head"
        raise ConfigError(Problem(place, f"the model has {outputs} outputs, the task needs {spec.outputs}; {hint}"))
    return Core(model, stored, outputs, meaning, loss, whole)


def _model(settings: AnyModel, spec: CoreSpec) -> tuple[KerasModel, StoredModel | None]:
    """Return the whole model, and what is known of its training if it was loaded or compiled by the user's code."""

    def architecture() -> KerasModel:
        return _architecture(settings, _before_the_head(settings, spec))

    if isinstance(settings, LoadSettings):
        loaded = open_stored(settings, architecture=None)
        return loaded.model, loaded
    stored = open_stored(settings, architecture=architecture) if settings.load is not None else None
    model = stored.model if stored is not None else architecture()
    return model, with_compiled(stored, model)


def _require_fitting(meaning: OutputMeaning, outputs: int, spec: CoreSpec, place: str) -> None:
    """Refuse independent outputs for classes of which exactly one is true, and exclusive ones for independent labels.

    Raises
    ------
    ConfigError
        with *place* in the configuration.
    """
    if meaning.independent and spec.classify:
        message = (
            f"the model has {outputs} independent outputs ({meaning.evidence}), and a sample of a classification has"
            " exactly one class; use task: {kind: multilabel} with one target of 0 or 1 per output, or add `head: {}`"
        )
        raise ConfigError(Problem(place, message))
    if spec.independent and meaning.probabilities and not meaning.independent:
        message = (
            f"the probabilities of the model's {outputs} outputs exclude each other ({meaning.evidence}), and any"
            " number of labels may be true; use task: {kind: classification}, or add `head: {}`"
        )
        raise ConfigError(Problem(place, message))


def _with_one_output(model: KerasModel) -> KerasModel:
    """Return *model* without the name of its output, if it has exactly one.

    The .keras files that learnd exports have such a named output.
    """
    output = getattr(model, "output", None) if getattr(model, "built", False) else None
    if not (isinstance(output, dict) and len(output) == 1):
        return model
    unnamed: KerasModel = keras.Model(model.inputs, next(iter(output.values())), name=model.name)
    unnamed.loss = getattr(model, "loss", None)
    return unnamed


def _before_the_head(settings: AnyModel, spec: CoreSpec) -> CoreSpec:
    """Return the requirements on the model whose head is about to be replaced."""
    old = settings.head.old_units if settings.head is not None else None
    return spec if old is None else replace(spec, outputs=old)


def _own_export(settings: AnyModel) -> tuple[AnyModel, str | None]:
    """Return settings that load the SavedModel of an export of learnd's own, and the task of that export.

    Settings that load anything else are returned as they are, with None.
    """
    folder = settings.load
    if folder is None or not (folder / "learnd.json").is_file():
        return settings, None
    task = json.loads((folder / "learnd.json").read_text(encoding="utf-8"))["task"]
    return settings.model_copy(update={"load": folder / "saved_model"}), task


def _architecture(settings: AnyModel, spec: CoreSpec) -> KerasModel:
    if isinstance(settings, FactorySettings):
        return _from_factory(settings, spec)
    model: KerasModel = MODELS[settings.kind].load()(settings, spec)
    return model


def _from_factory(settings: FactorySettings, spec: CoreSpec) -> KerasModel:
    factory = load_object(settings.factory, "model.factory")
    if not callable(factory):
        message = f"{settings.factory} is not a function but a {type(factory).__name__}"
        raise ConfigError(Problem("model.factory", message))
    arguments = {"input_shape": spec.row_shape, "outputs": spec.outputs, **settings.arguments}
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        message = f"{settings.factory} cannot be called with {', '.join(arguments)} ({error})"
        raise ConfigError(Problem("model.factory", message)) from None
    try:
        result = factory(**arguments)
    except Exception as error:
        message = f"{settings.factory} failed: {first_line(error)}"
        raise ConfigError(Problem("model.factory", message)) from error
    if not isinstance(result, keras.Model):
        message = f"{settings.factory} returned a {type(result).__name__}; it must return a keras.Model"
        raise ConfigError(Problem("model.factory", message))
    model: KerasModel = result
    return in_float32(model) if getattr(model, "inputs", None) else model


def _count_outputs(model: KerasModel, spec: CoreSpec, place: str) -> int:
    """Return the number of outputs of *model* per row. Calls the model, which also builds it.

    Raises
    ------
    ConfigError
        with *place* in the configuration, if the model does not take such rows or does not return one float tensor.
    """
    expected = getattr(model, "input_shape", None) if getattr(model, "built", False) else None
    if isinstance(expected, tuple) and not _fits(expected[1:], spec.row_shape):
        message = f"the model takes rows of shape {expected[1:]}; features and task.window give {spec.row_shape}"
        raise ConfigError(Problem(place, message))
    try:
        outputs = model(tf.zeros((1, *spec.row_shape)), training=False)
    except Exception as error:
        message = (
            f"the model fails on an input of shape (1, {', '.join(map(str, spec.row_shape))}): {first_line(error)}"
        )
        raise ConfigError(Problem(place, message)) from error
    if not isinstance(outputs, tf.Tensor):
        raise ConfigError(Problem(place, f"the model returns a {type(outputs).__name__}; it must return one tensor"))
    if not outputs.dtype.is_floating or outputs.shape.rank < 2:
        message = (
            f"the model returns {outputs.dtype.name} of shape {tuple(outputs.shape)}; it must be float32, (n, outputs)"
        )
        raise ConfigError(Problem(place, message))
    if not model.trainable_variables and not model.built:
        raise ConfigError(Problem(place, "the model has no weights; build it, or give it layers"))
    return int(tf.size(outputs))


def _unroll(model: KerasModel) -> None:
    """Unroll the loops over time of a model that learnd did not build."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.RNN):
            layer.unroll = True


def _fits(expected: tuple[int | None, ...], row_shape: tuple[int, ...]) -> bool:
    return len(expected) == len(row_shape) and all(e in (None, n) for e, n in zip(expected, row_shape, strict=True))
