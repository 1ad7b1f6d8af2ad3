"""The wiring of the model: its core, task, initial weights, optimizer and update.

The daemon and the exporting process both use it, so that they build the same network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import keras
import structlog

from learnd.config.settings import ModelRecipe
from learnd.core.errors import ConfigError, Problem
from learnd.core.protocols import Network
from learnd.core.registry import load_object
from learnd.core.tensors import Optimizer, Variable
from learnd.export.exportable_model import ExportableNetwork
from learnd.learners.averaged import AveragedModel
from learnd.learners.guard import Guard
from learnd.learners.losses import make_loss
from learnd.learners.optimizer import make_optimizer, stored_optimizer
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import AnyLearner, OptimizerSettings
from learnd.learners.update import Update, UpdateOptions
from learnd.models.assembly import Core, make_core
from learnd.models.copies import refresh_copies
from learnd.models.core import CoreSpec
from learnd.models.layer_selection import Freeze, chosen_to_freeze, matching
from learnd.models.output_meaning import OutputMeaning
from learnd.models.stored.model import StoredModel
from learnd.models.stored.slots import assign_slots
from learnd.models.whole_numbers import WholeNumbers
from learnd.tasks import TASKS
from learnd.tasks.network import NetworkSpec
from learnd.wiring.warm_start import WarmStart, exported_classes, warm_start

log = structlog.get_logger()

Recipe = TypeVar("Recipe", bound=ModelRecipe)

THAW = "thaw"
"""The name of the action that makes frozen layers trainable."""


@dataclass(frozen=True, slots=True)
class Model:
    """A network, with its origin.

    Attributes
    ----------
    stored : the loaded model; None for a new one
    warm_start : another instance's state, from which this model continues; None without one
    freeze : the layers that are not trained
    thaw_at : number of learned samples after which they are trained; None: never
    labels : the known classes
    spec : the requirements that the core was built for
    whole : the inputs, if the model takes whole numbers only
    meaning : whether the outputs of a classifier are logits or probabilities
    """

    network: ExportableNetwork
    stored: StoredModel | None
    warm_start: WarmStart | None
    freeze: Freeze
    thaw_at: int | None
    labels: tuple[str, ...]
    spec: CoreSpec
    whole: WholeNumbers | None
    meaning: OutputMeaning


def make_model(recipe: ModelRecipe, *, unroll: bool = False, loss: object = None) -> Model:
    """Return the model of *recipe* with its initial weights: random, loaded, or from another instance's state.

    Parameters
    ----------
    unroll : unroll recurrent layers
    loss : the configured loss, see `learnd.learners.losses.make_loss`; None: the model's own

    Raises
    ------
    ConfigError
        if the model cannot be built or loaded, or does not fit the task.
    """
    origin = warm_start(recipe)
    if origin is not None:
        recipe = origin.recipe
    task, features = recipe.task, len(recipe.features)
    row_shape = task.row_shape(features)
    classify = task.has_classes
    labels = _first_labels(recipe, origin)
    # Keras numbers unnamed objects by a global counter. A checkpoint needs the same names in every process.
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(recipe.seed)
    seasons = [season.period_s for season in recipe.seasons]
    core_shape = (*row_shape[:-1], row_shape[-1] + len(recipe.indicators) + len(seasons))  # sine and cosine: one more
    if recipe.array_shape is not None and recipe.model.has_end:
        core_shape = recipe.array_shape
    spec = CoreSpec(
        core_shape,
        recipe.output_count,
        seed=recipe.seed,
        unroll=unroll,
        classify=classify,
        independent=task.has_probabilities and not classify,
        known=len(labels) if classify else None,
        meaning=task.loaded_outputs,
        scaled=recipe.scale_inputs,
    )
    core = make_core(recipe.model, spec)
    if core.whole is not None:
        recipe = with_whole_inputs(recipe, core.whole)
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
            loss=make_loss(loss if loss is not None else _own_loss(recipe, core), classify=task.has_probabilities),
            classes=len(labels),
            probabilities=core.meaning.probabilities,
            single=classify and core.outputs == 1,
            frozen=frozen.variables if thaw_at is None else (),
            seasons=seasons,
            indicators=recipe.indicators,
            core_shape=recipe.array_shape if recipe.model.has_end else None,
        ),
    )
    if origin is not None:
        _assign(network, origin, new_head=recipe.model.head is not None)
    return Model(network, core.stored, origin, frozen, thaw_at, labels, spec, core.whole, core.meaning)


def with_whole_inputs(recipe: Recipe, whole: WholeNumbers) -> Recipe:
    """Return *recipe* with unscaled and checked inputs, for a model that takes whole numbers.

    Raises
    ------
    ConfigError
        if the inputs are to be standardised, or if a missing or faulty reading is to be replaced by a mean.
    """
    if recipe.scaling.inputs == "online":
        message = "is online, but the model takes whole numbers, such as ids of an embedding; remove it, or use none"
        raise ConfigError(Problem("scaling.inputs", message))
    for name, feature in recipe.features.items():
        if feature.missing == "mean" or feature.on_fault == "mean":
            option = "missing" if feature.missing == "mean" else "on_fault"
            message = "is mean, but the model takes whole numbers; a mean of ids has no meaning: use another value"
            raise ConfigError(Problem(f"features.{name}.{option}", message))
    return recipe.with_whole_inputs(whole.limits)


def require_no_batch_statistics(network: Network) -> None:
    """Refuse batch normalisation that would be trained on one row at a time: the variance of one row is zero.

    Raises
    ------
    ConfigError
        if there is such a layer; the error names the layers.
    """
    names = list(dict.fromkeys(v.path.split("/")[-2] for v in network.statistics()))
    if names:
        freeze = f"freeze: {{layers: [{', '.join(names)}]}}"
        message = (
            f"per_sample trains batch normalisation ({', '.join(names)}) on one row at a time, which has no variance"
        )
        raise ConfigError(Problem("learning.mode", f"{message}; use micro_batch, or model.{freeze}"))


def _own_loss(recipe: ModelRecipe, core: Core) -> object:
    """Return the loss that the model was compiled with; None for a loaded model with a new head, hence a new task."""
    return None if recipe.model.load is not None and recipe.model.head is not None else core.loss


def _first_labels(recipe: ModelRecipe, origin: WarmStart | None) -> tuple[str, ...]:
    """Return the classes known before the first sample: the configured ones, or those of the loaded state or export.

    Raises
    ------
    ConfigError
        if the configured classes do not begin with the loaded ones, or if the classes of a loaded model are unknown.
    """
    task, model = recipe.task, recipe.model
    known = origin.labels if origin is not None else exported_classes(recipe)
    if not task.has_classes:
        return ()
    labels = tuple(task.first_classes)
    if model.head is not None:
        return labels
    if known and labels[: len(known)] not in ((), known):
        message = f"must start with the loaded model's classes: {', '.join(known)}"
        raise ConfigError(Problem("task.classes", f"{message}; list these first, or add model.head"))
    if not labels and not known and model.brings_classes:
        message = (
            "is required, because the classes of a loaded model are unknown; name them in order, or add model.head"
        )
        raise ConfigError(Problem("task.known", message))
    return max(labels, known, key=len)


def _assign(network: Network, origin: WarmStart, *, new_head: bool) -> None:
    """Assign the arrays of another instance's state to *network*; a new head keeps its initial weights."""
    missing = []
    for name, variable in _named("model", network.variables).items():
        if variable is network.class_count:
            continue  # the number of classes follows from the labels
        array = origin.arrays.get(name)
        if array is not None and tuple(array.shape) == tuple(variable.shape):
            variable.assign(array)
        else:
            missing.append(name)
    refresh_copies(network.core)
    if missing and not new_head:
        message = f"has no {missing[0]} of the configured shape; use the same configuration, or add model.head"
        raise ConfigError(Problem("model.load", message))
    log.info("weights_loaded", always=True, variables=len(network.variables) - len(missing), initial=missing)


def make_optimizer_for(model: Model, settings: OptimizerSettings | None) -> Optimizer:
    """Return the configured optimizer, otherwise that of the loaded model, otherwise Adam; with its loaded state."""
    stored, network = model.stored, model.network
    own = stored.optimizer if stored is not None else None
    if settings is None and own is not None:
        optimizer = stored_optimizer(own)
    else:
        optimizer = make_optimizer(settings if settings is not None else OptimizerSettings())
    optimizer.build(network.trainable_variables)
    kind = type(optimizer).__name__
    if model.thaw_at is not None:
        model.freeze.hold()
    if stored is not None:
        notes = list(stored.notes)
        if own is not None and own["class_name"].rpartition(">")[2] != kind:
            notes.append(f"the file's optimizer is {own['class_name']}, the configured one {kind}: its state is new")
        elif stored.slots:
            initial = assign_slots(optimizer, network.trainable_variables, stored.slots)
            notes += [f"the optimizer's {name} starts with its initial value" for name in initial]
        # A note says what is lost, so that learning does not go on from where the file left off.
        report = log.warning if notes else log.info
        report("model_loaded", always=True, format=stored.format, optimizer=kind, loss=network.loss_name, notes=notes)
    elif model.warm_start is not None and model.warm_start.optimizer in (kind, None):
        for name, variable in _named("optimizer", optimizer.variables).items():
            array = model.warm_start.arrays.get(name)
            if array is not None and tuple(array.shape) == tuple(variable.shape):
                variable.assign(array)
    return optimizer


def make_update(
    model: Model,
    learning: AnyLearner,
    averaged: AveragedModel,
    replay: ReplayBuffer | None = None,
    newest: ReplayBuffer | None = None,
) -> Update:
    """Return the configured update of the model, with its optimizer and its guard.

    With a buffer for the *newest* rows, it chooses between live and averaged weights.

    Raises
    ------
    ConfigError
        if building it shows that a setting is wrong.
    """
    optimizer = make_optimizer_for(model, learning.optimizer)
    options = UpdateOptions(
        weighted=learning.weighted,
        passes=learning.passes,
        elastic=learning.elastic,
        rates=layer_rates(model, learning.layer_rates),
        custom=load_object(learning.update, "learning.update") if learning.update is not None else None,
    )
    guard = Guard(model.network, averaged, max_step=learning.max_step, max_refused=learning.max_refused)
    return Update(model.network, optimizer, averaged, guard, options, replay, newest)


def layer_rates(model: Model, rates: Mapping[str, float]) -> list[tuple[Variable, float]]:
    """Return the variables with their own learning rate, each with its factor. The last matching pattern applies."""
    factors = {
        id(v): (v, factor)
        for pattern, factor in rates.items()
        for part in matching(model.network.core, [pattern], "learning.layer_rates")
        for v in part.variables
    }
    return [(v, factor) for v, factor in factors.values() if factor != 1.0 and v.trainable]


def named_variables(network: Network, optimizer: Optimizer) -> dict[str, Variable]:
    """Return the variables of the model and the optimizer for the checkpoint, by name."""
    named = {**_named("model", network.variables), **_named("optimizer", optimizer.variables)}
    named.pop("optimizer/learning_rate", None)  # the configuration sets it, also for an existing checkpoint
    return named


def _named(prefix: str, variables: Sequence[Variable]) -> dict[str, Variable]:
    """Return the variables by a name that is the same in every process."""
    named: dict[str, Variable] = {}
    for variable in variables:
        name = f"{prefix}/{variable.path.removeprefix('optimizer/')}"
        # Adafactor names its slots only by their kind, so names repeat.
        repeated = sum(known == name or known.startswith(f"{name}~") for known in named)
        named[f"{name}~{repeated}" if repeated else name] = variable
    return named
