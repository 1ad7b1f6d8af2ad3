"""The origins of the loss, the optimizer and the scaling of a start, for the log."""

from learnd.config.settings import ModelRecipe
from learnd.core.tensors import Optimizer
from learnd.learners.settings import AnyLearner
from learnd.wiring.model import Model


def describe_origins(
    model: Model, recipe: ModelRecipe, learning: AnyLearner, optimizer: Optimizer
) -> dict[str, object]:
    """Return what the model learns with, and which part of the configuration or of the model decided it.

    Parameters
    ----------
    recipe : as configured, before a model that takes whole numbers changed the scaling of the inputs
    """
    stored = model.stored
    its_loss = stored is not None and stored.loss is not None and recipe.model.head is None
    its_optimizer = stored is not None and stored.optimizer is not None and learning.optimizer is None
    origins: dict[str, object] = {
        "loss": model.network.loss_name,
        "loss_from": "learning.loss" if learning.loss is not None else "the model" if its_loss else "the task",
        "optimizer": type(optimizer).__name__,
        "optimizer_from": (
            "learning.optimizer"
            if "optimizer" in learning.model_fields_set and learning.optimizer is not None
            else "the model"
            if its_optimizer
            else "the default"
        ),
        "learning_rate": _rate(optimizer),
        "scaling": {name: scale["kind"] for name, scale in model.network.scales().items()},
        "scaling_from": _scaling_origin(model, recipe),
    }
    if recipe.task.has_probabilities:
        kind = "probabilities" if model.meaning.probabilities else "logits"
        origins |= {"outputs": kind, "outputs_from": model.meaning.evidence}
    return origins


def _rate(optimizer: Optimizer) -> float | str:
    """Return the learning rate, or the name of its schedule."""
    schedule = getattr(optimizer, "_learning_rate", None)
    if callable(schedule):
        return type(schedule).__name__
    return float(f"{float(optimizer.learning_rate):.6g}")


def _scaling_origin(model: Model, recipe: ModelRecipe) -> str:
    if recipe.scaling.model_fields_set:
        return "scaling"
    return "the model takes whole numbers" if model.whole is not None else "the default"
