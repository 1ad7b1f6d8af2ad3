"""Settings of the alarms."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from learnd.core.settings_base import Count, Positive, Section

DAY_S = 86_400.0
_SECONDS = {"hour": 3600.0, "day": DAY_S, "week": 7 * DAY_S}


class StopSettings(Section):
    """A planned stop: an interval of event time."""

    from_time: Annotated[datetime, Field(alias="from")]
    """Its beginning, in ISO 8601; UTC unless it names a zone."""
    to_time: Annotated[datetime, Field(alias="to")]
    """Its end, which is not part of it."""

    @model_validator(mode="after")
    def _in_order(self) -> "StopSettings":
        if self.seconds[0] >= self.seconds[1]:
            raise ValueError("from must be before to")
        return self

    @property
    def seconds(self) -> tuple[float, float]:
        """The beginning and the end, in seconds since 1970 UTC."""
        first, last = (
            moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (self.from_time, self.to_time)
        )
        return first.timestamp(), last.timestamp()


class SuppressSettings(Section):
    """Readings that raise no alarm: those of a feature, of a key, or of a feature of a key."""

    feature: str | None = None
    """Name of a feature or a target. Absent: all of them."""
    key: str | None = None
    """A key. Absent: all keys."""

    @model_validator(mode="after")
    def _names_something(self) -> "SuppressSettings":
        if self.feature is None and self.key is None:
            raise ValueError("name a feature, a key or both; to switch all alarms off, set alarms.enabled to false")
        return self


class AlarmSettings(Section):
    """Alarms: whether something begins that was never seen (onset), and whether it is still not normal (state)."""

    enabled: bool = True
    """False: no alarms, and no fields for them in the predictions."""
    false_alarms_per: Literal["hour", "day", "week"] | Annotated[int, Field(ge=100)] | None = None
    """The accepted rate of false alarms, for each key and each of the two heads. A number N means one in N readings of
    a key. `hour`, `day` and `week` mean one per hour, day or week of event time. The thresholds are then adapted
    continuously. Absent: the thresholds are fixed."""
    learning: Literal["hold", "learn", "weigh"] | None = None
    """Learning of a sample while its key is in alarm: not at all (`hold`), like others (`learn`), or with
    `held_weight` (`weigh`). Absent: `hold` for a forecast or a reconstruction; `learn` for other tasks, because a
    truth that has changed must be learned."""
    held_weight: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Weight of a sample in alarm with `learning: weigh`."""
    accept_after: Count = 5000
    """Number of consecutive readings in alarm after which the current level is accepted as the new normal level."""
    minimum_readings: Count = 1
    """Consecutive readings beyond the threshold before an alarm of the state head begins."""
    cool_down_readings: Count = 20
    """Consecutive readings near normal before it ends."""
    warm_up: Annotated[int, Field(ge=50)] = 300
    """Readings of a key before its first onset alarm. The state head takes 400."""
    periods_s: Annotated[list[Positive], Field(max_length=4)] = [DAY_S]
    """Lengths of cycles in the readings, in seconds of event time: a day, a shift, a week, a machine's cycle. A reading
    is compared with the usual one at its part of each cycle. Empty: there is no cycle."""
    planned_stops: list[StopSettings] = []
    """Planned stops. Their records are predicted, and neither learned nor watched."""
    planned_stop_field: str | None = None
    """Field of the record that marks a planned stop: true, or a number other than 0. A record without it is not in
    one."""
    suppress: list[SuppressSettings] = []
    """Readings that raise no alarm."""
    max_keys: Count = 1000
    """Maximum number of keys that are watched. A new key then replaces the one that was seen least recently. One key
    takes about 10 kB for each feature, in memory and in checkpoints."""

    @property
    def per_readings(self) -> float:
        """The readings in which one false alarm is accepted; 0 if it is a time, or if thresholds are fixed."""
        return float(self.false_alarms_per) if isinstance(self.false_alarms_per, int) else 0.0

    @property
    def per_seconds(self) -> float:
        """The time in which one false alarm is accepted, in seconds; 0 if it is a number of readings, or not given."""
        return _SECONDS[self.false_alarms_per] if isinstance(self.false_alarms_per, str) else 0.0
