"""The training part of a Keras file: the optimizer's settings, its slots, and the loss."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np

from learnd.core.tensors import Array, Optimizer, Variable
from learnd.models.stored.model import Loss, Training, first_line
from learnd.models.stored.slots import ITERATION, slots_of, unique_paths

Arrays: TypeAlias = Mapping[str, Array]
Config: TypeAlias = Mapping[str, Any]
"""The configuration of a Keras object."""

_M_V = {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"}
_MOMENTUM = {"m": "momentum", "momentum": "momentum"}
_KERAS_2_SLOTS: dict[str, dict[str, str]] = {
    "Adam": _M_V,
    "AdamW": _M_V,
    "SGD": _MOMENTUM,
    "Lion": _MOMENTUM,
    "RMSprop": {
        "velocity": "velocity",
        "rms": "velocity",
        "momentum": "momentum",
        "average_gradient": "average_gradient",
        "mg": "average_gradient",
    },
    "Adagrad": {"accumulator": "accumulator"},
}
"""Keras 3's names by Keras 2's names of each optimizer's slots, including those of its optimizers before 2.11."""
_KERAS_2_NOT_SLOTS = ("learning_rate", "decay", "beta_1", "beta_2", "rho", "momentum_cache")
# Settings of Keras 2 that Keras 3 does not accept and that changed no number.
_REMOVED_SETTINGS = ("is_legacy_optimizer", "jit_compile")
AFRESH = "the optimizer starts afresh"
"""Start of the notes about state that could not be restored."""
_NO_OPTIMIZER = f"{AFRESH}: the file does not name one"


def keras3_training(compiled: Config | None, values: Arrays, variables: Sequence[Variable]) -> Training:
    """Return the training in a file of Keras 3.

    *compiled* is what `get_compile_config` returned. *values* are the optimizer's arrays by their position, from "0".
    """
    if not compiled or not compiled.get("optimizer"):
        return Training(loss=loss_of((compiled or {}).get("loss"))[0], notes=(_NO_OPTIMIZER,))
    loss, notes = loss_of(compiled.get("loss"))
    settings = compiled["optimizer"]
    settings = {"class_name": settings, "config": {}} if isinstance(settings, str) else settings
    try:
        optimizer = keras.optimizers.deserialize(dict(settings))
        optimizer.build(list(variables))
    except Exception as error:
        note = f"{AFRESH}: its settings are not those of a Keras optimizer: {first_line(error)}"
        return Training(None, {}, loss, (*notes, note))
    optimizer = _with_scaled_loss(optimizer, len(values), variables)
    reason = _assign_in_order(optimizer, values)
    # Losses are float32 here and need no scale; what is inside is the optimizer.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    config = keras.optimizers.serialize(optimizer)
    if reason:
        return Training(config, {}, loss, (*notes, f"{AFRESH}: {reason}"))
    return Training(config, slots_of(optimizer, variables), loss, notes)


def keras2_training(compiled: Config | None) -> Training:
    """Return the optimizer's settings and the loss from either form that Keras 2 wrote, without slots."""
    settings = (compiled or {}).get("optimizer") or (compiled or {}).get("optimizer_config")
    if not compiled or not isinstance(settings, Mapping):
        return Training(loss=loss_of((compiled or {}).get("loss"))[0], notes=(_NO_OPTIMIZER,))
    loss, notes = loss_of(compiled.get("loss"))
    try:
        config = keras.optimizers.serialize(keras.optimizers.deserialize(_keras3_settings(settings)))
    except Exception as error:
        note = f"{AFRESH}: Keras 3 does not accept its settings: {first_line(error)}"
        return Training(None, {}, loss, (*notes, note))
    return Training(config, {}, loss, notes)


def with_slots(training: Training, slots: Arrays, reason: str = "") -> Training:
    """Return *training* with *slots*. If there are none, add a note that gives the *reason*."""
    if training.optimizer is None or slots:
        return Training(training.optimizer, slots, training.loss, training.notes)
    return Training(training.optimizer, {}, training.loss, (*training.notes, f"{AFRESH}: {reason}"))


def keras2_slots_in_order(optimizer: Config, values: Arrays, variables: Sequence[Variable]) -> tuple[Arrays, str]:
    """Return the slots of an archive of Keras 2, which have only positions, or no slots and the reason.

    Keras 2 creates an optimizer's variables in a fixed order, group by group. Their shapes are checked against that
    order, and so is the sign of every mean of squares.
    """
    groups = _keras2_groups(optimizer)
    if groups is None:
        return {}, f"the order of {optimizer['class_name']}'s slots in a Keras 2 archive is unknown"
    paths = unique_paths(variables)
    order = [(path, v, slot) for group in groups for path, v in zip(paths, variables, strict=True) for slot in group]
    if len(values) != len(order) + 1:
        return {}, f"the file holds {len(values)} optimizer variables, and the model needs {len(order) + 1}"
    slots = {ITERATION: np.asarray(values["0"])}
    for position, (path, variable, slot) in enumerate(order, start=1):
        value = np.asarray(values[str(position)])
        if tuple(value.shape) != tuple(variable.shape):
            return {}, f"the file's optimizer variable {position} has the shape {value.shape}, {path} {variable.shape}"
        if slot.startswith("velocity") and value.min(initial=0) < 0:
            return {}, f"the file's optimizer variable {position} is negative, but a {slot} never is"
        slots[f"{path}/{slot}"] = value
    return ({ITERATION: slots[ITERATION]} if _has_unused_momentum(optimizer) else slots), ""


def keras2_slots_by_name(optimizer: Config, values: Arrays, variables: Mapping[str, str]) -> tuple[Arrays, str]:
    """Return the slots of an HDF5 file of Keras 2, which have names, or no slots and the reason.

    *variables* are Keras 3's paths by Keras 2's names. A slot is called ``Adam/m/dense/kernel:0``, before Keras 2.11
    ``Adam/dense/kernel/m:0``.
    """
    names = _KERAS_2_SLOTS.get(optimizer["class_name"])
    if names is None:
        return {}, f"the slots of Keras 2's {optimizer['class_name']} are not those of Keras 3"
    slots: dict[str, Array] = {}
    for full_name, value in values.items():
        name = full_name.partition(":")[0]
        if name.rpartition("/")[2] in ("iteration", "iter"):
            slots[ITERATION] = np.asarray(value)
        elif name.rpartition("/")[2] not in _KERAS_2_NOT_SLOTS:
            key = _keras3_key(name, names, variables)
            if key is None:
                return {}, f"the file's optimizer variable {full_name} belongs to no known weight"
            slots[key] = np.asarray(value)
    return ({k: v for k, v in slots.items() if k == ITERATION} if _has_unused_momentum(optimizer) else slots), ""


def _has_unused_momentum(optimizer: Config) -> bool:
    """Return whether the optimizer is SGD without momentum: Keras 2 gives it slots that stay zero, Keras 3 none."""
    return optimizer["class_name"] == "SGD" and not optimizer["config"].get("momentum")


def _keras3_key(name: str, slots: Mapping[str, str], variables: Mapping[str, str]) -> str | None:
    for variable in sorted(variables, key=len, reverse=True):
        before, separator, after = f"/{name}/".partition(f"/{variable}/")
        slot = after.strip("/") or before.rpartition("/")[2]
        if separator and slot in slots:
            return f"{variables[variable]}/{slots[slot]}"
    return None


def _keras2_groups(optimizer: Config) -> list[list[str]] | None:
    """Return the groups of slots that Keras 2 creates together for each variable, in order; None if unknown."""
    config = optimizer["config"]
    if config.get("use_ema"):
        return None
    kind = optimizer["class_name"]
    if kind in ("Adam", "AdamW"):
        return [["momentum", "velocity"], *([["velocity_hat"]] if config.get("amsgrad") else [])]
    if kind in ("SGD", "Lion"):
        return [["momentum"]]
    if kind == "RMSprop":
        moments = [["momentum"]] if config.get("momentum") else []
        return [["velocity"], *moments, *([["average_gradient"]] if config.get("centered") else [])]
    return [["accumulator"]] if kind == "Adagrad" else None


def _keras3_settings(settings: Config) -> dict[str, Any]:
    """Return Keras 2's settings of an optimizer as Keras 3 accepts them."""
    config = {key: value for key, value in settings["config"].items() if key not in _REMOVED_SETTINGS}
    rate, decay = config.get("learning_rate"), config.pop("decay", None)
    if isinstance(rate, Mapping):
        config["learning_rate"] = _schedule(rate["class_name"], rate["config"])
    elif decay:
        # What `decay` meant in Keras 2 before 2.11: rate / (1 + decay * iteration).
        options = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay}
        config["learning_rate"] = _schedule("InverseTimeDecay", options)
    return {"class_name": str(settings["class_name"]).rpartition(">")[2], "config": config}


def _schedule(kind: str, options: Config) -> dict[str, Any]:
    """Return a schedule as Keras 3 accepts it. Keras 2 writes its name as None, which Keras 3 does not accept."""
    config = {key: value for key, value in options.items() if value is not None}
    return {"module": "keras.optimizers.schedules", "class_name": kind, "config": config, "registered_name": None}


def loss_of(loss: Config | Sequence[Any] | Loss | None) -> tuple[Loss | None, tuple[str, ...]]:
    """Return the loss that the model was compiled with, and notes about what of it is lost.

    *loss* is what `keras.Model.compile` takes: a name, a function, a loss, or its configuration; or a dict or list of
    one of them for the only output. A loss that needs missing code is lost.
    """
    if isinstance(loss, Mapping) and "class_name" not in loss:
        return _only_loss(list(loss.values()))
    if isinstance(loss, Sequence) and not isinstance(loss, str):
        return _only_loss(loss)
    try:
        loss = keras.losses.get(dict(loss)) if isinstance(loss, Mapping) else loss
    except Exception as error:
        return None, (f"the loss was not restored; name its module in model.code: {first_line(error)}",)
    if getattr(loss, "reduction", None) == "sum":
        return loss, ("the loss adds up over a batch in Keras; here it is the mean over the batch",)
    return loss, ()


def _only_loss(losses: Sequence[Any]) -> tuple[Loss | None, tuple[str, ...]]:
    """Return the loss of the only output. Keras writes None for outputs without one."""
    named = [loss for loss in losses if loss is not None]
    if len(named) > 1:
        return None, (f"the model was compiled with {len(named)} losses, and has one output: none of them is used",)
    return loss_of(named[0]) if named else (None, ())


def _with_scaled_loss(optimizer: Optimizer, count: int, variables: Sequence[Variable]) -> Optimizer:
    """Return *optimizer* inside one that scales the loss, if only that one has *count* variables.

    Keras puts it around the optimizer of a model in mixed_float16 by itself, and does not write so.
    """
    if count <= len(optimizer.variables) or hasattr(optimizer, "inner_optimizer"):
        return optimizer
    outer: Optimizer = keras.optimizers.LossScaleOptimizer(type(optimizer).from_config(optimizer.get_config()))
    outer.build(list(variables))
    return outer if len(outer.variables) == count else optimizer


def _assign_in_order(optimizer: Optimizer, values: Arrays) -> str:
    """Assign *values* to the optimizer's variables in the order in which Keras 3 saved them.

    Returns the reason if that is not possible, else an empty text.
    """
    if not values:
        return "the file holds no optimizer state"
    if len(values) != len(optimizer.variables):
        return f"the file holds {len(values)} optimizer variables, and the model needs {len(optimizer.variables)}"
    pairs = [(variable, np.asarray(values[str(i)])) for i, variable in enumerate(optimizer.variables)]
    for position, (variable, value) in enumerate(pairs):
        if tuple(variable.shape) != tuple(value.shape):
            return f"optimizer variable {position} has the shape {value.shape}, {variable.path} {variable.shape}"
    for variable, value in pairs:
        variable.assign(value)
    return ""
