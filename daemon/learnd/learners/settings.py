"""Options of the learners and their optimizer."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from learnd.core.settings_base import Address, Count, Positive, Section

OPTIMIZERS = (
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "Muon",
    "Nadam",
    "RMSprop",
    "SGD",
    "ScheduleFreeAdamW",
)
SCHEDULES = (
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
)
LOSSES = (
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "categorical_hinge",
    "cosine_similarity",
    "hinge",
    "huber",
    "kl_divergence",
    "log_cosh",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_error",
    "mean_squared_logarithmic_error",
    "poisson",
    "sparse_categorical_crossentropy",
    "squared_hinge",
)
ALIASES = {
    "bce": "binary_crossentropy",
    "kld": "kl_divergence",
    "mae": "mean_absolute_error",
    "mape": "mean_absolute_percentage_error",
    "mse": "mean_squared_error",
    "msle": "mean_squared_logarithmic_error",
}
"""Keras' names, kept here so that `learnd validate` checks them without importing Keras; a test compares the two."""


def _canonical(name: str, known: Sequence[str], what: str) -> str:
    """*name* as Keras writes it, whatever its case.

    >>> _canonical("rmsprop", OPTIMIZERS, "optimizer"), _canonical("MeanSquaredError", LOSSES, "loss")
    ('RMSprop', 'mean_squared_error')
    """
    by_lower = {entry.lower().replace("_", ""): entry for entry in known}
    if (found := by_lower.get(name.lower().replace("_", ""))) is not None:
        return found
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"{name!r} is no Keras {what}; {hint}")


class OptimizerSettings(BaseModel):
    """Any Keras optimizer by name, or the user's own; further keys are its arguments, checked when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str = "Adam"
    """A name of Keras', in any case, or `package.module:Class`. Further keys are its arguments."""
    learning_rate: Positive | dict[str, Any] = 0.001
    """A number, or a Keras schedule: `{kind: ExponentialDecay, initial_learning_rate: 0.01, ...}`."""
    global_clipnorm: Positive | None = 5.0
    """One surprising sample moves the weights by no more than this gradient norm allows; null: without bound."""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if ":" in value else _canonical(value, OPTIMIZERS, "optimizer")

    @model_validator(mode="after")
    def _plain_arguments(self) -> "OptimizerSettings":
        for name, value in (self.model_extra or {}).items():
            if not isinstance(value, int | float | None):
                raise ValueError(f"{name} is {value!r}; an optimizer's own arguments are numbers, true or false")
        return self

    @field_validator("learning_rate")
    @classmethod
    def _known_schedule(cls, value: float | dict[str, Any]) -> float | dict[str, Any]:
        if isinstance(value, dict):
            return {**value, "kind": _canonical(str(value.get("kind")), SCHEDULES, "schedule")}
        return value

    def arguments(self) -> dict[str, Any]:
        """What Keras' optimizer takes beside the learning rate."""
        return {"global_clipnorm": self.global_clipnorm, **(self.model_extra or {})}


class ReplaySettings(Section):
    """Samples seen before are mixed into every update, against forgetting; all of them are in the checkpoint."""

    kind: Literal["reservoir", "recency"] = "reservoir"
    """An even choice from everything since the beginning, or the newest."""
    size: Count = 1000
    """Samples that are kept."""
    ratio: Positive = 1.0
    """Replayed samples for each new one."""


class LearningSettings(Section):
    """The options and answers that all learners share."""

    mode: str
    threads: Count = 1
    """Threads for one update. One is best for a small network; at a million weights two were 1.7 times faster."""
    compile: bool = True
    """Off: without XLA, for layers that it cannot compile; many times slower."""
    optimizer: OptimizerSettings | None = None
    """Absent: the one that a loaded model brings, else Adam."""
    loss: str | None = None
    """A Keras name or `package.module:object`; absent: the loaded or made model's own, else what fits the task."""
    sample_weight: str | None = None
    """The field that says how much a sample counts, from 0 to 10^6."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """How much the samples of each class count; `balanced`: the rarer so far, the more."""
    passes: Annotated[int, Field(ge=1, le=64)] = 1
    """Updates in a row on the same samples."""
    replay: ReplaySettings | None = None
    """Mixes samples of before into every update, against forgetting."""
    elastic: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """After each update the weights move this share of the way to their average."""
    layer_rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factors on the updates of layers by name (`*` and `?` as in file names): a learning rate per group."""
    max_step: Positive | None = 1.0
    """An update whose steps are larger (root mean square over all weights) is refused, as one that is not finite is."""
    max_refused: Count | None = 100
    """After so many refusals in a row the weights go back to their average; null: never."""
    update: Address | None = None
    """The user's own update, `package.module:function`, called with model, optimizer, x, y; returns the loss."""

    @property
    def batch_rows(self) -> int:
        """Samples per update."""
        return 1

    @property
    def weighted(self) -> bool:
        """Whether samples count differently."""
        return self.sample_weight is not None or self.class_weights is not None

    def fingerprint(self, *, loaded: bool) -> dict[str, Any]:
        """Return what a checkpoint's arrays depend on.

        A *loaded* model may bring an optimizer of its own; otherwise no optimizer means the default one.
        """
        default = None if loaded else OptimizerSettings().kind
        values: dict[str, Any] = {"mode": self.mode, "optimizer": self.optimizer.kind if self.optimizer else default}
        if self.batch_rows > 1:
            values["batch_size"] = self.batch_rows
        if self.replay is not None:
            values["replay"] = {"size": self.replay.size}
        return values

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | None) -> str | None:
        return value if value is None or ":" in value else _canonical(ALIASES.get(value.lower(), value), LOSSES, "loss")


class PerSampleSettings(LearningSettings):
    """One update per sample, in the exact order of arrival."""

    mode: Literal["per_sample"]


class MicroBatchSettings(LearningSettings):
    """One update per `batch_size` samples; an incomplete micro-batch waits for its last ones."""

    mode: Literal["micro_batch"]
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    """Samples per update; an incomplete group waits, in the checkpoint too, until it is full."""

    @property
    def batch_rows(self) -> int:
        """Samples per update."""
        return self.batch_size


AnyLearner = Annotated[PerSampleSettings | MicroBatchSettings, Field(discriminator="mode")]
