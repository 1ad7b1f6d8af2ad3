"""The model that an exporting process was asked for: the live one's state in a network of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from learnd.averaging.none import NoAverager
from learnd.averaging.settings import NoneSettings
from learnd.config.settings import LearningRecipe
from learnd.export.exportable_model import Candidate
from learnd.learners.averaged import AveragedModel
from learnd.wiring.model import make_model, make_update, named_variables


def make_candidate(
    recipe: LearningRecipe, names: Sequence[str], arrays: Mapping[str, Any], *, unroll: bool
) -> Candidate:
    """The model of *recipe* with the averaged weights, and with all that it needs to go on learning.

    *arrays* holds ``weight_<i>`` in the order of `Network.served_state`, ``learning_<i>`` in the order of *names*, and
    ``examples``, recent inputs.
    """
    made = make_model(recipe, unroll=unroll, loss=recipe.learning.loss)
    network = made.network
    # On its own it has nothing to average with: it learns as the live model of a daemon without averaging does.
    averaged = AveragedModel(network, NoAverager(NoneSettings(kind="none")))
    update = make_update(made, recipe.learning, averaged)
    learning = {name: arrays[f"learning_{i}"] for i, name in enumerate(names)}
    if made.thaw_at is not None and int(learning.pop("learned", 0)) >= made.thaw_at:
        made.freeze.thaw()
    state = named_variables(network, update.optimizer)
    for i, variable in enumerate(network.served_state()):
        variable.assign(arrays[f"weight_{i}"])
    for name, variable in state.items():
        if name in learning:
            variable.assign(learning[name])
    network.fix_output_count()
    guarded = {f"guard/{name}": variable for name, variable in update.guard.variables().items()}

    def learn(x: Any, y: Any, *, observe: bool = True) -> Any:
        return update(x, y, tf.ones(tf.shape(x)[:1]), observe=observe).losses

    return Candidate(
        network,
        learn,
        update.optimizer,
        {**state, **guarded},
        tuple(recipe.features),
        recipe.target_count,
        int(network.class_count.numpy()) if network.class_count is not None else None,
        recipe.learning.batch_rows,
        arrays["examples"],
    )
