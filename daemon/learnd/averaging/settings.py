"""Settings of the averagers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from learnd.core.settings_base import Count, Section


class WindowSettings(Section):
    """Uniform mean of the last `size` snapshots of the weights. Keeps `size` copies of the weights in memory."""

    kind: Literal["window"]
    averages: ClassVar[bool] = True
    size: Count = 20
    """Number of snapshots in the mean."""
    every_samples: Count = 100
    """Learned samples between two snapshots."""
    warmup: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Until the window is full, average only the newest part of the snapshots so far: this share of them, above 0 and
    at most 1. Leaves out the oldest snapshots, which are hardly trained."""


class EmaSettings(Section):
    """Exponential moving average of the weights. Keeps one copy of the weights in memory instead of `size`."""

    kind: Literal["ema"]
    averages: ClassVar[bool] = True
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Weight of the old average at each snapshot; the snapshot gets the rest. A higher value averages over more
    snapshots. The first snapshots use a lower one, (1 + k) / (10 + k) at snapshot k from 0, to forget the untrained
    weights."""
    every_samples: Count = 100
    """Learned samples between two snapshots."""


class NoneSettings(Section):
    """No averaging: the live weights are exported. With `learning.mode: auto`, the learner's own averages are."""

    kind: Literal["none"]
    averages: ClassVar[bool] = False


AnyAverager = Annotated[WindowSettings | EmaSettings | NoneSettings, Field(discriminator="kind")]
