"""The wiring of drift detectors and of the reactions to drift."""

from collections.abc import Callable

from learnd.alarms.monitor import sound_readings
from learnd.alarms.readings import readings_of, watched_names
from learnd.config.settings import Settings
from learnd.core.review import Controls
from learnd.core.rows import NewestRows
from learnd.drift.chain import Chain, follows
from learnd.drift.channel import Channel
from learnd.drift.detectors import DETECTORS
from learnd.drift.detectors.settings import LOSS
from learnd.drift.monitor import DriftMonitor
from learnd.drift.reactions import REACTIONS
from learnd.drift.reactions.reaction import Surroundings


def make_drift_monitor(settings: Settings, controls: Controls, *, export: Callable[[], None]) -> DriftMonitor | None:
    """Return the configured detectors and reactions; None if they are switched off."""
    options, task = settings.drift, settings.task
    if not options.enabled or not options.detectors:
        return None
    readings = settings.reading_names
    # An element of an array, such as a pixel, is no signal of its own.
    names = watched_names(task.watched, readings, settings.target) if settings.array_shape is None else ()
    channels = [
        Channel(name, detector, DETECTORS[detector.kind].load()(detector, seed=settings.seed))
        for detector in options.detectors
        for name in (LOSS, *names)
        if follows(detector.on, name)
    ]
    rows = NewestRows(max((each.rows_needed for each in options.reactions), default=0))
    batch_rows = settings.learning.batch_rows
    surroundings = Surroundings(controls, export, rows, batch_rows, settings.name)
    chain = Chain([(each, REACTIONS[each.kind].load()(each, surroundings)) for each in options.reactions])
    return DriftMonitor(
        channels,
        chain,
        names=names,
        readings=readings_of(task.watched, len(readings)) if any(each.name != LOSS for each in channels) else None,
        rows=rows,
        sound=sound_readings,
        every_samples=-(-options.review_every_samples // batch_rows) * batch_rows,
    )
