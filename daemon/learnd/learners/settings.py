"""Options of the learners and their optimizer."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from learnd.core.names import suggestion
from learnd.core.settings_base import Address, Count, Positive, Section
from learnd.learners.keras_arguments import keras_arguments

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
"""Short names of losses. Keras' names are repeated here so that `learnd validate` need not import Keras; a test
compares them."""


def _canonical(name: str, known: Sequence[str], what: str) -> str:
    """Return *name* as Keras spells it; case and underscores do not matter.

    >>> _canonical("rmsprop", OPTIMIZERS, "optimizer"), _canonical("MeanSquaredError", LOSSES, "loss")
    ('RMSprop', 'mean_squared_error')
    """
    by_lower = {entry.lower().replace("_", ""): entry for entry in known}
    if (entry := by_lower.get(name.lower().replace("_", ""))) is not None:
        return entry
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]}?" if close else f"the names are {', '.join(known)}"
    raise ValueError(f"{name!r} is not a Keras {what}; {hint}")


def _unknown_argument(kind: str, name: str) -> str:
    """Return what is wrong with the argument *name* of Keras's *kind*; empty if nothing is, or nothing is known."""
    known = keras_arguments(kind)
    if not known or name in known:
        return ""
    hint = suggestion(name, sorted(known)) or f"; it takes {', '.join(sorted(known))}"
    return f"{kind} has no argument {name}{hint}"


class OptimizerSettings(BaseModel):
    """A Keras optimizer by name, or your own. Further keys are its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    kind: str = "Adam"
    """Name of a Keras optimizer, in any case, or `package.module:Class`. Further keys are its arguments."""
    learning_rate: Positive | dict[str, Any] = 0.001
    """Learning rate: a number, or a Keras schedule, `{kind: ExponentialDecay, initial_learning_rate: 0.01, ...}`."""
    global_clipnorm: Positive | None = 5.0
    """Maximum norm of the gradient over all weights, so that one surprising sample cannot move them far. null: no
    limit."""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return value if ":" in value else _canonical(value, OPTIMIZERS, "optimizer")

    @model_validator(mode="after")
    def _plain_arguments(self) -> "OptimizerSettings":
        for name, value in (self.model_extra or {}).items():
            if problem := _unknown_argument(self.kind, name):
                raise ValueError(problem)
            if not isinstance(value, int | float | None):
                raise ValueError(f"{name} is {value!r}; the arguments of an optimizer must be numbers, true or false")
        return self

    @field_validator("learning_rate")
    @classmethod
    def _known_schedule(cls, value: float | dict[str, Any]) -> float | dict[str, Any]:
        if isinstance(value, dict):
            kind = _canonical(str(value.get("kind")), SCHEDULES, "schedule")
            for name in value:
                if name != "kind" and (problem := _unknown_argument(kind, name)):
                    raise ValueError(problem)
            return {**value, "kind": kind}
        return value

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the optimizer besides the learning rate."""
        return {"global_clipnorm": self.global_clipnorm, **(self.model_extra or {})}


class ReplaySettings(Section):
    """Replay of earlier samples in every update, against forgetting. The stored samples are part of the checkpoint."""

    kind: Literal["reservoir", "recency"] = "reservoir"
    """Samples to store: a uniform random choice of all samples so far (`reservoir`), or the newest ones (`recency`)."""
    size: Count = 1000
    """Number of stored samples."""
    ratio: Positive = 1.0
    """Number of replayed samples per new sample."""


class ExpertSettings(Section):
    """Further experts for the mixture of a regression or a forecast."""

    upstream: dict[str, list[str]] = {}
    """Forecasts of the target that each record brings along, for example of a foundation model: a field, or names, each
    with its field, or with one field per number of a prediction. An absent field or a null is no forecast."""
    seasons: list[Annotated[int, Field(ge=2, le=1_000_000)]] = []
    """Periods of the stream in rows of a key, such as 24 and 168 for hourly rows: the value of one period ago."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a record that hold forecasts, expert by expert."""
        return tuple(name for fields in self.upstream.values() for name in fields)

    @field_validator("upstream", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if isinstance(value, str):
            return {value: [value]}
        if isinstance(value, dict):
            return {name: [fields] if isinstance(fields, str) else fields for name, fields in value.items()}
        return value

    @field_validator("seasons", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        return [value] if isinstance(value, int) else value

    @model_validator(mode="after")
    def _distinct(self) -> "ExpertSettings":
        if len(set(self.seasons)) < len(self.seasons):
            raise ValueError("seasons names a period more than once")
        return self


class LearningSettings(Section):
    """The options of all learners, and their properties for the wiring."""

    mode: str
    mixes: ClassVar[bool] = False
    """True if several learners answer together."""
    threads: Count = 1
    """Number of threads for one update. One is best for a small network; with a million weights, two were 1.7 times
    faster."""
    compile: bool = True
    """Compile with XLA. false is many times slower, and only for layers that XLA cannot compile."""
    optimizer: OptimizerSettings | None = None
    """Optimizer of the model. Absent: the one saved with a loaded model, otherwise Adam."""
    loss: str | None = None
    """Loss: a Keras name or `package.module:object`. Absent: the loss saved with a loaded model or compiled into your
    own, otherwise that of the task: the squared error, or cross-entropy for classes."""
    sample_weight: str | None = None
    """Field with the weight of a sample, from 0 to 10^6. Absent: all samples weigh 1."""
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weight of the samples of each class by its label (1 if not listed); `balanced`: inversely to the class's
    frequency so far. Absent: all samples weigh 1."""
    passes: Annotated[int, Field(ge=1, le=64)] = 1
    """Number of updates in a row on the same samples."""
    replay: ReplaySettings | None = None
    """Replay of earlier samples in every update, against forgetting. Absent: no replay."""
    elastic: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the way to their average that the weights move after each update. 0: off. Needs `averaging`."""
    layer_rates: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factors on the learning rate of layers, by their names, in which `*` and `?` are wildcards. The last match
    applies."""
    max_step: Positive | None = 1.0
    """Maximum root mean square of the steps of all weights. An update beyond it, or one that is not finite, is refused.
    null: refuse only updates that are not finite."""
    max_refused: Count | None = 100
    """Number of refusals in a row after which the weights are set back to their average. null: never."""
    experts: ExpertSettings = ExpertSettings()
    """Further experts for the mixture of the mode `auto`."""
    update: Address | None = None
    """Your own update, `package.module:function`. It is called with model, optimizer, x and y, and returns the loss."""

    @property
    def batch_rows(self) -> int:
        """The number of samples per update."""
        return 1

    @property
    def has_schedule(self) -> bool:
        """True if the configured learning rate follows a schedule."""
        return self.optimizer is not None and isinstance(self.optimizer.learning_rate, dict)

    @property
    def weighted(self) -> bool:
        """True if samples have different weights."""
        return self.sample_weight is not None or self.class_weights is not None

    def fingerprint(self, *, loaded: bool) -> dict[str, Any]:
        """Return the options that the arrays in a checkpoint depend on.

        Without a configured optimizer, a *loaded* model may have its own; any other model has the default one.
        """
        default = None if loaded else OptimizerSettings().kind
        values: dict[str, Any] = {"mode": self.mode, "optimizer": self.optimizer.kind if self.optimizer else default}
        if self.batch_rows > 1:
            values["batch_size"] = self.batch_rows
        if self.replay is not None:
            values["replay"] = {"size": self.replay.size}
        if self.experts != ExpertSettings():
            values["experts"] = {"upstream": list(self.experts.upstream), "seasons": self.experts.seasons}
        return values

    @field_validator("loss")
    @classmethod
    def _known_loss(cls, value: str | None) -> str | None:
        return value if value is None or ":" in value else _canonical(ALIASES.get(value.lower(), value), LOSSES, "loss")


class PerSampleSettings(LearningSettings):
    """One update per sample, in the exact order of arrival."""

    mode: Literal["per_sample"]


class AutoSettings(LearningSettings):
    """Several learners and simple rules side by side, weighted by how well they predict. Nothing has to be tuned.

    For built-in models that predict numbers or classes. Two copies of the network learn each sample together with
    replayed ones: the newest, and a choice of all so far. A linear model learns too. The prediction is a mixture of
    them, their averages, the last value and the mean. The averaged network that predicts best is published.
    """

    mode: Literal["auto"]
    mixes: ClassVar[bool] = True
    optimizer: OptimizerSettings | None = OptimizerSettings(learning_rate=0.005)
    """Optimizer of both networks."""


class MicroBatchSettings(LearningSettings):
    """One update per `batch_size` samples. An incomplete micro-batch waits for its last samples."""

    mode: Literal["micro_batch"]
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    """Number of samples per update. An incomplete group waits until it is full, also in the checkpoint."""

    @property
    def batch_rows(self) -> int:
        """The number of samples per update."""
        return self.batch_size


SINGLE_OPTIONS = ("optimizer", "passes", "replay", "elastic", "layer_rates", "update", "batch_size")
"""Options of a single learner. Naming one chooses that learner where no mode is named."""
AnyLearner = Annotated[AutoSettings | PerSampleSettings | MicroBatchSettings, Field(discriminator="mode")]
