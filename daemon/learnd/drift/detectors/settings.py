"""Settings of the drift detectors."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from learnd.core.settings_base import Count, Positive, Section

LOSS = "loss"
FEATURES = "features"
"""Names in `on` that stand for the loss of the live weights, and for all readings."""


class DetectorSettings(Section):
    """The options of all detectors. A detector gets one number per block of samples."""

    kind: str
    on: Annotated[list[str], Field(min_length=1)] = [LOSS]
    """Observed series: `loss` (of the live weights), `features` (each reading), or names of features and targets."""
    block: Count = 16
    """Number of samples in a block. Each gives the detector one number, in spreads of earlier blocks."""
    statistic: Literal["mean", "spread"] = "mean"
    """The number that stands for a block: its mean, or the standard deviation within it. `spread` needs blocks of at
    least 8 samples."""
    direction: Literal["up", "down", "both"] | None = None
    """Changes that count as drift. Absent: `up` for the loss, `both` for readings. After other changes the detector
    begins again and says nothing."""

    least_change: Annotated[float, Field(ge=0)] = 0.2
    """Smallest change of the loss that counts, as a share of the loss before. A detector finds the smallest difference
    that is significant, however little it matters. Readings have no such limit: their zero means nothing."""

    least_block: ClassVar[int] = 8

    @field_validator("on", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_spread(self) -> "DetectorSettings":
        if self.statistic == "spread" and self.block < self.least_block:
            raise ValueError(f"statistic: spread needs block: {self.least_block} or more, not {self.block}")
        return self


class AdwinSettings(DetectorSettings):
    """ADWIN (Bifet and Gavaldà, 2007): compares the means of all older and newer parts of a growing window."""

    kind: Literal["adwin"]
    delta: Annotated[float, Field(gt=0, lt=1)] = 0.002
    """Significance of a difference. A smaller one means fewer false alarms and a longer delay."""
    clock: Count = 1
    """Number of blocks between two comparisons."""


class PageHinkleySettings(DetectorSettings):
    """The test of Page and Hinkley (1954): sums the deviations from the mean so far. Fast and cheap."""

    kind: Literal["page_hinkley"]
    delta: Annotated[float, Field(ge=0)] = 0.5
    """Deviation that is allowed, in spreads of a block."""
    threshold: Positive = 30.0
    """Sum of deviations beyond that, in spreads, at which there is drift."""
    minimum_blocks: Count = 30
    """Number of blocks before the first detection."""


class KswinSettings(DetectorSettings):
    """The Kolmogorov-Smirnov test of the newest numbers against older ones (Raab et al., 2020).

    It sees any change of a distribution. One number takes 0.2 ms, so small blocks slow learning down.
    """

    kind: Literal["kswin"]
    alpha: Annotated[float, Field(gt=0, lt=0.1)] = 0.00001
    """Significance of a difference."""
    window: Annotated[int, Field(ge=20, le=10_000)] = 100
    """Number of blocks that are remembered."""
    newest: Annotated[int, Field(ge=5)] = 30
    """Number of newest blocks, which are compared with as many older ones."""

    @model_validator(mode="after")
    def _fits(self) -> "KswinSettings":
        if 2 * self.newest > self.window:
            raise ValueError(f"newest is {self.newest}; it can be at most half of window, {self.window // 2}")
        return self


AnyDetector = Annotated[AdwinSettings | PageHinkleySettings | KswinSettings, Field(discriminator="kind")]
