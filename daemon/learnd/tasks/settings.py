"""Options of the tasks: what is predicted from what. Each class answers what the wiring has to know about its task."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from learnd.core.kinds import EvaluatedOn
from learnd.core.labels import label_text
from learnd.core.settings_base import Count, Positive, Section


class TaskSettings(Section):
    """The options and answers that all tasks share."""

    kind: str
    window: int | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""
    max_gap_s: Positive | None = None
    """A longer silence of a key starts its window again, so that no window spans it."""
    duplicates: Literal["drop", "keep"] = "drop"
    """A reading that is not newer than its key's last one is skipped, or used as it comes; needs `decode.time`."""
    max_keys: Count = 100_000
    """Readings of further keys are skipped, to bound memory."""

    evaluated_on: ClassVar[EvaluatedOn] = "targets"
    """What a prediction is compared with."""
    has_classes: ClassVar[bool] = False
    """Whether the target is a label."""
    needs_times: ClassVar[bool] = False
    """Whether `max_gap_s` has no meaning without the time of each reading."""
    stateless: ClassVar[frozenset[str]] = frozenset({"max_gap_s", "duplicates", "max_keys"})
    """Options that may change under an existing checkpoint, because no array depends on them."""

    def fingerprint(self) -> dict[str, Any]:
        """Return every option that a checkpoint depends on, without defaults.

        A new option is in it unless `stateless` names it. Omitting defaults keeps existing checkpoints valid when an
        option is added.

        >>> ForecastSettings(kind="forecast", horizon=3, max_keys=5).fingerprint()
        {'kind': 'forecast', 'horizon': 3}
        """
        options = self.model_dump(mode="json", exclude_defaults=True, exclude={"kind", *self.stateless})
        return {"kind": self.kind, **options}

    @property
    def steps_ahead(self) -> int:
        """Readings between the end of a window and the sample; they are the target. 0: the target is a field."""
        return 0

    @property
    def first_classes(self) -> list[str]:
        """The classes that are known before the first sample."""
        return []

    @property
    def fixed_classes(self) -> list[str] | None:
        """All classes that may come; None where any label may, or where there are none."""
        return None

    @property
    def loaded_outputs(self) -> Literal["auto", "logits", "probabilities"]:
        """What a loaded model gives; ``auto``: as its last layer says."""
        return "auto"

    def row_shape(self, features: int) -> tuple[int, ...]:
        """Return the shape of one raw input.

        >>> RegressionSettings(kind="regression", window=8).row_shape(3)
        (8, 3)
        """
        return (features,) if self.window is None else (self.window, features)

    def target_count(self, features: int, targets: int) -> int:
        """Return how many numbers are in one target row."""
        return targets

    def output_count(self, features: int, targets: int) -> int:
        """Return how many numbers are in one prediction."""
        return self.target_count(features, targets)

    def output_names(self, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the numbers in a prediction; of a reconstructed window, those of its newest reading."""
        return tuple(targets) or tuple(features)

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        """Yield what is wrong with the configured targets; each text continues a sentence that begins with the key."""
        if targets:
            yield f"has no effect for task.kind {self.kind}; remove it, or use regression"


class _FieldTarget(TaskSettings):
    """A task whose target is a field of the record."""

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        if not targets:
            yield f"is required for task.kind {self.kind}: name the field to predict, or change task.kind"


class RegressionSettings(_FieldTarget):
    """The target from the features, or from the last `window` readings of the key."""

    kind: Literal["regression"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""


class ClassificationSettings(_FieldTarget):
    """The class of a sample from its features, or from the last `window` readings of the key."""

    kind: Literal["classification"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""
    classes: Literal["dynamic"] | Annotated[list[str], Field(min_length=2)] = "dynamic"
    """All classes that exist, or `dynamic`: a label never seen before becomes a class of its own."""
    known: list[str] = []
    """For dynamic classes: those that the loaded model knows already, in the order of its outputs."""
    max_classes: Annotated[int, Field(ge=2, le=4096)] = 32
    """For dynamic classes: the most that are learned; samples of further ones are skipped."""
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    """What a loaded model gives. auto: probabilities after a softmax or sigmoid, otherwise logits."""

    evaluated_on: ClassVar[EvaluatedOn] = "classes"
    has_classes: ClassVar[bool] = True

    @field_validator("classes", "known", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        """Return labels as records have them: YAML reads ``yes`` and ``3`` as something else than text."""
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
        if len(self.known) > self.max_classes:
            raise ValueError(f"known has {len(self.known)} classes, max_classes is {self.max_classes}")
        return self

    @property
    def first_classes(self) -> list[str]:
        return self.known if self.classes == "dynamic" else list(self.classes)

    @property
    def fixed_classes(self) -> list[str] | None:
        return None if self.classes == "dynamic" else list(self.classes)

    @property
    def loaded_outputs(self) -> Literal["auto", "logits", "probabilities"]:
        return self.outputs

    def output_count(self, features: int, targets: int) -> int:
        return self.max_classes if self.classes == "dynamic" else len(self.classes)

    def target_problems(self, targets: Sequence[str]) -> Iterator[str]:
        yield from super().target_problems(targets)
        if len(targets) > 1:
            yield f"must name one field for a classification, not {len(targets)}"


class ReconstructionSettings(TaskSettings):
    """The features from themselves through a bottleneck; the error is the anomaly score."""

    kind: Literal["reconstruction"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""

    evaluated_on: ClassVar[EvaluatedOn] = "inputs"

    def target_count(self, features: int, targets: int) -> int:
        return 0

    def output_count(self, features: int, targets: int) -> int:
        return features * (self.window or 1)


class ForecastSettings(TaskSettings):
    """The next readings of a key from its last `window` readings, as a change from the last one."""

    kind: Literal["forecast"]
    window: Annotated[int, Field(ge=2)] = 24
    """Readings of the key that the model sees."""
    horizon: Count = 1
    """Readings ahead that are predicted."""

    needs_times: ClassVar[bool] = True

    @property
    def steps_ahead(self) -> int:
        return self.horizon

    def target_count(self, features: int, targets: int) -> int:
        return features * self.horizon

    def output_names(self, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
        """Return the features, with the step ahead where there are several.

        >>> ForecastSettings(kind="forecast", horizon=2).output_names(["t"], [])
        ('t+1', 't+2')
        """
        if self.horizon == 1:
            return tuple(features)
        return tuple(f"{name}+{ahead}" for ahead in range(1, self.horizon + 1) for name in features)


AnyTask = Annotated[
    RegressionSettings | ClassificationSettings | ReconstructionSettings | ForecastSettings,
    Field(discriminator="kind"),
]
