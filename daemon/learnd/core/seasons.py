"""Seasonal inputs: where a moment lies within a day, a week or another period. Quick to import: no NumPy."""

from dataclasses import dataclass

DAY_S, WEEK_S = 86_400.0, 604_800.0
_MONDAY_S = 345_600.0
"""The first Monday of 1970, 00:00 UTC, in seconds since 1970: the origin of a week."""


@dataclass(frozen=True, slots=True)
class Season:
    """One seasonal input. Its column holds the seconds since the period began; the model turns it into sine and cosine.

    The column, not the time itself, is the input of an export: float32 holds 1.7e9 seconds to 128 s only, but the
    seconds of a week to 0.06 s.

    Attributes
    ----------
    name : name of the input
    period_s : length of the period
    origin_s : a moment at which a period begins, in seconds since 1970 UTC
    time : field of the record with the time; None: the record's own time
    """

    name: str
    period_s: float
    origin_s: float = 0.0
    time: str | None = None


def season(name: str, period_s: float, time: str | None = None) -> Season:
    """Return the season of that period. Weeks begin on Monday, and all other periods with 1970, at 00:00 UTC.

    >>> season("weekday", WEEK_S).origin_s, season("hour", DAY_S).origin_s
    (345600.0, 0.0)
    """
    return Season(name, period_s, _MONDAY_S if period_s == WEEK_S else 0.0, time)
