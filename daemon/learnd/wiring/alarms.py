"""The wiring of the alarms."""

from learnd.alarms.monitor import Monitor
from learnd.alarms.readings import readings_of, watched_names
from learnd.config.settings import Settings


def make_monitor(settings: Settings) -> Monitor | None:
    """Return the configured alarms; None if they are switched off, or if there is nothing to watch."""
    options, task = settings.alarms, settings.task
    # An element of an array, such as a pixel, is no signal of its own.
    if not options.enabled or settings.array_shape is not None:
        return None
    features = settings.reading_names
    return Monitor(
        options,
        columns=watched_names(task.watched, features, settings.target),
        readings=readings_of(task.watched, len(features)),
        hold=options.learning or ("hold" if task.holds_alarms else "learn"),
    )
