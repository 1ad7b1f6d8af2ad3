"""Options of the averagers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from learnd.core.settings_base import Count, Section


class WindowSettings(Section):
    """The uniform mean of the last `size` snapshots of the weights."""

    kind: Literal["window"]
    averages: ClassVar[bool] = True
    size: Count = 20
    """Snapshots."""
    every_samples: Count = 100
    """Learned samples from one snapshot to the next."""
    warmup: Annotated[float, Field(gt=0, le=1)] = 0.5
    """While young, average over this share of all snapshots so far: the oldest are hardly trained."""


class EmaSettings(Section):
    """An exponential moving average of the weights; costs one copy of the weights rather than `size`."""

    kind: Literal["ema"]
    averages: ClassVar[bool] = True
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """What remains of the average at each snapshot."""
    every_samples: Count = 100
    """Learned samples from one snapshot to the next."""


class NoneSettings(Section):
    """No averaging: the live weights are published."""

    kind: Literal["none"]
    averages: ClassVar[bool] = False


AnyAverager = Annotated[WindowSettings | EmaSettings | NoneSettings, Field(discriminator="kind")]
