"""Averages of the model's weights over time."""

from learnd.averaging.settings import EmaSettings, NoneSettings, WindowSettings
from learnd.core.registry import Registration

AVERAGERS = {
    "window": Registration(WindowSettings, "learnd.averaging.window:WindowAverager"),
    "ema": Registration(EmaSettings, "learnd.averaging.ema:EmaAverager"),
    "none": Registration(NoneSettings, "learnd.averaging.none:NoAverager"),
}
"""Averagers by the value of ``averaging.kind``."""
