"""The figures of a detector on a stream: anomalies found and when, and alarms that were false."""

from typing import Any

import numpy as np

from tests.bench.anomaly_rivals import REFRACTORY, Flags
from tests.bench.anomaly_streams import Anomaly, Watched

Figures = dict[str, Any]
SETTLED = 400
"""Rows of a key before alarms count: learnd's own warm-up."""
AFTER = 32
"""Rows after an anomaly in which an alarm still belongs to it, as the medians and means of detectors last."""
RETURNING = 150
"""Rows after an anomaly, and `ADAPTING` rows after a change, in which an alarm is not called false."""
ADAPTING = 1000


def begins(flags: Flags) -> list[int]:
    """Return the rows at which alarms begin; flags within `REFRACTORY` rows of the last one belong to the same alarm.

    >>> begins(np.isin(np.arange(500), [5, 50, 300]))
    [5, 300]
    """
    rows = np.flatnonzero(flags)
    return rows[np.diff(rows, prepend=-2 * REFRACTORY) > REFRACTORY].tolist()


def _of_key(watched: Watched, key: str, anomalies: list[Anomaly]) -> list[Anomaly]:
    return [anomaly for anomaly in anomalies if anomaly.key == key]


def rows_by_key(watched: Watched) -> dict[str, np.ndarray[Any, Any]]:
    """Return the rows of each key."""
    if not watched.keys:
        return {"": np.arange(len(watched.x))}
    keys = np.array(watched.keys)
    return {key: np.flatnonzero(keys == key) for key in dict.fromkeys(watched.keys)}


def figures(watched: Watched, flags: Flags) -> Figures:
    """Return delays in readings by kind of anomaly (None: missed), false alarms, and the readings they are among."""
    delays: dict[str, list[int | None]] = {}
    false, normal = 0, 0
    for key, rows in rows_by_key(watched).items():
        starts = begins(flags[rows])
        anomalies, changes = (_of_key(watched, key, own) for own in (watched.anomalies, watched.changes))
        excused = np.arange(len(rows)) < SETTLED
        for anomaly in anomalies:
            inside = [start - anomaly.start for start in starts if anomaly.start <= start < anomaly.stop + AFTER]
            delays.setdefault(anomaly.kind, []).append(inside[0] if inside else None)
            excused[anomaly.start : anomaly.stop + RETURNING] = True
        for change in changes:
            excused[change.start : change.start + ADAPTING] = True
        false += sum(not excused[start] for start in starts)
        normal += int((~excused).sum())
    return {"delays": delays, "false": false, "normal": normal}


def held(watched: Watched, active: Flags, losses: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return, by kind of anomaly, what learnd's state head did while it lasted and after it.

    The share of its rows in alarm, which are not learned; the loss at its beginning, at its end and after it, in usual
    losses; and the rows from its end to the end of the alarm.
    """
    found: dict[str, Any] = {}
    usual = float(np.nanmedian(losses))
    for key, rows in rows_by_key(watched).items():
        own, own_losses = active[rows], losses[rows] / usual
        for anomaly in _of_key(watched, key, watched.anomalies):
            start, stop = anomaly.start, anomaly.stop
            tenth = max((stop - start) // 10, 1)
            off = np.flatnonzero(~own[stop:])
            row = [
                float(own[start:stop].mean()),
                float(np.nanmean(own_losses[start : start + tenth])),
                float(np.nanmean(own_losses[stop - tenth : stop])),
                float(np.nanmean(own_losses[stop + 70 : stop + 170])),
                float(off[0]) if len(off) else float("nan"),
            ]
            found.setdefault(anomaly.kind, []).append(row)
    return found
