"""Options of the tasks. Each class also has the properties of its task that the wiring needs."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from learnd.core.kinds import EvaluatedOn, NaiveKind, Watched
from learnd.core.labels import label_text
from learnd.core.settings_base import Count, Positive, Section


class TaskSettings(Section):
    """The options of all tasks, and their properties for the wiring."""

    kind: str
    window: int | None = None
    """Number of last readings of the key in one input. Absent: only the newest reading."""
    max_gap_s: Positive | None = None
    """Longest gap between two readings of a key within one window, in seconds; after a longer one the window fills
    again. Absent: no limit."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Action on a reading that is not newer than the key's last one: skip it (`drop`), or use it (`keep`). Without
    `decode.time` all readings are used."""
    max_keys: Count = 100_000
    """Maximum number of keys, to bound memory. Samples of further keys are skipped."""

    evaluated_on: ClassVar[EvaluatedOn] = "targets"
    """Reference for a prediction's error."""
    naive: ClassVar[NaiveKind] = "last_truth"
    """The forecast that the model must beat."""
    naive_in_exports: ClassVar[bool] = True
    """True if a user of an export could make the naive forecast instead."""
    has_classes: ClassVar[bool] = False
    """True if the target is a label."""
    has_probabilities: ClassVar[bool] = False
    """True if a prediction holds probabilities, of exclusive classes or of independent labels."""
    target_limits: ClassVar[tuple[float, float] | None] = None
    """The smallest and the largest value of a target; None: any."""
    mixes: ClassVar[bool] = True
    """True if simple rules, such as the last value, can answer the task next to a model."""
    fills_gaps: ClassVar[bool] = False
    """True if a missing reading does not matter to the target: the target is no reading itself."""
    needs_times: ClassVar[bool] = False
    """True if `max_gap_s` has no meaning without the time of each reading."""
    watched: ClassVar[Watched] = "inputs"
    """The readings whose anomalies raise alarms: the newest of the inputs, the newest target, or both."""
    holds_alarms: ClassVar[bool] = False
    """True if a sample in alarm is not learned by default: there is no truth beside the readings themselves."""
    stateless: ClassVar[frozenset[str]] = frozenset({"max_gap_s", "duplicates", "max_keys"})
    """Options that may change under an existing checkpoint, because no array depends on them."""

    def fingerprint(self) -> dict[str, Any]:
        """Return the options that a checkpoint depends on, without defaults.

        All options are included except those in `stateless`. Omit defaults, so that adding an option does not
        invalidate existing checkpoints.

        >>> ForecastSettings(kind="forecast", horizon=3, max_keys=5).fingerprint()
        {'kind': 'forecast', 'horizon': 3}
        """
        options = self.model_dump(mode="json", exclude_defaults=True, exclude={"kind", *self.stateless})
        return {"kind": self.kind, **options}

    @property
    def steps_ahead(self) -> int:
        """Number of readings after the window that are the target. 0: the target is a field of the record."""
        return 0

    @property
    def first_classes(self) -> list[str]:
        """The classes known before the first sample."""
        return []

    @property
    def fixed_classes(self) -> list[str] | None:
        """All allowed classes; None if any label is allowed, or if the task has no classes."""
        return None

    @property
    def collecting_class(self) -> str | None:
        """The class of samples whose own class has no output; None: they are not learned."""
        return None

    @property
    def loaded_outputs(self) -> Literal["auto", "logits", "probabilities"]:
        """Kind of the outputs of a loaded model; ``auto``: as the model itself says."""
        return "auto"

    def row_shape(self, features: int) -> tuple[int, ...]:
        """Return the shape of one raw input.

        >>> RegressionSettings(kind="regression", window=8).row_shape(3)
        (8, 3)
        """
        return (features,) if self.window is None else (self.window, features)

    def target_count(self, features: int, targets: int) -> int:
        """Return the number of values in one target row."""
        return targets

    def output_count(self, features: int, targets: int) -> int:
        """Return the number of values in one prediction."""
        return self.target_count(features, targets)

    def output_names(self, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the values in a prediction; for a reconstructed window, those of its newest reading."""
        return tuple(targets) or tuple(features)

    def reported_parts(self, features: Sequence[str], targets: Sequence[str]) -> dict[str, list[int]]:
        """Return the outputs of each part of a prediction that has figures of its own, by name; empty for one part.

        >>> RegressionSettings(kind="regression").reported_parts(["a"], ["x", "y"])
        {'x': [0], 'y': [1]}
        """
        return {name: [i] for i, name in enumerate(targets)} if len(targets) > 1 else {}

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        """Yield each problem of the configured targets, as text that follows the name of the option."""
        if targets:
            yield f"has no effect for task.kind {self.kind}; remove it, or use regression"


class _FieldTarget(TaskSettings):
    """A task whose target is a field of the record."""

    naive_in_exports: ClassVar[bool] = False
    fills_gaps: ClassVar[bool] = True

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        if not targets:
            yield f"is required for task.kind {self.kind}: name the field to predict, or change task.kind"


class RegressionSettings(_FieldTarget):
    """Prediction of numbers from the features, or from the last `window` readings of the key."""

    kind: Literal["regression"]
    window: Count | None = None
    """Number of last readings of the key in one input. Absent: only the newest reading."""

    watched: ClassVar[Watched] = "both"


class ClassificationSettings(_FieldTarget):
    """Prediction of the class of a sample from its features, or from the last `window` readings of the key."""

    kind: Literal["classification"]
    window: Count | None = None
    """Number of last readings of the key in one input. Absent: only the newest reading."""
    classes: Literal["dynamic"] | Annotated[list[str], Field(min_length=2)] = "dynamic"
    """List of all classes, or `dynamic`: each new label becomes a class."""
    known: list[str] = []
    """With `classes: dynamic`: the classes that a loaded model already has, in the order of its outputs."""
    max_classes: Annotated[int, Field(ge=2, le=4096)] = 32
    """With `classes: dynamic`: maximum number of classes. Samples of further classes are skipped, unless `other_class`
    is set."""
    other_class: str | None = None
    """Class that collects the samples of all further classes: the last of `max_classes`, or one of a list of `classes`.
    Absent: with `dynamic` they are skipped and counted; with a list they are rejected."""
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    """Kind of the outputs of your own model. `auto`: as its last operation, its compiled loss or its answers say; if
    they say nothing, the start asks for this option."""

    evaluated_on: ClassVar[EvaluatedOn] = "classes"
    naive: ClassVar[NaiveKind] = "class_table"
    has_classes: ClassVar[bool] = True
    has_probabilities: ClassVar[bool] = True

    @field_validator("classes", "known", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """Return labels as text: YAML reads ``yes`` as a boolean and ``3`` as a number."""
        if not isinstance(value, list):
            return value
        return [label_text(label) if isinstance(label, bool | int | float) else label for label in value]

    @model_validator(mode="after")
    def _distinct(self) -> "ClassificationSettings":
        for labels in (self.first_classes, self.known):
            if len(set(labels)) < len(labels):
                raise ValueError("a class is listed twice")
        if self.known and self.classes != "dynamic":
            raise ValueError("known belongs to classes: dynamic; list all of them in classes instead")
        if self.other_class is not None and self.classes != "dynamic" and self.other_class not in self.classes:
            raise ValueError(f"other_class {self.other_class} is not in classes; add it, or use classes: dynamic")
        if self.other_class is not None and self.other_class not in self.known and len(self.known) == self.max_classes:
            raise ValueError(f"known leaves no place for other_class {self.other_class}; raise max_classes")
        if len(self.known) > self.max_classes:
            raise ValueError(f"known has {len(self.known)} classes, max_classes is {self.max_classes}")
        return self

    @property
    def first_classes(self) -> list[str]:
        return self.known if self.classes == "dynamic" else list(self.classes)

    @property
    def fixed_classes(self) -> list[str] | None:
        return None if self.classes == "dynamic" or self.other_class is not None else list(self.classes)

    @property
    def collecting_class(self) -> str | None:
        return self.other_class

    @property
    def loaded_outputs(self) -> Literal["auto", "logits", "probabilities"]:
        return self.outputs

    def output_count(self, features: int, targets: int) -> int:
        return self.max_classes if self.classes == "dynamic" else len(self.classes)

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        yield from super().target_problems(targets)
        if len(targets) > 1:
            yield f"must name one field for a classification, not {len(targets)}"


class MultilabelSettings(_FieldTarget):
    """Prediction of several labels, of which any number may be true at once. Each target is a field with 0 or 1."""

    kind: Literal["multilabel"]
    window: Count | None = None
    """Number of last readings of the key in one input. Absent: only the newest reading."""
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    """Kind of the outputs of your own model, as for a classification."""

    evaluated_on: ClassVar[EvaluatedOn] = "labels"
    naive: ClassVar[NaiveKind] = "running_mean"
    naive_in_exports: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = True
    target_limits: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    @property
    def loaded_outputs(self) -> Literal["auto", "logits", "probabilities"]:
        return self.outputs

    def reported_parts(self, features: Sequence[str], targets: Sequence[str]) -> dict[str, list[int]]:
        return {name: [i] for i, name in enumerate(targets)}


class ReconstructionSettings(TaskSettings):
    """Reconstruction of the features through a bottleneck; the error is the anomaly score."""

    kind: Literal["reconstruction"]
    window: Count | None = None
    """Number of last readings of the key in one input. Absent: only the newest reading."""

    evaluated_on: ClassVar[EvaluatedOn] = "inputs"
    holds_alarms: ClassVar[bool] = True
    mixes: ClassVar[bool] = False
    naive: ClassVar[NaiveKind] = "running_mean"

    def target_count(self, features: int, targets: int) -> int:
        return 0

    def output_count(self, features: int, targets: int) -> int:
        return features * (self.window or 1)


class ForecastSettings(TaskSettings):
    """Prediction of the next readings of a key from its last `window` readings, as changes from the last one."""

    kind: Literal["forecast"]
    window: Annotated[int, Field(ge=2)] = 24
    """Number of last readings of the key in one input."""
    horizon: Count = 1
    """Number of next readings to predict."""

    watched: ClassVar[Watched] = "targets"
    holds_alarms: ClassVar[bool] = True
    needs_times: ClassVar[bool] = True
    naive: ClassVar[NaiveKind] = "last_reading"

    @property
    def steps_ahead(self) -> int:
        return self.horizon

    def target_count(self, features: int, targets: int) -> int:
        return features * self.horizon

    def output_names(self, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
        """Return the features, with the number of the step if there are several.

        >>> ForecastSettings(kind="forecast", horizon=2).output_names(["t"], [])
        ('t+1', 't+2')
        """
        if self.horizon == 1:
            return tuple(features)
        return tuple(f"{name}+{ahead}" for ahead in range(1, self.horizon + 1) for name in features)

    def reported_parts(self, features: Sequence[str], targets: Sequence[str]) -> dict[str, list[int]]:
        """Return the outputs of each step ahead, if there are several.

        >>> ForecastSettings(kind="forecast", horizon=2).reported_parts(["t", "p"], [])
        {'step 1': [0, 1], 'step 2': [2, 3]}
        """
        if self.horizon == 1:
            return {}
        width = len(features)
        return {f"step {i + 1}": list(range(i * width, (i + 1) * width)) for i in range(self.horizon)}


AnyTask = Annotated[
    RegressionSettings | ClassificationSettings | MultilabelSettings | ReconstructionSettings | ForecastSettings,
    Field(discriminator="kind"),
]
