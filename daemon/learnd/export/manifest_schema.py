"""The form of ``learnd.json``, the manifest of an export, as pydantic classes and as a JSON Schema.

`SCHEMA_FILE` is generated from these classes (``learnd schema --manifest``), and a reader needs nothing but that file.
A change of the form takes the next `FORMAT_VERSION` and adds a schema file of that number.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from learnd.core.settings_base import Count, Section

FORMAT_VERSION = 5
SCHEMA_ID = f"urn:learnd:manifest:{FORMAT_VERSION}"
SCHEMA_FILE = Path(__file__).with_name(f"manifest.{FORMAT_VERSION}.schema.json")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Whole = Annotated[int, Field(ge=0)]
Moment = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00$")]
"""A time in ISO 8601, UTC."""


class _Part(Section):
    model_config = ConfigDict(use_attribute_docstrings=True)


class Season(_Part):
    """The period of a seasonal input: the input is (time - `origin_s`) modulo `period_s`, in seconds.

    Any multiple of `period_s` may be added, but float32 does not hold seconds since 1970 exactly enough. So compute the
    remainder in float64.
    """

    period_s: float
    origin_s: float
    """A moment at which a period begins, in seconds since 1970-01-01 UTC."""
    time: str | None
    """Field of the records with the time: ISO 8601 text, or a number in `time_unit`. null: the time of the Kafka
    record."""
    time_unit: Literal["s", "ms", "us", "ns"] | None


class Feature(_Part):
    """One input, in the order of the model's inputs."""

    name: str
    input: str
    """Its name in signatures that take one tensor per feature."""
    min: float | None
    """The configured lower limit; a smaller reading counted as a sensor fault. null: no limit."""
    max: float | None
    """The configured upper limit; a larger reading counted as a sensor fault. null: no limit."""
    missing: float | Literal["mean"] | None
    """Substitute for a missing reading: a number, or ``mean``: pass NaN, which the file takes for the mean. null: there
    is none."""
    season: Season | None
    """null: a reading, which is a field of the records."""
    indicator: bool
    """True: the model has an input that says whether this reading is missing."""


class Port(_Part):
    """One input tensor or output tensor."""

    name: str
    dtype: str
    shape: list[int | None]
    """null: any size; the first axis is the batch."""


class Scale(_Part):
    """The scaling that the model applies internally; users pass raw values and get raw values.

    The inputs of a forecast are differences from the last reading, and its target is the change from it.
    """

    kind: Literal["online", "none"]
    """none: the model does not scale these numbers."""
    mean: list[Any] | None
    spread: list[Any] | None
    """Standard deviation; 0 for a number that never changed."""


class Offset(_Part):
    """The position in one partition up to which records were learned."""

    topic: str
    partition: Whole
    next_offset: Whole
    """The first offset that was not read."""


class TimeRange(_Part):
    """Event times of the first and the last sample."""

    first: Moment
    last: Moment


class Errors(_Part):
    """Errors of predictions, each made before its sample was learned; null: not known."""

    loss: float | None
    """Mean over the most recent samples (at most 1000). By default: squared error in standard deviations, or
    cross-entropy in nats."""
    absolute_error: float | None
    """Mean absolute error over the same samples, in the target's units; for classes, the share of wrong ones."""
    mean_loss: float | None
    """Mean loss over every sample since the first."""


class Prequential(_Part):
    """Errors of the live weights, which are learning, and of the averaged weights, which are in the export."""

    live: Errors
    averaged: Errors


class Skill(_Part):
    """1 - error / naive error. 1 is perfect, 0 is as good as the naive forecast, less is worse. null: not known."""

    live: float | None
    averaged: float | None


class ComparedErrors(_Part):
    """Mean errors on the same samples, in the same units. null: not known.

    The mean absolute error in the target's units; of several numbers, each in its standard deviations; of classes, the
    log loss in nats.
    """

    live: float | None
    averaged: float | None
    naive: float | None


class Figures(_Part):
    """Figures over some samples, each predicted before it was learned."""

    samples: Whole
    compared_samples: Whole
    """Number of those samples that a naive forecast exists for; `skill` and `error` are theirs."""
    skill: Skill
    error: ComparedErrors
    measures: dict[str, float | None]
    """Figures by name: mae, rmse, r2, bias (prediction minus truth), interval_coverage, interval_width; for classes
    accuracy, log_loss, macro_f1, roc_auc, calibration_error, brier. With `averaged_` or `naive_`: of the averaged
    weights, or of the naive forecast; otherwise of the live weights."""
    parts: dict[str, dict[str, float | None]]
    """The same by target or step ahead (at most 8 of them), or recall and precision by class (at most 12)."""


class QualityPart(_Part):
    """Figures of the predictions."""

    recent: Figures
    """Over the last 1000 samples at most."""
    total: Figures
    """Since the model began."""
    fading: Figures
    """Over all samples, with weights that halve every 5000 samples; `samples` is the sum of the weights."""


class Intervals(_Part):
    """The prediction interval at the moment of the export: add `lower` and `upper` to a prediction.

    The daemon adapts it continuously; an export cannot. Its predictions get worse with time, so it covers less then.
    """

    coverage: float
    """Share of truths that shall lie within the interval."""
    samples: Whole
    """Number of truths that it comes from."""
    lower: list[float]
    """For each number of a prediction, the distance of the lower end, in the order of `predicts`; mostly negative."""
    upper: list[float]
    """The same for the upper end."""


class ChosenWeights(_Part):
    """The choice of the weights in this export, among the live and the averaged ones."""

    chosen: str
    """Their name: `live` or `average`; of the default learner `recent`, `reservoir`, `recent_average` or
    `reservoir_average`."""
    standing_loss: dict[str, float]
    """Loss of each candidate while it stood still, on rows that came after its weights. Empty before 400 rows."""


class Parent(_Part):
    """The export that was the newest before this one."""

    number: Count
    manifest_sha256: Sha256
    loss_since: float | None
    """Mean loss of its weights on samples that arrived after it: the error that its users see. null: not known."""
    samples_since: Whole
    """Number of samples that `loss_since` was measured on: some of each batch."""
    skill_since: float | None
    """Skill on the newest of those samples, at most 1000. null: not known."""


class SigningKey(_Part):
    """The public key that verifies ``learnd.json.sig``."""

    algorithm: Literal["Ed25519"]
    id: Sha256
    """SHA-256 of the key's SubjectPublicKeyInfo in DER."""


class Format(_Part):
    """One file or folder with the model. Entries may have further keys, which depend on the format."""

    model_config = ConfigDict(extra="allow")

    path: str


class File(_Part):
    """One file of the export."""

    bytes: Whole
    sha256: Sha256


class Manifest(_Part):
    """The content and the origin of one export."""

    schema_id: Literal["urn:learnd:manifest:5"] = Field(alias="$schema")
    format_version: Literal[5]
    number: Count
    created_at: Moment
    name: str
    """Name of the learnd instance that made the export."""
    parent: Parent | None
    task: str
    model: str
    window: Count | None
    """Number of readings of one key in one input; null: one reading, without a window axis."""
    features: list[Feature]
    predicts: list[str]
    """Names of the numbers in one prediction, in order."""
    classes: list[str]
    """Names of the classes, in the order of the probabilities; empty unless the task is a classification."""
    inputs: list[Port]
    outputs: list[Port]
    scaling: dict[str, Scale]
    offsets: list[Offset]
    time_range: TimeRange | None
    """null: the records have no times."""
    samples: Whole
    updates: Whole
    loss: str
    """The loss function: the name of a Keras loss, the user's own, or "the task's own", which is the squared error in
    standard deviations, or cross-entropy."""
    prequential: Prequential
    weights: ChosenWeights | None
    """The choice of the weights in this export. null: there was none, because nothing is averaged."""
    baseline: Literal["last_truth", "last_reading", "class_table", "running_mean"]
    """The naive forecast: the key's last truth, the last reading repeated, the class that most often follows the last
    one (or the most frequent class, if that is better), or the running mean."""
    quality: QualityPart
    intervals: Intervals | None
    """null: there are none."""
    republished_of: Count | None
    """The number of the older export that an operator published again, with its content; null: a new export."""
    config_sha256: Sha256
    """SHA-256 of the whole configuration without its secrets."""
    versions: dict[str, str]
    """Versions of learnd, Python and the libraries that made the files."""
    code_sha256: dict[str, Sha256]
    """SHA-256 over the Python files of learnd, and of each of the user's packages that the model is made of."""
    signing_key: SigningKey | None
    """null: the export is not signed."""
    formats: dict[str, Format]
    unavailable: dict[str, str]
    """Configured formats that this model cannot be written in, each with the reason."""
    files: dict[str, File]
    """Every file in the folder by its path, except this manifest and its signature."""
    links: dict[str, Annotated[str, Field(pattern="^saved_model/[^/]+$")]]
    """Symbolic links to the parts of the SavedModel, so that TensorFlow Serving can load the folder itself."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the manifests that this learnd writes."""
    properties = Manifest.model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **properties,
        "title": "learnd.json, the manifest of a learnd export",
    }
