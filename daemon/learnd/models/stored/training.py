"""What a Keras file tells of its training: the optimizer's settings, its slots, the loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from learnd.models.stored.model import Training, first_line
from learnd.models.stored.slots import ITERATION, slots_of, unique_paths

Arrays = Mapping[str, np.ndarray]
_M_V = {"m": "momentum", "v": "velocity", "vhat": "velocity_hat"}
_MOMENTUM = {"m": "momentum", "momentum": "momentum"}
KERAS_2_SLOTS: dict[str, dict[str, str]] = {
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
"""Keras 3's names of the slots of Keras 2, those of its optimizers before 2.11 included."""
# Settings that Keras 3 does not take and that changed no number.
_GONE = ("is_legacy_optimizer", "jit_compile")
NO_OPTIMIZER = "the file names no optimizer; it starts afresh"
AFRESH = "the optimizer starts afresh"


def keras3_training(compiled: Mapping[str, Any] | None, values: Arrays, variables: Sequence[Any]) -> Training:
    """From *compiled*, what `get_compile_config` gave, and the optimizer's arrays by their position, "0" and on."""
    if not compiled or not compiled.get("optimizer"):
        return Training(loss=loss_of((compiled or {}).get("loss"))[0], notes=(NO_OPTIMIZER,))
    loss, notes = loss_of(compiled.get("loss"))
    settings = compiled["optimizer"]
    settings = {"class_name": settings, "config": {}} if isinstance(settings, str) else settings
    try:
        optimizer = keras.optimizers.deserialize(dict(settings))
        optimizer.build(list(variables))
    except Exception as error:
        return Training(None, {}, loss, (*notes, f"{AFRESH}, its settings are not Keras' own: {first_line(error)}"))
    described = keras.optimizers.serialize(optimizer)
    reason = _assign_in_order(optimizer, values)
    if reason:
        return Training(described, {}, loss, (*notes, f"{AFRESH}: {reason}"))
    return Training(described, slots_of(optimizer, variables), loss, notes)


def keras2_training(compiled: Mapping[str, Any] | None) -> Training:
    """The optimizer's settings and the loss, from either form that Keras 2 wrote; slots are the caller's."""
    settings = (compiled or {}).get("optimizer") or (compiled or {}).get("optimizer_config")
    if not compiled or not isinstance(settings, Mapping):
        return Training(loss=loss_of((compiled or {}).get("loss"))[0], notes=(NO_OPTIMIZER,))
    loss, notes = loss_of(compiled.get("loss"))
    try:
        described = keras.optimizers.serialize(keras.optimizers.deserialize(_modern(settings)))
    except Exception as error:
        return Training(None, {}, loss, (*notes, f"{AFRESH}, Keras 3 does not take its settings: {first_line(error)}"))
    return Training(described, {}, loss, notes)


def with_slots(training: Training, slots: Mapping[str, np.ndarray], reason: str = "") -> Training:
    """*training* with *slots*; without any, a note that gives the *reason*."""
    if training.optimizer is None or slots:
        return Training(training.optimizer, slots, training.loss, training.notes)
    return Training(training.optimizer, {}, training.loss, (*training.notes, f"{AFRESH}: {reason}"))


def keras2_slots_in_order(optimizer: Mapping[str, Any], values: Arrays, variables: Sequence[Any]) -> tuple[Any, str]:
    """Slots of Keras 2's archives, which hold them by position alone, or the reason why they cannot be told.

    Keras 2 makes an optimizer's variables in a fixed order, group by group; shapes, and the sign of what is a mean of
    squares, are checked against it.
    """
    groups = _keras2_groups(optimizer)
    if groups is None:
        return {}, f"the order of {optimizer['class_name']}'s slots in a Keras 2 archive is not known"
    order = [(path, v, slot) for group in groups for path, v in zip(unique_paths(variables), variables, strict=True)
             for slot in group]  # fmt: skip
    if len(values) != len(order) + 1:
        return {}, f"the file holds {len(values)} optimizer variables, and {len(order) + 1} belong to the model"
    slots = {ITERATION: np.asarray(values["0"])}
    for position, (path, variable, slot) in enumerate(order, start=1):
        value = np.asarray(values[str(position)])
        if tuple(value.shape) != tuple(variable.shape):
            return {}, f"the file's optimizer variable {position} has the shape {value.shape}, {path} {variable.shape}"
        if slot.startswith("velocity") and value.min(initial=0) < 0:
            return {}, f"the file's optimizer variable {position} is negative, and a {slot} never is"
        slots[f"{path}/{slot}"] = value
    # Keras 2 gives SGD a momentum that stays zero; Keras 3 has none then.
    unused = optimizer["class_name"] == "SGD" and not optimizer["config"].get("momentum")
    return ({ITERATION: slots[ITERATION]} if unused else slots), ""


def keras2_slots_by_name(optimizer: Mapping[str, Any], values: Arrays, variables: Mapping[str, str]) -> tuple[Any, str]:
    """Slots of Keras 2's HDF5 files, or the reason why they cannot be told.

    *variables* are Keras 3's paths by Keras 2's names. A slot is called ``Adam/m/dense/kernel:0``, before 2.11
    ``Adam/dense/kernel/m:0``.
    """
    names = KERAS_2_SLOTS.get(optimizer["class_name"])
    if names is None:
        return {}, f"the slots of Keras 2's {optimizer['class_name']} are not those of Keras 3"
    slots: dict[str, np.ndarray] = {}
    for full, value in values.items():
        name = full.partition(":")[0]
        if name.rpartition("/")[2] in ("iteration", "iter"):
            slots[ITERATION] = np.asarray(value)
        elif name.rpartition("/")[2] not in ("learning_rate", "decay", "beta_1", "beta_2", "rho", "momentum_cache"):
            key = _keras3_key(name, names, variables)
            if key is None:
                return {}, f"the file's optimizer variable {full} belongs to no weight that is known"
            slots[key] = np.asarray(value)
    unused = optimizer["class_name"] == "SGD" and not optimizer["config"].get("momentum")
    return ({key: slots[key] for key in slots if key == ITERATION} if unused else slots), ""


def _keras3_key(name: str, slots: Mapping[str, str], variables: Mapping[str, str]) -> str | None:
    for variable in sorted(variables, key=len, reverse=True):
        before, found, after = f"/{name}/".partition(f"/{variable}/")
        slot = after.strip("/") or before.rpartition("/")[2]
        if found and slot in slots:
            return f"{variables[variable]}/{slots[slot]}"
    return None


def _keras2_groups(optimizer: Mapping[str, Any]) -> list[list[str]] | None:
    """Slots that Keras 2 makes together for each variable, in its order."""
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


def _modern(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keras 2's settings of an optimizer as Keras 3 takes them."""
    config = {key: value for key, value in settings["config"].items() if key not in _GONE}
    rate, decay = config.get("learning_rate"), config.pop("decay", None)
    if isinstance(rate, Mapping):
        config["learning_rate"] = _schedule(rate["class_name"], rate["config"])
    elif decay:
        # What Keras 2 did before 2.11 with `decay`: rate / (1 + decay * iteration).
        options = {"initial_learning_rate": rate, "decay_steps": 1, "decay_rate": decay}
        config["learning_rate"] = _schedule("InverseTimeDecay", options)
    return {"class_name": str(settings["class_name"]).rpartition(">")[2], "config": config}


def _schedule(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A schedule as Keras 3 takes it; it wants a name where Keras 2 wrote None."""
    given = {key: value for key, value in options.items() if value is not None}
    return {"module": "keras.optimizers.schedules", "class_name": kind, "config": given, "registered_name": None}


def loss_of(loss: Any) -> tuple[Any, tuple[str, ...]]:
    """The loss that was compiled in; None and a note where it needs code that is not there."""
    if loss is None or isinstance(loss, str):
        return loss, ()
    try:
        return keras.losses.get(dict(loss)) if isinstance(loss, Mapping) else loss, ()
    except Exception as error:
        return None, (f"the loss did not come along; name its module in model.code: {first_line(error)}",)


def _assign_in_order(optimizer: Any, values: Arrays) -> str:
    """Give the optimizer its variables as Keras 3 saved them; the reason why not, or nothing."""
    if not values:
        return "the file holds no optimizer state"
    if len(values) != len(optimizer.variables):
        return f"the file holds {len(values)} optimizer variables, and {len(optimizer.variables)} belong to the model"
    pairs = [(variable, np.asarray(values[str(i)])) for i, variable in enumerate(optimizer.variables)]
    for position, (variable, value) in enumerate(pairs):
        if tuple(variable.shape) != tuple(value.shape):
            return f"optimizer variable {position} has the shape {value.shape}, {variable.path} {variable.shape}"
    for variable, value in pairs:
        variable.assign(value)
    return ""
