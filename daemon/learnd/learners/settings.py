"""Options of the learners and their optimizer."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from learnd.section import Count, Positive, Section


class OptimizerSettings(BaseModel):
    """Any Keras optimizer by name; further keys are its own arguments, checked by Keras when it is built."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = "adam"
    learning_rate: Positive | dict[str, Any] = 0.001
    """A number, or a Keras schedule: ``{kind: ExponentialDecay, initial_learning_rate: 0.01, ...}``."""
    global_clipnorm: Positive | None = 5.0
    """One surprising sample moves the weights by no more than this gradient norm allows."""

    def arguments(self) -> dict[str, Any]:
        """What Keras' optimizer takes beside the learning rate."""
        return {"global_clipnorm": self.global_clipnorm, **(self.model_extra or {})}


class _Common(Section):
    threads: Count = 1
    """Processor cores for one update. One is best up to some 100 000 weights: more cost time and gain none."""


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
