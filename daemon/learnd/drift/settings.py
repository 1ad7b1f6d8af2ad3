"""Settings of the section ``drift``."""

from learnd.core.settings_base import Count, Section
from learnd.drift.detectors.settings import AdwinSettings, AnyDetector
from learnd.drift.reactions.settings import AnyReaction, LogSettings


class DriftSettings(Section):
    """Drift: detectors on the loss and on the readings, and what is done when they find something."""

    enabled: bool = True
    """False: no detectors."""
    detectors: list[AnyDetector] = [AdwinSettings(kind="adwin")]
    """The detectors. Absent: `adwin` on the loss. What is in alarm, faulty, held or in a planned stop is not shown to
    them."""
    reactions: list[AnyReaction] = [LogSettings(kind="log")]
    """Reactions to a drift, in this order. Absent: `log`. Each drift is also counted and goes to `alarm_sink`."""
    review_every_samples: Count = 256
    """Number of learned samples between two reviews, at which reactions are made. So they fall on the same samples
    however the stream is cut."""

    @property
    def changes_model(self) -> bool:
        """True if any reaction changes the model or its update."""
        return any(reaction.changes_model for reaction in self.reactions)
