"""Options of the tasks: what is predicted from what."""

from typing import Annotated, Literal

from pydantic import Field

from learnd.section import Count, Positive, Section


class _Windowed(Section):
    max_gap_s: Positive | None = None
    """A longer silence of a key starts its window afresh, so that no window spans it."""
    duplicates: Literal["drop", "keep"] = "drop"
    """A reading that is not newer than its key's last one is left out, or taken as it comes; needs `decode.time`."""
    max_keys: Count = 100_000
    """Readings of further keys are left out, to bound memory."""


class RegressionSettings(_Windowed):
    """The target from the features, or from the last `window` readings of the key."""

    kind: Literal["regression"]
    window: Count | None = None


class ReconstructionSettings(_Windowed):
    """The features from themselves through a bottleneck; the error is the anomaly score."""

    kind: Literal["reconstruction"]
    window: Count | None = None


class ForecastSettings(_Windowed):
    """The next reading of a key from its last `window` readings, as a change from the last one."""

    kind: Literal["forecast"]
    window: Annotated[int, Field(ge=2)] = 24


AnyTask = Annotated[RegressionSettings | ReconstructionSettings | ForecastSettings, Field(discriminator="kind")]
