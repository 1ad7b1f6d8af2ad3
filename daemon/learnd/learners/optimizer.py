"""A Keras optimizer from its settings."""

from collections.abc import Mapping
from typing import Any

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.core.registry import load_object
from learnd.learners.settings import OptimizerSettings


def make_optimizer(settings: OptimizerSettings) -> Any:
    """The optimizer that the settings name.

    Raises
    ------
    ConfigError
        for an argument that Keras does not take, or a class of the user's that is no Keras optimizer.
    """
    arguments = settings.arguments()
    if "clipnorm" in arguments or "clipvalue" in arguments:
        # Keras takes one kind of clipping; the user's own choice replaces the default.
        arguments.pop("global_clipnorm")
    kind = _class(settings.kind)
    try:
        rate = settings.learning_rate
        schedule = _schedule(rate) if isinstance(rate, dict) else rate
        return kind(learning_rate=schedule, name="optimizer", **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem("learning.optimizer", f"{settings.kind} does not take this: {error}")
        raise ConfigError(problem) from error


def stored_optimizer(stored: Mapping[str, Any]) -> Any:
    """The optimizer that came with a loaded model, from its Keras configuration; its state is elsewhere.

    Raises
    ------
    ConfigError
        if Keras cannot make it.
    """
    if stored["class_name"] == "LossScaleOptimizer":  # of float16: our losses are float32 and need no scale
        stored = stored["config"]["inner_optimizer"]
    try:
        config = {**stored, "config": {**stored["config"], "name": "optimizer"}}
        return keras.optimizers.deserialize(config)
    except (TypeError, ValueError, KeyError) as error:
        message = f"the loaded model's {stored.get('class_name')} cannot be made ({error}); name one here"
        raise ConfigError(Problem("learning.optimizer", message)) from error


def _class(kind: str) -> Any:
    if ":" not in kind:
        return getattr(keras.optimizers, kind)
    found = load_object(kind, "learning.optimizer.kind")
    if not (isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer)):
        raise ConfigError(Problem("learning.optimizer.kind", f"{kind} is no subclass of keras.optimizers.Optimizer"))
    return found


def _schedule(settings: dict[str, Any]) -> Any:
    arguments = dict(settings)
    return getattr(keras.optimizers.schedules, arguments.pop("kind"))(**arguments)
