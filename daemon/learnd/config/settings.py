"""Every setting, by section; what a checkpoint depends on, and what an exporting process needs."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from learnd.averaging.settings import AnyAverager, WindowSettings
from learnd.core.settings_base import Count, Positive, Section
from learnd.decoders.settings import AnyDecoder
from learnd.export.settings import ExportSettings
from learnd.learners.settings import AnyLearner, PerSampleSettings
from learnd.models.settings import AnyModel
from learnd.sinks.settings import SinkSettings
from learnd.sources.settings import AnySource
from learnd.tasks.settings import (
    AnyTask,
    RegressionSettings,
)


class FeatureSettings(Section):
    """What is known of one feature: a reading that does not fit is a fault of its sensor."""

    min: float | None = None
    """A reading below is a fault."""
    max: float | None = None
    """A reading above is a fault."""
    missing: float | None = None
    """Stands in for a missing field or a null, a reading like any other. Absent: such a record is rejected."""
    max_change: Positive | None = None
    """A reading further from its key's last good one is a fault, until `recover_after` others make a new level."""
    stuck_after: Annotated[int, Field(ge=2)] | None = None
    """Of so many equal readings of a key in a row the last, and every further one, is a fault."""
    recover_after: Annotated[int, Field(ge=2)] = 100
    """So many readings in a row, each within `max_change` of the one before, are a new level and no fault."""
    on_fault: Literal["reject", "hold", "mean"] = "reject"
    """The record goes to the dead letters; or the key's last good reading, or the mean of those, stands in."""

    @property
    def has_rule(self) -> bool:
        return any(bound is not None for bound in (self.min, self.max, self.max_change, self.stuck_after))


class CheckpointSettings(Section):
    """When the state is saved, and how many saves are kept."""

    every_seconds: Positive | None = 30.0
    """Whichever of the two comes first; null: that one never."""
    every_samples: Count | None = None
    """Learned samples from one checkpoint to the next."""
    keep: Annotated[int, Field(ge=2)] = 5
    """The newest so many. At least two: the older one stays until the newer is known to be on disk."""
    max_failures: Count | None = 3
    """So many failures in a row end learning with exit code 70; null: never, learning goes on without a net."""
    retry_seconds: Positive = 10.0
    """After a failure the next attempt is due so much later, whatever the other two say."""


class HttpSettings(Section):
    """Where metrics and health are served."""

    host: str = "127.0.0.1"
    """The address that is listened on; there is neither a password nor TLS."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """0 takes any free port and logs it."""


class ScalingSettings(Section):
    """Whether numbers are standardised online on their way into the model, and back on their way out.

    Absent: online, but not for a model that is loaded, which was trained on numbers as it got them. A new head has no
    units yet, so what it is to give is scaled.
    """

    inputs: Literal["online", "none"] | None = None
    """Absent: `online`, but `none` for a loaded model."""
    target: Literal["online", "none"] | None = None
    """Absent: `online`, but `none` for a loaded model that keeps its head."""


class ModelRecipe(Section):
    """What the network is built from."""

    seed: int = 0
    """Of the first weights, and of whatever is drawn while learning."""
    features: Annotated[dict[str, FeatureSettings], Field(min_length=1)]
    """Names, as a list or as a mapping with options; their order is the order of the model's inputs."""
    target: list[str] = []
    """What a regression predicts, one name or several; or the one field with the class. Else absent."""
    task: AnyTask = RegressionSettings(kind="regression")
    """What is predicted from what."""
    model: AnyModel
    """What learns: built in, made by your code, or loaded."""
    scaling: ScalingSettings = ScalingSettings()
    """Standardisation of numbers on their way into the model and out of it."""

    @property
    def scale_inputs(self) -> bool:
        return (self.scaling.inputs or ("none" if self.model.load is not None else "online")) == "online"

    @property
    def scale_target(self) -> bool:
        kept = self.model.load is not None and self.model.head is None
        return (self.scaling.target or ("none" if kept else "online")) == "online"

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.features)

    @property
    def target_count(self) -> int:
        """Numbers in one target row."""
        return self.task.target_count(len(self.features), len(self.target))

    @property
    def output_count(self) -> int:
        """Numbers in one prediction."""
        return self.task.output_count(len(self.features), len(self.target))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the numbers in a prediction."""
        return self.task.output_names(self.feature_names, self.target)

    @field_validator("features", mode="before")
    @classmethod
    def _features_by_name(cls, value: Any) -> Any:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            repeated = sorted({name for name in value if value.count(name) > 1})
            if repeated:
                raise ValueError(f"names stand twice: {', '.join(repeated)}")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("target", mode="before")
    @classmethod
    def _one_target(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class LearningRecipe(ModelRecipe):
    """What an exporting process needs to build the network and its update; holds no secret."""

    learning: AnyLearner = PerSampleSettings(mode="per_sample")
    """How each update goes."""


class Settings(LearningRecipe):
    """Everything that ``learnd run`` needs to know."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "learnd"
    """Labels logs, metrics and exports."""
    data_dir: Path = Path("data")
    """Holds checkpoints, exports and the lock; one daemon at a time."""
    source: AnySource
    """Where records come from."""
    decode: AnyDecoder
    """How a record becomes numbers. Absent: `csv` for a CSV file, else `json`."""
    averaging: AnyAverager = WindowSettings(kind="window")
    """Of the weights; what is exported are the averaged ones."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """When the state is saved."""
    export: ExportSettings = ExportSettings()
    """What is published, and when."""
    dead_letter: SinkSettings | None = None
    """Where rejected records go, whole. Absent: they are counted and logged only."""
    predictions: SinkSettings | None = None
    """Where each sample's origin, key, time, prediction, truth, and scores of live and averaged weights go."""
    http: HttpSettings = HttpSettings()
    """For Prometheus, and for whatever watches over the process."""

    def fingerprint(self) -> dict[str, Any]:
        """The part of the settings that a checkpoint's arrays depend on; it may not change under them."""
        wanted = {"features", "target", "task", "model", "scaling", "averaging"}
        values = self.model_dump(mode="json", include=wanted)
        # Omit defaults, so that adding an option does not invalidate existing checkpoints.
        brief = self.model_dump(mode="json", include={"model", "scaling"}, exclude_defaults=True)
        values["features"] = list(self.features)
        values["task"] = self.task.fingerprint()
        values["model"] = {"kind": self.model.kind, **brief["model"]}
        values["scaling"] = brief.get("scaling", {})
        values["learning"] = self.learning.fingerprint(loaded=self.model.load is not None)
        values["source"] = self.source.fingerprint()
        return values

    def digest(self) -> str:
        """SHA-256 of the settings, in hex; secrets do not enter it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
