"""The model of a recipe: its core, its task, what it begins with, its optimizer, and how the two make an update.

Used by the daemon and by the process that exports alike, so that both build the same network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import structlog

from learnd.config.settings import ModelRecipe
from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.learners.averaged import AveragedModel
from learnd.learners.guard import Guard
from learnd.learners.losses import make_loss
from learnd.learners.optimizer import make_optimizer, stored_optimizer
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import AnyLearner, OptimizerSettings
from learnd.learners.update import Update, UpdateOptions
from learnd.models.assembly import Core, make_core
from learnd.models.core import CoreSpec
from learnd.models.layer_selection import Freeze, chosen_to_freeze, matching
from learnd.models.stored.model import StoredModel
from learnd.models.stored.slots import assign_slots
from learnd.tasks import TASKS
from learnd.tasks.network import NetworkSpec
from learnd.wiring.warm_start import WarmStart, exported_classes, warm_start

log = structlog.get_logger()

THAW = "thaw"
"""The name of the action after which frozen layers learn."""


@dataclass(frozen=True, slots=True)
class Model:
    """A network, with what it brought along.

    Attributes
    ----------
    stored : what was loaded; None for one that starts afresh
    slots : the optimizer's arrays by the names that a checkpoint gives them, of another learnd's state
    labels : the classes that it knows
    """

    network: Any
    stored: StoredModel | None
    warm_start: WarmStart | None
    freeze: Freeze
    thaw_at: int | None
    labels: tuple[str, ...]


def make_model(recipe: ModelRecipe, *, unroll: bool = False, loss: Any = None) -> Model:
    """The network that the recipe describes, with its first weights: drawn from the seed, loaded, or another learnd's.

    Raises
    ------
    ConfigError
        if it cannot be made or loaded, or does not fit the task.
    """
    before = warm_start(recipe)
    if before is not None:
        recipe = before.recipe
    task, features = recipe.task, len(recipe.features)
    row_shape = task.row_shape(features)
    classify = task.has_classes
    labels = _first_labels(recipe, before)
    # Keras numbers what has no name by how many there were before: a checkpoint needs the same names in every process.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(recipe.seed)
    spec = CoreSpec(
        row_shape,
        recipe.output_count,
        seed=recipe.seed,
        unroll=unroll,
        classify=classify,
        known=len(labels) if classify else None,
    )
    core = make_core(recipe.model, spec)
    freeze = recipe.model.freeze
    parts = chosen_to_freeze(core.model, freeze) if freeze is not None else []
    frozen = Freeze(parts)
    thaw_at = freeze.until_samples if freeze is not None else None
    if thaw_at is None:
        frozen.hold()
    network = TASKS[task.kind].load()(
        core.model,
        NetworkSpec(
            row_shape,
            spec.outputs,
            scale_inputs=recipe.scale_inputs,
            scale_target=recipe.scale_target,
            loss=make_loss(loss if loss is not None else _own_loss(recipe, core), classify=classify),
            classes=len(labels),
            probabilities=_gives_probabilities(recipe, core),
            single=classify and core.outputs == 1,
            frozen=frozen.variables if thaw_at is None else (),
        ),
    )
    if before is not None:
        _assign(network, before, new_head=recipe.model.head is not None)
    return Model(network, core.stored, before, frozen, thaw_at, labels)


def require_no_batch_statistics(network: Any) -> None:
    """Refuse batch normalisation that would learn from one row at a time: its variance is zero, and so the model's end.

    Raises
    ------
    ConfigError
        with the layers' names.
    """
    names = list(dict.fromkeys(v.path.split("/")[-2] for v in network.statistics()))
    if names:
        freeze = f"freeze: {{layers: [{', '.join(names)}]}}"
        message = f"per_sample gives batch normalisation ({', '.join(names)}) one row at a time, which has no spread"
        raise ConfigError(Problem("learning.mode", f"{message}; use micro_batch, or model.{freeze}"))


def _gives_probabilities(recipe: ModelRecipe, core: Core) -> bool:
    outputs = recipe.task.loaded_outputs
    return core.probabilities if outputs == "auto" else outputs == "probabilities"


def _own_loss(recipe: ModelRecipe, core: Core) -> Any:
    """The loss that the model was compiled with; not of a file whose end, and so whose task, is another now."""
    return None if recipe.model.load is not None and recipe.model.head is not None else core.loss


def _first_labels(recipe: ModelRecipe, before: WarmStart | None) -> tuple[str, ...]:
    """The classes before the first sample: as configured, and what another learnd's state or export knows.

    Raises
    ------
    ConfigError
        if the two begin otherwise, or if nobody says what the outputs of a loaded model stand for.
    """
    task, model = recipe.task, recipe.model
    known = before.labels if before is not None else exported_classes(recipe)
    if not task.has_classes:
        return ()
    labels = tuple(task.first_classes)
    if model.head is not None:
        return labels
    if known and labels[: len(known)] not in ((), known):
        message = f"begins otherwise than {', '.join(known)}, which is what the loaded model knows"
        raise ConfigError(Problem("task.classes", f"{message}; list these first, or add model.head"))
    if not labels and not known and model.brings_classes:
        message = "is needed: a loaded model has classes; name them in order, or add model.head"
        raise ConfigError(Problem("task.known", message))
    return max(labels, known, key=len)


def _assign(network: Any, before: WarmStart, *, new_head: bool) -> None:
    """Give *network* the arrays of another learnd's state; those of a new head stay as they are."""
    missing = []
    for name, variable in _named("model", network.variables).items():
        if variable is network.class_count:
            continue  # how many classes there are, the labels say
        array = before.arrays.get(name)
        if array is not None and tuple(array.shape) == tuple(variable.shape):
            variable.assign(array)
        else:
            missing.append(name)
    if missing and not new_head:
        message = f"has no {missing[0]} of the shape that the configuration asks for; make it the same, or add a head"
        raise ConfigError(Problem("model.load", message))
    log.info("state_taken_over", always=True, variables=len(network.variables) - len(missing), afresh=missing)


def make_optimizer_for(made: Model, settings: OptimizerSettings | None) -> Any:
    """The optimizer that is configured, else the one that a loaded model brings, else Adam; with the loaded slots."""
    stored, network = made.stored, made.network
    brought = stored.optimizer if stored is not None else None
    if settings is None and brought is not None:
        optimizer = stored_optimizer(brought)
    else:
        optimizer = make_optimizer(settings if settings is not None else OptimizerSettings())
    optimizer.build(network.trainable_variables)
    kind = type(optimizer).__name__
    if made.thaw_at is not None:
        made.freeze.hold()
    if stored is not None:
        notes = list(stored.notes)
        if brought is not None and brought["class_name"].rpartition(">")[2] != kind:
            notes.append(
                f"the file's optimizer is {brought['class_name']}, the configured one {kind}: it starts afresh"
            )
        elif stored.slots:
            afresh = assign_slots(optimizer, network.trainable_variables, stored.slots)
            notes += [f"the optimizer's {name} starts afresh" for name in afresh]
        log.info("model_loaded", always=True, format=stored.format, optimizer=kind, loss=network.loss_name, notes=notes)
    elif made.warm_start is not None and made.warm_start.optimizer in (kind, None):
        for name, variable in _named("optimizer", optimizer.variables).items():
            array = made.warm_start.arrays.get(name)
            if array is not None and tuple(array.shape) == tuple(variable.shape):
                variable.assign(array)
    return optimizer


def make_update(
    made: Model, learning: AnyLearner, averaged: AveragedModel, replay: ReplayBuffer | None = None
) -> Update:
    """One update of the model as the settings have it, with its optimizer and its guard.

    Raises
    ------
    ConfigError
        where only building it shows that a setting is wrong.
    """
    optimizer = make_optimizer_for(made, learning.optimizer)
    options = UpdateOptions(
        weighted=learning.weighted,
        passes=learning.passes,
        elastic=learning.elastic,
        rates=layer_rates(made, learning.layer_rates),
        custom=load_object(learning.update, "learning.update") if learning.update is not None else None,
    )
    guard = Guard(made.network, averaged, max_step=learning.max_step, max_refused=learning.max_refused)
    return Update(made.network, optimizer, averaged, guard, options, replay)


def layer_rates(made: Model, rates: Mapping[str, float]) -> list[tuple[Any, float]]:
    """Each variable that learns at a rate of its own, with its factor; the last pattern that fits counts."""
    factors = {
        id(v): (v, factor)
        for pattern, factor in rates.items()
        for part in matching(made.network.core, [pattern], "learning.layer_rates")
        for v in part.variables
    }
    return [(v, factor) for v, factor in factors.values() if factor != 1.0 and v.trainable]


def named_variables(network: Any, optimizer: Any) -> dict[str, Any]:
    """The model's and the optimizer's variables for the checkpoint."""
    named = {**_named("model", network.variables), **_named("optimizer", optimizer.variables)}
    named.pop("optimizer/learning_rate", None)  # the configuration's to say, also in the middle of a model's life
    return named


def _named(prefix: str, variables: Sequence[Any]) -> dict[str, Any]:
    """Variables by a name that is the same in every process."""
    named: dict[str, Any] = {}
    for variable in variables:
        name = f"{prefix}/{variable.path.removeprefix('optimizer/')}"
        # Adafactor gives its slots the names of their kinds alone.
        repeated = sum(known == name or known.startswith(f"{name}~") for known in named)
        named[f"{name}~{repeated}" if repeated else name] = variable
    return named
