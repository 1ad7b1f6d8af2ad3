"""Averages of the weights over time."""

from learnd.averaging.settings import EmaSettings, NoneSettings, WindowSettings
from learnd.core.settings_base import Component

AVERAGERS = {
    "window": Component(WindowSettings, "learnd.averaging.window:WindowAverager"),
    "ema": Component(EmaSettings, "learnd.averaging.ema:EmaAverager"),
    "none": Component(NoneSettings, "learnd.averaging.none:NoAverager"),
}
