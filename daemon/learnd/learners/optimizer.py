"""A Keras optimizer from its settings."""

from typing import Any

import keras

from learnd.errors import ConfigError, Problem
from learnd.learners.settings import OptimizerSettings


def make_optimizer(settings: OptimizerSettings) -> Any:
    """The optimizer that the settings name.

    Raises
    ------
    ConfigError
        for an argument that Keras does not take.
    """
    arguments = settings.arguments()
    if "clipnorm" in arguments or "clipvalue" in arguments:
        # Keras takes one kind of clipping; the user's own choice replaces the default.
        arguments.pop("global_clipnorm")
    try:
        rate = settings.learning_rate
        schedule = _schedule(rate) if isinstance(rate, dict) else rate
        return getattr(keras.optimizers, settings.kind)(learning_rate=schedule, name="optimizer", **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem("learning.optimizer", f"{settings.kind} does not take this: {error}")
        raise ConfigError(problem) from error


def _schedule(settings: dict[str, Any]) -> Any:
    arguments = dict(settings)
    return getattr(keras.optimizers.schedules, arguments.pop("kind"))(**arguments)
