"""Settings of the reactions to drift."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

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
    needs_constant_rate: ClassVar[bool] = False
    """True if a learning rate that follows a schedule leaves nothing to do; the same for the next two."""
    needs_replay: ClassVar[bool] = False
    needs_averages: ClassVar[bool] = False

    @property
    def rows_needed(self) -> int:
        """The number of newest learned rows that this reaction needs."""
        return 0

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
    needs_constant_rate: ClassVar[bool] = True
    factor: Positive = 5.0
    """Factor on the learning rate."""
    samples: Count = 3000
    """Number of samples until the rate is the configured one again."""


class ResetSlotsSettings(ReactionSettings):
    """An optimizer without the memory of earlier gradients, such as Adam's moments."""

    kind: Literal["reset_slots"]
    changes_model: ClassVar[bool] = True


class WeighReplaySettings(ReactionSettings):
    """Less weight for the samples that are replayed, or none of them. In the mode `auto`, those of the reservoir."""

    kind: Literal["weigh_replay"]
    changes_model: ClassVar[bool] = True
    needs_replay: ClassVar[bool] = True
    weight: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Factor on the weights of stored samples. 0: remove them; in the mode `auto` the newest ones take their place."""


class RestartAveragesSettings(ReactionSettings):
    """Averages of the weights that begin again, and are short at first."""

    kind: Literal["restart_averages"]
    changes_model: ClassVar[bool] = True
    needs_averages: ClassVar[bool] = True


class HastenScalesSettings(ReactionSettings):
    """Scales of inputs and targets that follow faster. They slow down again as new readings come."""

    kind: Literal["hasten_scales"]
    changes_model: ClassVar[bool] = True
    memory_samples: Count = 100
    """Number of readings that the scales count as, at most, from the reaction on."""


class GoBackSettings(ReactionSettings):
    """The weights of an earlier time, if they predict the newest samples better. For states that come again."""

    kind: Literal["go_back"]
    changes_model: ClassVar[bool] = True
    copies: Annotated[int, Field(ge=1, le=20)] = 3
    """Number of copies of the weights, in memory and in the checkpoint."""
    copy_every_samples: Count = 10_000
    """Number of samples from one copy to the next. A copy holds what an export would have held then."""
    samples: Count = 200
    """Number of newest samples on which the copies are evaluated."""
    better_by: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share by which the loss of a copy must be smaller than that of the present weights."""

    @property
    def rows_needed(self) -> int:
        """The samples on which copies are evaluated."""
        return self.samples


class ChallengerSettings(ReactionSettings):
    """A learner that begins again after the drift, and takes the place of the present one if it predicts better."""

    kind: Literal["challenger"]
    changes_model: ClassVar[bool] = True
    samples: Annotated[int, Field(ge=8)] = 256
    """Number of samples after the drift that the first challenger learns. It is compared on the newer half of them.
    The next ones come after twice as many samples each."""
    last_samples: Annotated[int, Field(ge=8)] = 2048
    """Number of samples that the last challenger may learn. They are in memory and in the checkpoint."""
    passes: Annotated[int, Field(ge=1, le=100)] = 32
    """Number of times that a challenger learns the older half, within one review."""
    better_by: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share by which its loss must be smaller than that of the present learner."""

    @model_validator(mode="after")
    def _in_order(self) -> "ChallengerSettings":
        if self.last_samples < self.samples:
            raise ValueError(f"last_samples is {self.last_samples}, less than samples, {self.samples}")
        return self

    @property
    def rows_needed(self) -> int:
        """The samples that the last challenger learns."""
        return self.last_samples


class ExportNowSettings(ReactionSettings):
    """An export as soon as possible. It has to pass the gate, as every export."""

    kind: Literal["export_now"]


class WebhookSettings(ReactionSettings):
    """A POST request with the drift as a JSON object, at least once."""

    kind: Literal["webhook"]
    url: SecretStr
    """The address, `https://` or `http://`. It is treated as a secret, because it may hold a token."""
    timeout_s: Positive = 10.0
    """Longest wait for an answer, in seconds."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 8
    """Number of attempts, with pauses of 1, 2, 4 ... seconds, until a request is given up."""

    @field_validator("url")
    @classmethod
    def _is_http(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("https://", "http://")):
            raise ValueError("url must begin with https:// or http://")
        return value


AnyReaction = Annotated[
    LogSettings
    | RaiseRateSettings
    | ResetSlotsSettings
    | WeighReplaySettings
    | RestartAveragesSettings
    | HastenScalesSettings
    | GoBackSettings
    | ChallengerSettings
    | ExportNowSettings
    | WebhookSettings,
    Field(discriminator="kind"),
]
