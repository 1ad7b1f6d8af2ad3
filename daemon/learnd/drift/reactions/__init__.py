"""Reactions to drift."""

from learnd.core.registry import Registration
from learnd.drift.reactions.settings import LogSettings, RaiseRateSettings

REACTIONS = {
    "log": Registration(LogSettings, "learnd.drift.reactions.log:Log"),
    "raise_rate": Registration(RaiseRateSettings, "learnd.drift.reactions.raise_rate:RaiseRate"),
}
"""Reactions by the value of ``kind`` in ``drift.reactions``."""
