"""Rebuilds the model of a request for an export: the live model's state in a new network."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.averaging.none import NoAverager
from learnd.averaging.settings import NoneSettings
from learnd.config.settings import LearningRecipe
from learnd.core.tensors import Array, Tensor
from learnd.export.exportable_model import ExportableModel
from learnd.learners.averaged import AveragedModel
from learnd.models.copies import refresh_copies
from learnd.wiring.model import make_model, make_update, named_variables


def restore_model(
    recipe: LearningRecipe, names: Sequence[str], arrays: Mapping[str, Array], *, unroll: bool
) -> ExportableModel:
    """Return the model of *recipe* with the averaged weights, and with the state from which it continues to learn.

    Parameters
    ----------
    names : the names of the variables that an update changes, as in a checkpoint
    arrays : ``weight_<i>`` in the order of `Network.served_state`, ``learning_<i>`` in the order of *names*, and
        ``examples``, recent inputs
    unroll : build loops over time unrolled
    """
    model = make_model(recipe, unroll=unroll, loss=recipe.learning.loss)
    network = model.network
    # An export has nothing to average with, so it learns like the live model of a daemon without averaging.
    averaged = AveragedModel(network, NoAverager(NoneSettings(kind="none")))
    update = make_update(model, recipe.learning, averaged)
    learning = {name: arrays[f"learning_{i}"] for i, name in enumerate(names)}
    if model.thaw_at is not None and int(learning.pop("learned", 0)) >= model.thaw_at:
        model.freeze.thaw()
    state = named_variables(network, update.optimizer)
    for i, variable in enumerate(network.served_state()):
        variable.assign(arrays[f"weight_{i}"])
    for name, variable in state.items():
        if name in learning:
            variable.assign(learning[name])
    refresh_copies(network.core)
    network.fix_output_count()
    guard = {f"guard/{name}": variable for name, variable in update.guard.variables().items()}

    def learn(x: Tensor, y: Tensor, /, *, observe: bool = True) -> Tensor:
        if not observe:
            return update.learn(x, y, tf.ones(tf.shape(x)[:1]), observe=False).losses
        # As in the daemon, whose readings are float64 until they are centred.
        rows, targets = tf.cast(x, tf.float64), tf.cast(y, tf.float64)
        losses = update.learn(rows, targets, tf.ones(tf.shape(x)[:1])).losses
        network.renew_scales()
        return losses

    return ExportableModel(
        network=network,
        learn=learn,
        optimizer=update.optimizer,
        state={**state, **guard},
        features=tuple(recipe.features),
        gaps=recipe.gaps,
        targets=recipe.target_count,
        classes=int(network.class_count.numpy()) if network.class_count is not None else None,
        batch_rows=recipe.learning.batch_rows,
        examples=arrays["examples"],
    )
