"""Options of the learners and their optimizer."""

import difflib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from learnd.section import Count, Positive, Section

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
"""Keras' names, kept here so that `learnd validate` checks them without importing Keras; a test compares the two."""


def _canonical(name: str, known: Sequence[str], what: str) -> str:
    """*name* as Keras writes it, whatever its case.

    >>> _canonical("rmsprop", OPTIMIZERS, "optimizer")
    'RMSprop'
    """
    by_lower = {entry.lower(): entry for entry in known}
    if (found := by_lower.get(name.lower())) is not None:
        return found
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"{name!r} is no Keras {what}; {hint}")


class OptimizerSettings(BaseModel):
    """Any Keras optimizer by name; further keys are its own arguments, checked by Keras when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = "Adam"
    learning_rate: Positive | dict[str, Any] = 0.001
    """A number, or a Keras schedule: ``{kind: ExponentialDecay, initial_learning_rate: 0.01, ...}``."""
    global_clipnorm: Positive | None = 5.0
    """One surprising sample moves the weights by no more than this gradient norm allows."""

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return _canonical(value, OPTIMIZERS, "optimizer")

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


class _Common(Section):
    threads: Count = 1
    """Threads for one update. One is best for a small network; at a million weights two were 1.7 times faster."""


class PerSampleSettings(_Common):
    """One update per sample, in the exact order of arrival."""

    mode: Literal["per_sample"]
    optimizer: OptimizerSettings = OptimizerSettings()


class MicroBatchSettings(_Common):
    """One update per `batch_size` samples; an incomplete micro-batch waits for its last ones."""

    mode: Literal["micro_batch"]
    batch_size: Annotated[int, Field(ge=2, le=1024)] = 32
    optimizer: OptimizerSettings = OptimizerSettings()


AnyLearner = Annotated[PerSampleSettings | MicroBatchSettings, Field(discriminator="mode")]
