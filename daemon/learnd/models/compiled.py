"""The training of a model that the user's code has compiled: its optimizer with its state, and its loss."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras

from learnd.core.tensors import KerasModel, Optimizer
from learnd.models.stored.model import StoredModel, Training
from learnd.models.stored.slots import slots_of
from learnd.models.stored.training import loss_of

_FORMAT = "model of the factory"


def with_compiled(stored: StoredModel | None, model: KerasModel) -> StoredModel | None:
    """Return *stored* with the training that *model* was compiled with, as far as the file holds none.

    Without a file, the result describes *model* itself; None if it was never compiled.
    """
    training = compiled_training(model)
    if training is None:
        return stored
    if stored is None:
        return StoredModel(model, _FORMAT, training.optimizer, training.slots, training.loss, training.notes)
    if stored.optimizer is None and training.optimizer is not None:
        stored = replace(stored, optimizer=training.optimizer)
    return replace(stored, loss=stored.loss if stored.loss is not None else training.loss)


def compiled_training(model: KerasModel) -> Training | None:
    """Return what `model.compile` has set; None if it was never called."""
    if not getattr(model, "compiled", False):
        return None
    loss, notes = loss_of(getattr(model, "loss", None))
    optimizer = _unscaled(getattr(model, "optimizer", None))
    weights = getattr(model, "_loss_weights", None) or _compile_options(model).get("loss_weights")
    if weights is not None:
        notes = (*notes, f"the loss weights {weights} are not used: a model with one output has nothing to weigh")
    if optimizer is None:
        return Training(loss=loss, notes=notes)
    if getattr(optimizer, "weight_decay", None) and getattr(optimizer, "_exclude_from_weight_decay", None):
        notes = (*notes, "weights that the optimizer excludes from weight decay decay here like all others")
    slots = slots_of(optimizer, model.trainable_variables) if optimizer.built else {}
    return Training(keras.optimizers.serialize(optimizer), slots, loss, notes)


def _unscaled(optimizer: Optimizer | None) -> Optimizer | None:
    """Return the optimizer inside one that scales the loss for float16. Losses are float32 here."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _compile_options(model: KerasModel) -> Mapping[str, Any]:
    return getattr(getattr(model, "_compile_config", None), "config", {})
