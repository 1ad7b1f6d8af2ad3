"""All settings by section, with the subsets that a checkpoint and an exporting process depend on."""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator

from learnd.alarms.settings import AlarmSettings
from learnd.averaging.settings import AnyAverager, WindowSettings
from learnd.core.arrays import MOST_ELEMENTS, array_of
from learnd.core.seasons import DAY_S, WEEK_S, Season, season
from learnd.core.settings_base import Count, Positive, Section
from learnd.decoders.settings import AnyDecoder
from learnd.decoders.settings import Path as ValuePath
from learnd.drift.settings import DriftSettings
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
    """Plausibility limits for one feature, and what to do with a reading outside them."""

    min: float | None = None
    """A reading below this is a fault."""
    max: float | None = None
    """A reading above this is a fault."""
    path: ValuePath | None = None
    """Place of the value in a nested JSON record, such as `payload.after.temp`, `values[2]` or
    `metrics[name=temp].value`; see `decode.paths`. Absent: the field of this name at the top, dots and all."""
    secret: bool = False
    """true: no value of this feature is written to the log or quoted in a message. Dead letters hold whole records."""
    missing: float | Literal["mean", "reject"] | None = None
    """Action on an empty cell, a null, NaN, or one of `decode.missing_values`. A number is used instead, and counts as
    a reading. `mean` uses the feature's running mean, in exports too. `reject` rejects the record. Absent: `mean` for a
    task with a target field and scaled inputs, otherwise `reject`. A record that lacks the field altogether is
    rejected unless this option is a number or `mean`, because the name may be wrong."""
    indicator: bool = False
    """Give the model an input that is 1 where this reading is missing, otherwise 0, in exports too. For readings whose
    absence says something about the target. Needs `missing: mean`, or no `missing` where that is the default."""
    max_change: Positive | None = None
    """A reading further from its key's last good reading is a fault, until `recover_after` readings set a new level."""
    stuck_after: Annotated[int, Field(ge=2)] | None = None
    """When a key repeats one reading this many times, the last of them and each further repetition are faults."""
    whole: bool = False
    """A reading that is not a whole number is a fault. Always so where a model takes ids, such as for an embedding."""
    recover_after: Annotated[int, Field(ge=2)] = 100
    """This many readings in a row, each within `max_change` of the one before, are accepted as a new level."""
    on_fault: Literal["reject", "hold", "mean"] = "reject"
    """Action on a fault: reject the record, or use the key's last good reading (`hold`) or the running mean of
    its good readings (`mean`) instead."""
    shape: Annotated[list[Count], Field(min_length=1, max_length=4)] | None = None
    """Shape of an array, such as `[8, 8, 1]` for an image, which must be the only feature. In JSON the field holds it
    as a list, nested or flat; a packed row or a CSV line holds its elements one after another (columns `image[0]`,
    `image[1]`, ...). Your own model gets it in this shape. Exports take rows of all elements."""
    season: Literal["day", "week"] | Positive | None = None
    """Make this input from the time instead of a field: the place within a `day`, a `week`, or a period of this many
    seconds, in UTC. The model gets its sine and cosine. Seasonal inputs come after all others."""
    time: str | None = None
    """Field with the time of `season`, in the form of `decode.time`. Absent: the time of the record."""

    @property
    def has_rule(self) -> bool:
        """True if any limit is set."""
        bounds = (self.min, self.max, self.max_change, self.stuck_after)
        return self.whole or any(bound is not None for bound in bounds)

    def for_ids(self, limit: int | None) -> "FeatureSettings":
        """Return a copy that accepts only whole numbers from 0 to *limit* - 1, within the configured bounds."""
        highest = [bound for bound in (self.max, None if limit is None else limit - 1.0) if bound is not None]
        lowest = max(self.min or 0.0, 0.0) if limit is not None else self.min
        return self.model_copy(update={"whole": True, "min": lowest, "max": min(highest, default=None)})

    @property
    def period_s(self) -> float | None:
        """The length of the season in seconds; None for a reading."""
        named = {"day": DAY_S, "week": WEEK_S}
        return named[self.season] if isinstance(self.season, str) else self.season


class CheckpointSettings(Section):
    """Schedule of the checkpoints, and how many are kept."""

    every_seconds: Positive | None = 30.0
    """Time between checkpoints; null: no limit on time. The first of `every_seconds` and `every_samples` to be reached
    applies."""
    every_samples: Count | None = None
    """Number of learned samples between checkpoints. Absent: no limit on samples."""
    keep: Annotated[int, Field(ge=2)] = 5
    """Number of checkpoints to keep. At least two: the older one stays until the newer one is known to be on disk."""
    max_failures: Count | None = 3
    """Stop with exit code 70 after this many failures in a row; null: never stop, keep learning without being saved."""
    retry_seconds: Positive = 10.0
    """Time from a failed checkpoint to the next attempt, instead of `every_seconds` and `every_samples`."""


class HttpSettings(Section):
    """The HTTP server for metrics and health checks."""

    host: str = "127.0.0.1"
    """Address to listen on. There is neither a password nor TLS."""
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """Port to listen on. 0: any free port, which is logged."""


class IntervalSettings(Section):
    """Prediction intervals of a regression or forecast, which follow the errors of the predictions."""

    coverage: Annotated[float, Field(ge=0.05, le=0.999)] = 0.9
    """Share of truths that lie between `lower` and `upper`."""


class ScalingSettings(Section):
    """Online standardisation of the model's inputs and targets; predictions are scaled back to the target's units.

    By default a loaded model is not scaled, because it was trained on unscaled numbers. A new head has no units yet,
    so its target is scaled.
    """

    inputs: Literal["online", "none"] | None = None
    """Scaling of the inputs. Absent: `online`, but `none` for a loaded model, and for a model that takes whole numbers,
    such as the ids of an embedding."""
    target: Literal["online", "none"] | None = None
    """Scaling of the target. Absent: `online`, but `none` for a loaded model that keeps its head."""


class ModelRecipe(Section):
    """The settings that the network is built from."""

    seed: int = 0
    """Seed of the initial weights, and of all random draws while learning."""
    features: Annotated[dict[str, FeatureSettings], Field(min_length=1)]
    """Names of the features: a list, or a mapping with options. Their order is the order of the model's inputs."""
    target: list[str] = []
    """Field or fields that a regression predicts, or the field with the class. Absent for other tasks."""
    task: AnyTask = RegressionSettings(kind="regression")
    """The task: what is predicted, and from which inputs."""
    model: AnyModel
    """The model that learns: built in, made by your code, or loaded from a file."""
    scaling: ScalingSettings = ScalingSettings()
    """Online standardisation of inputs and targets."""

    @property
    def scale_inputs(self) -> bool:
        """True if the model's inputs are standardised."""
        return (self.scaling.inputs or ("none" if self.model.load is not None else "online")) == "online"

    @property
    def scale_target(self) -> bool:
        """True if the model's targets are standardised."""
        keeps_head = self.model.load is not None and self.model.head is None
        return (self.scaling.target or ("none" if keeps_head else "online")) == "online"

    @property
    def fills_gaps(self) -> bool:
        """True if a missing reading can stand for the mean, because inputs are scaled and are not predicted."""
        return self.scale_inputs and self.task.fills_gaps

    def with_whole_inputs(self, limits: Sequence[int | None]) -> Self:
        """Return a copy for a model whose inputs are whole numbers: not scaled, and each checked.

        Parameters
        ----------
        limits : for each feature, the number of ids from 0 on that the model knows; None: any
        """
        if self.array_shape is not None:
            limits = [min((limit for limit in limits if limit is not None), default=None)] * len(self.features)
        features = {
            name: feature.for_ids(limit) for (name, feature), limit in zip(self.features.items(), limits, strict=True)
        }
        scaling = self.scaling.model_copy(update={"inputs": "none"})
        return self.model_copy(update={"features": features, "scaling": scaling})

    @property
    def gaps(self) -> tuple[bool, ...]:
        """For each feature, whether a missing reading reaches the model, which takes it for the mean."""
        return tuple(
            feature.missing == "mean" or (feature.missing is None and self.fills_gaps)
            for feature in self.features.values()
        )

    @property
    def indicators(self) -> tuple[int, ...]:
        """The numbers of the features with an indicator of missing readings."""
        return tuple(i for i, feature in enumerate(self.features.values()) if feature.indicator)

    @property
    def array_shape(self) -> tuple[int, ...] | None:
        """The shape of the array that the features are the elements of; None if they are numbers of their own."""
        array = array_of(self.features)
        return None if array is None else array[1]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features, in the order of the model's inputs."""
        return tuple(self.features)

    @property
    def seasons(self) -> tuple[Season, ...]:
        """The seasonal inputs, which are the last of the features."""
        return tuple(
            season(name, feature.period_s, feature.time)
            for name, feature in self.features.items()
            if feature.period_s is not None
        )

    @property
    def reading_names(self) -> tuple[str, ...]:
        """The names of the features that are fields of the record; the others are seasonal."""
        return self.feature_names[: len(self.features) - len(self.seasons)]

    @property
    def target_count(self) -> int:
        """Numbers in one target row."""
        return self.task.target_count(len(self.reading_names), len(self.target))

    @property
    def output_count(self) -> int:
        """Numbers in one prediction."""
        return self.task.output_count(len(self.reading_names), len(self.target))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the numbers in a prediction."""
        return self.task.output_names(self.reading_names, self.target)

    @field_validator("features", mode="before")
    @classmethod
    def _features_by_name(cls, value: object) -> object:
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            repeated = sorted({name for name in value if value.count(name) > 1})
            if repeated:
                raise ValueError(f"these names appear more than once: {', '.join(repeated)}")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("features")
    @classmethod
    def _elements(cls, features: dict[str, FeatureSettings]) -> dict[str, FeatureSettings]:
        """Return the elements of an array in its place."""
        arrays = [name for name, feature in features.items() if feature.shape is not None]
        if not arrays or array_of(features) is not None:
            return features
        if len(features) > 1:
            raise ValueError(f"{arrays[0]} has a shape, so it must be the only feature; a model has one input")
        (name,) = arrays
        array = features[name]
        count = math.prod(array.shape or ())
        if count > MOST_ELEMENTS:
            raise ValueError(f"{name} has {count} elements; at most {MOST_ELEMENTS} are possible")
        if array.season is not None:
            raise ValueError(f"{name} has a shape and a season; remove one of them")
        return {f"{name}[{i}]": array for i in range(count)}

    @field_validator("features")
    @classmethod
    def _seasons_last(cls, features: dict[str, FeatureSettings]) -> dict[str, FeatureSettings]:
        ordered = sorted(features, key=lambda name: features[name].season is not None)
        return {name: features[name] for name in ordered}

    @field_validator("target", mode="before")
    @classmethod
    def _target_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class LearningRecipe(ModelRecipe):
    """The settings that an exporting process needs to build the network and its update; they hold no secret."""

    learning: AnyLearner = PerSampleSettings(mode="per_sample")
    """Learning mode, optimizer and options of the updates."""


class Settings(LearningRecipe):
    """The complete configuration of ``learnd run``."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "learnd"
    """Name of this instance in logs, metrics and exports."""
    data_dir: Path = Path("data")
    """Folder for checkpoints, exports and the lock. One daemon at a time can use it."""
    source: AnySource
    """Source of the records."""
    decode: AnyDecoder
    """Format of the records. Absent: `csv` for a CSV file, else `json`."""
    averaging: AnyAverager = WindowSettings(kind="window")
    """Averaging of the weights. Exports hold the averaged weights."""
    checkpoint: CheckpointSettings = CheckpointSettings()
    """Schedule of the checkpoints."""
    export: ExportSettings = ExportSettings()
    """Published formats, and their schedule."""
    dead_letter: SinkSettings | None = None
    """Sink for rejected records, which are written unchanged. Absent: they are only counted and logged."""
    predictions: SinkSettings | None = None
    """Sink for predictions: for each sample its origin, key, time, prediction and truth, the scores of the
    live and the averaged weights, and its alarms. Absent: not written."""
    intervals: IntervalSettings | Literal["off"] = IntervalSettings()
    """Intervals around the predictions of a regression or forecast, adapted continuously so that the configured share
    of truths lies within them. They are in prediction lines (`lower`, `upper`) and in the manifest of exports. `off`:
    none."""
    alarms: AlarmSettings = AlarmSettings()
    """Alarms: when they are raised, and what is learned meanwhile."""
    alarm_sink: SinkSettings | None = None
    """Sink for alarms: one line when an alarm begins, and one when it ends. Absent: alarms are counted and logged, and
    each prediction tells of them."""
    drift: DriftSettings = DriftSettings()
    """Drift: how it is detected, and what is done about it."""
    http: HttpSettings = HttpSettings()
    """HTTP endpoints for Prometheus (`/metrics`) and health checks (`/livez`, `/readyz`)."""

    @field_validator("intervals", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        """Return `off` and `on` as text and as the default: YAML reads them as booleans."""
        if isinstance(value, bool):
            return {} if value else "off"
        return value

    @property
    def interval_coverage(self) -> float | None:
        """The coverage of prediction intervals; None if there are none."""
        return None if self.intervals == "off" or self.task.evaluated_on != "targets" else self.intervals.coverage

    def fingerprint(self) -> dict[str, Any]:
        """Return what a checkpoint depends on; it must not change while there are checkpoints."""
        sections = {"features", "target", "task", "model", "scaling", "averaging"}
        values = self.model_dump(mode="json", include=sections)
        # Omit defaults, so that adding an option does not invalidate existing checkpoints.
        brief = self.model_dump(mode="json", include={"model", "scaling"}, exclude_defaults=True)
        array = array_of(self.features)
        values["features"] = list(self.features) if array is None else [f"{array[0]}: {list(array[1])}"]
        if self.seasons:
            values["seasons"] = [[season.period_s, season.time] for season in self.seasons]
        if self.indicators:
            values["indicators"] = [name for name, feature in self.features.items() if feature.indicator]
        values["task"] = self.task.fingerprint()
        values["model"] = {"kind": self.model.kind, **brief["model"]}
        values["scaling"] = brief.get("scaling", {})
        own = self.model.load is not None or self.model.has_end
        values["learning"] = self.learning.fingerprint(loaded=own)
        values["source"] = self.source.fingerprint()
        return values

    def digest(self) -> str:
        """Return the SHA-256 of the settings in hex; secrets are not part of it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()
