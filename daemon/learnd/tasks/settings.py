"""Options of the tasks: what is predicted from what."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from learnd.core.settings_base import Count, Positive, Section


class _Windowed(Section):
    max_gap_s: Positive | None = None
    """A longer silence of a key starts its window afresh, so that no window spans it."""
    duplicates: Literal["drop", "keep"] = "drop"
    """A reading that is not newer than its key's last one is left out, or taken as it comes; needs `decode.time`."""
    max_keys: Count = 100_000
    """Readings of further keys are left out, to bound memory."""


class RegressionSettings(_Windowed):
    """The target from the features, or from the last `window` readings of the key."""

    kind: Literal["regression"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""


class ClassificationSettings(_Windowed):
    """The class of a sample from its features, or from the last `window` readings of the key."""

    kind: Literal["classification"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""
    classes: Literal["dynamic"] | Annotated[list[str], Field(min_length=2)] = "dynamic"
    """All there are, or `dynamic`: a label never seen before becomes a class of its own."""
    known: list[str] = []
    """Of dynamic classes, those that the loaded model knows already, in the order of its outputs."""
    max_classes: Annotated[int, Field(ge=2, le=4096)] = 32
    """Of dynamic classes; samples of further ones are skipped."""
    outputs: Literal["auto", "logits", "probabilities"] = "auto"
    """What a loaded model gives. auto: probabilities behind a softmax or sigmoid, else logits."""

    @field_validator("classes", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return [_text(label) for label in value] if isinstance(value, list) else value

    @field_validator("known", mode="before")
    @classmethod
    def _known_texts(cls, value: Any) -> Any:
        return [_text(label) for label in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _distinct(self) -> "ClassificationSettings":
        for labels in (self.first_classes, self.known):
            if len(set(labels)) < len(labels):
                raise ValueError("a class stands twice")
        if self.known and self.classes != "dynamic":
            raise ValueError("known belongs to classes: dynamic; list all of them in classes instead")
        if len(self.known) > self.max_classes:
            raise ValueError(f"known has {len(self.known)} classes, max_classes is {self.max_classes}")
        return self

    @property
    def first_classes(self) -> list[str]:
        """The classes that are known before the first sample."""
        return self.known if self.classes == "dynamic" else list(self.classes)

    @property
    def capacity(self) -> int:
        """Outputs of the model."""
        return self.max_classes if self.classes == "dynamic" else len(self.classes)


class ReconstructionSettings(_Windowed):
    """The features from themselves through a bottleneck; the error is the anomaly score."""

    kind: Literal["reconstruction"]
    window: Count | None = None
    """Readings of the key that the model sees. Absent: the newest one alone."""


class ForecastSettings(_Windowed):
    """The next readings of a key from its last `window` readings, as a change from the last one."""

    kind: Literal["forecast"]
    window: Annotated[int, Field(ge=2)] = 24
    """Readings of the key that the model sees."""
    horizon: Count = 1
    """How many readings ahead."""


AnyTask = Annotated[
    RegressionSettings | ClassificationSettings | ReconstructionSettings | ForecastSettings,
    Field(discriminator="kind"),
]


def _text(label: Any) -> Any:
    """A class as records have it: YAML reads ``yes`` and ``3`` as no text.

    >>> _text(True), _text(3), _text("a")
    ('true', '3', 'a')
    """
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label) if isinstance(label, int) else label
