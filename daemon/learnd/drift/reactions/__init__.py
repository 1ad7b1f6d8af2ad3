"""Reactions to drift."""

from learnd.core.registry import Registration
from learnd.drift.reactions.settings import (
    ChallengerSettings,
    ExportNowSettings,
    GoBackSettings,
    HastenScalesSettings,
    LogSettings,
    RaiseRateSettings,
    ResetSlotsSettings,
    RestartAveragesSettings,
    WebhookSettings,
    WeighReplaySettings,
)

REACTIONS = {
    "log": Registration(LogSettings, "learnd.drift.reactions.log:Log"),
    "raise_rate": Registration(RaiseRateSettings, "learnd.drift.reactions.raise_rate:RaiseRate"),
    "reset_slots": Registration(ResetSlotsSettings, "learnd.drift.reactions.reset_slots:ResetSlots"),
    "weigh_replay": Registration(WeighReplaySettings, "learnd.drift.reactions.weigh_replay:WeighReplay"),
    "restart_averages": Registration(
        RestartAveragesSettings, "learnd.drift.reactions.restart_averages:RestartAverages"
    ),
    "hasten_scales": Registration(HastenScalesSettings, "learnd.drift.reactions.hasten_scales:HastenScales"),
    "go_back": Registration(GoBackSettings, "learnd.drift.reactions.go_back:GoBack"),
    "challenger": Registration(ChallengerSettings, "learnd.drift.reactions.challenger:Challenger"),
    "export_now": Registration(ExportNowSettings, "learnd.drift.reactions.export_now:ExportNow"),
    "webhook": Registration(WebhookSettings, "learnd.drift.reactions.webhook:Webhook"),
}
"""Reactions by the value of ``kind`` in ``drift.reactions``."""
