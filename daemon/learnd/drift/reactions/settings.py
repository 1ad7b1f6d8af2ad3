"""Settings of the reactions to drift."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from learnd.core.settings_base import Count, Positive, Section
from learnd.drift.detectors.settings import FEATURES, LOSS


class ReactionSettings(Section):
    """The options of all reactions: what they follow, and how often. All counts are of learned samples."""

    kind: str
    on: Annotated[list[str], Field(min_length=1)] = [LOSS, FEATURES]
    """Drifts that this follows: of the `loss`, of all `features`, or of the named features and targets."""
    from_detection: Count = 1
    """Follow only the n-th of several drifts within `within_samples`, and later ones. So harder reactions can wait."""
    cool_down_samples: Annotated[int, Field(ge=0)] = 0
    """Samples after this reaction in which it is not repeated."""
    at_most: Count | None = None
    """Number of times within `within_samples` that this reaction is made at most. Absent: no limit."""
    within_samples: Count = 100_000
    """Samples in which drifts and reactions are counted for `from_detection` and `at_most`."""

    changes_model: ClassVar[bool] = False
    """True if the reaction changes the model or its update. Learning then pauses at fixed sample counts."""

    @field_validator("on", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class LogSettings(ReactionSettings):
    """A line in the log."""

    kind: Literal["log"]
    level: Literal["info", "warning", "error"] = "warning"
    """Level of the line."""


class RaiseRateSettings(ReactionSettings):
    """A higher learning rate for some time."""

    kind: Literal["raise_rate"]
    changes_model: ClassVar[bool] = True
    factor: Positive = 5.0
    """Factor on the learning rate."""
    samples: Count = 1000
    """Number of samples until the rate is the configured one again."""


AnyReaction = Annotated[LogSettings | RaiseRateSettings, Field(discriminator="kind")]
