"""The wiring of the ensemble that ``learning.mode: auto`` learns with."""

from dataclasses import replace
from math import prod

import tensorflow as tf

from learnd.config.settings import Settings
from learnd.core.tensors import KerasModel
from learnd.core.types import KEY_SLOTS
from learnd.learners.class_pool import ClassPool
from learnd.learners.ensemble import EnsembleUpdate
from learnd.learners.further_experts import FurtherSpec
from learnd.learners.linear_member import LinearMember
from learnd.learners.member import Member
from learnd.learners.optimizer import make_optimizer
from learnd.learners.pool import NumberPool, Pool
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import OptimizerSettings, ReplaySettings
from learnd.learners.standing import newest_rows
from learnd.models.assembly import make_core
from learnd.wiring.model import Model, make_optimizer_for

_RECENT = ReplaySettings(kind="recency", size=200, ratio=4.0)
_RESERVOIR = ReplaySettings(kind="reservoir", size=1000, ratio=4.0)
_OTHER_SEED = 1_000_003


def make_ensemble(model: Model, settings: Settings) -> EnsembleUpdate:
    """Return the update of *model* as a member of an ensemble.

    A model whose updates are expensive, such as a recurrent one, learns once and without replay.
    """
    network, learning = model.network, settings.learning
    _, *inputs = network.core_inputs(tf.zeros((1, *network.row_shape), tf.float64)).shape
    replays = settings.model.replays

    def member(core: KerasModel, *, own: bool, replay: ReplaySettings) -> Member:
        if own:
            optimizer = make_optimizer_for(model, learning.optimizer)
        else:
            optimizer = make_optimizer(learning.optimizer or OptimizerSettings())
            optimizer.build(core.trainable_variables)
        buffer = ReplayBuffer(
            replay,
            rows=1,
            row_shape=tuple(inputs),
            targets=settings.target_count,
            seed=settings.seed if own else settings.seed + _OTHER_SEED,
            dtype="float32",
            classes=network.outputs_per_row if settings.task.has_classes else 0,
        )
        return Member(
            core,
            optimizer,
            network.objective,
            buffer if replays else None,
            has_training_mode=network.has_training_mode,
            max_step=learning.max_step,
            max_refused=learning.max_refused,
        )

    recent = member(network.core, own=True, replay=_RECENT)
    reservoir = None
    if replays:
        reservoir = member(make_core(settings.model, model.spec).model, own=False, replay=_RESERVOIR)
    linear = LinearMember(prod(inputs), network.outputs_per_row, network.objective)
    names = ["recent", *(["reservoir"] if replays else []), "linear"]
    newest = None
    if not replays:
        newest = newest_rows(tuple(inputs), settings.target_count, rows=1, dtype="float32")
    always = settings.serve == "averaged"
    return EnsembleUpdate(
        network, recent, reservoir, linear, _pool(model, settings, names), newest, always_average=always
    )


def _pool(model: Model, settings: Settings, names: list[str]) -> Pool:
    members, task = [*names, *(f"{name}_average" for name in names)], settings.task
    keys = KEY_SLOTS if settings.decode.key is not None else 1
    if task.has_classes:
        return ClassPool(model.network, members, keys=keys)
    corrected, horizon = task.steps_ahead <= 1, task.steps_ahead
    further = FurtherSpec(corrected=corrected, horizon=horizon, keys=keys)
    experts = settings.learning.experts
    seasons = [replace(further, periods=experts.seasons)] if experts.seasons else []
    upstream = [replace(further, upstream=name, column=i) for i, name in enumerate(experts.upstream)]
    return NumberPool(
        model.network,
        members,
        corrected=corrected,
        last_in_window=horizon > 0,
        horizon=horizon,
        keys=keys,
        further=[*seasons, *upstream],
    )
