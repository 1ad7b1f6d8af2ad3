"""A Keras optimizer from its settings."""

import difflib
from typing import Any

import keras

from learnd.errors import ConfigError, Problem
from learnd.learners.settings import OptimizerSettings


def make_optimizer(settings: OptimizerSettings) -> Any:
    """The optimizer that the settings name, by class name in any spelling Keras knows.

    Raises
    ------
    ConfigError
        for a name or an argument that Keras does not have.
    """
    names = {n.lower(): n for n in dir(keras.optimizers) if _is_optimizer(getattr(keras.optimizers, n))}
    name = names.get(settings.kind.lower())
    if name is None:
        close = difflib.get_close_matches(settings.kind.lower(), names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(names))}"
        raise ConfigError(Problem("learning.optimizer.kind", f"{settings.kind!r} is no Keras optimizer; {hint}"))
    try:
        rate = settings.learning_rate
        schedule = _schedule(rate) if isinstance(rate, dict) else rate
        arguments = settings.arguments()
        if "clipnorm" in arguments or "clipvalue" in arguments:
            # Keras takes one kind of clipping; the user's own choice replaces the default.
            arguments.pop("global_clipnorm", None)
        return getattr(keras.optimizers, name)(learning_rate=schedule, name="optimizer", **arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(Problem("learning.optimizer", f"{name} does not take this: {error}")) from error


def _is_optimizer(value: Any) -> bool:
    base = keras.optimizers.Optimizer
    return isinstance(value, type) and issubclass(value, base) and value is not base


def _schedule(settings: dict[str, Any]) -> Any:
    arguments = dict(settings)
    kind = str(arguments.pop("kind", ""))
    schedules = keras.optimizers.schedules
    names = {n.lower(): n for n in dir(schedules) if isinstance(getattr(schedules, n), type)}
    name = names.get(kind.lower())
    if name is None or name == "LearningRateSchedule":
        known = ", ".join(sorted(set(names.values()) - {"LearningRateSchedule"}))
        where = "learning.optimizer.learning_rate.kind"
        raise ConfigError(Problem(where, f"{kind!r} is no Keras schedule; known: {known}"))
    return getattr(schedules, name)(**arguments)
