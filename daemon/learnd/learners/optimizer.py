"""Keras optimizers, from settings or from a loaded model."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.core.tensors import Optimizer
from learnd.learners.settings import OptimizerSettings


def make_optimizer(settings: OptimizerSettings) -> Optimizer:
    """Return the configured optimizer.

    Raises
    ------
    ConfigError
        if Keras refuses an argument, or the user's class is not a Keras optimizer.
    """
    arguments = settings.arguments()
    if "clipnorm" in arguments or "clipvalue" in arguments:
        # Keras accepts one kind of clipping only, so the user's choice replaces the default.
        arguments.pop("global_clipnorm")
    kind = _class(settings.kind)
    try:
        rate = settings.learning_rate
        schedule = _schedule(rate) if isinstance(rate, dict) else rate
        return kind(learning_rate=schedule, name="optimizer", **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem("learning.optimizer", f"{settings.kind} does not accept these arguments: {error}")
        raise ConfigError(problem) from error


def stored_optimizer(stored: Mapping[str, Any]) -> Optimizer:
    """Return the optimizer of a loaded model from its Keras configuration, without its state.

    Raises
    ------
    ConfigError
        if Keras cannot make it.
    """
    if stored["class_name"] == "LossScaleOptimizer":  # made for float16; our losses are float32 and need no scale
        stored = stored["config"]["inner_optimizer"]
    try:
        config = {**stored, "config": {**stored["config"], "name": "optimizer"}}
        optimizer: Optimizer = keras.optimizers.deserialize(config)
        return optimizer
    except (TypeError, ValueError, KeyError) as error:
        message = (
            f"the loaded model's {stored.get('class_name')} cannot be built ({error}); configure an optimizer here"
        )
        raise ConfigError(Problem("learning.optimizer", message)) from error


def _class(kind: str) -> Callable[..., Optimizer]:
    if ":" in kind:
        custom = load_object(kind, "learning.optimizer.kind")
        if not (isinstance(custom, type) and issubclass(custom, keras.optimizers.Optimizer)):
            message = f"{kind} is not a subclass of keras.optimizers.Optimizer"
            raise ConfigError(Problem("learning.optimizer.kind", message))
        return custom
    optimizer: Callable[..., Optimizer] = getattr(keras.optimizers, kind)
    return optimizer


def _schedule(settings: dict[str, Any]) -> object:
    arguments = dict(settings)
    schedule: object = getattr(keras.optimizers.schedules, arguments.pop("kind"))(**arguments)
    return schedule
