"""The configuration: YAML to frozen settings. Every error is found at once, with its place and the way out."""

import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator

from learnd.averaging.settings import AnyAverager, WindowSettings
from learnd.decoders.settings import AnyDecoder, CsvSettings, Float32Settings
from learnd.document import Document, parse
from learnd.errors import ConfigError, Problem
from learnd.exporters.settings import ExportSettings
from learnd.learners.settings import AnyLearner, MicroBatchSettings, OptimizerSettings, PerSampleSettings
from learnd.models.settings import SEQUENCE_MODELS, AnyModel, AutoencoderSettings, FactorySettings
from learnd.section import Count, Positive, Section
from learnd.sinks.settings import SinkSettings
from learnd.sources.settings import AnySource, FileSettings, KafkaSettings
from learnd.tasks.settings import (
    AnyTask,
    ClassificationSettings,
    ForecastSettings,
    ReconstructionSettings,
    RegressionSettings,
)


class FeatureSettings(Section):
    """What is known of one feature: a reading that does not fit is a fault of its sensor."""

    min: float | None = None
    max: float | None = None
    """A reading outside is a fault."""
    missing: float | None = None
    """Stands in for a missing field or a null; such records are rejected where absent."""
    max_change: Positive | None = None
    """A reading further from its key's last good one is a fault, until the new level has shown to be one."""
    stuck_after: Annotated[int, Field(ge=2)] | None = None
    """Of so many equal readings of a key in a row the last, and every further one, is a fault."""
    recover_after: Annotated[int, Field(ge=2)] = 100
    """So many readings in a row, each within max_change of the one before, are a new level and no fault."""
    on_fault: Literal["reject", "hold", "mean"] = "reject"
    """The record goes to the dead letters; or its key's last good reading, or the mean of those, stands in."""

    @property
    def has_rule(self) -> bool:
        return any(bound is not None for bound in (self.min, self.max, self.max_change, self.stuck_after))


class CheckpointSettings(Section):
    """When the state is saved, and how many saves are kept."""

    every_seconds: Positive | None = 30.0
    every_samples: Count | None = None
    keep: Annotated[int, Field(ge=2)] = 5
    """At least two: the older one stays until the newer is known to be on disk."""
    max_failures: Count | None = 3
    """So many failures in a row end learning with exit code 70; null: never, learning goes on without a net."""
    retry_seconds: Positive = 10.0
    """After a failure the next attempt is due so much later, whatever the other two say."""


class HttpSettings(Section):
    """Where metrics and health are served."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 9464
    """0 takes any free port and logs it."""


class ScalingSettings(Section):
    """Whether numbers are standardised online on their way into the model, and back on their way out.

    Absent: online, but not for a model that is loaded, which was trained on numbers as it got them. A new head has no
    units yet, so what it is to give is scaled.
    """

    inputs: Literal["online", "none"] | None = None
    target: Literal["online", "none"] | None = None


class ModelRecipe(Section):
    """What the network is built from, here and in the exporting process; holds no secret."""

    seed: int = 0
    """Of the first weights."""
    features: Annotated[dict[str, FeatureSettings], Field(min_length=1)]
    """Names, as a list or as a mapping with options; the order is the order of the model's inputs."""
    target: list[str] = []
    """What a regression predicts, one name or several; or the one field with the class."""
    task: AnyTask = RegressionSettings(kind="regression")
    model: AnyModel
    scaling: ScalingSettings = ScalingSettings()

    @property
    def scale_inputs(self) -> bool:
        return (self.scaling.inputs or ("none" if self.model.load is not None else "online")) == "online"

    @property
    def scale_target(self) -> bool:
        kept = self.model.load is not None and self.model.head is None
        return (self.scaling.target or ("none" if kept else "online")) == "online"

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


class Settings(ModelRecipe):
    """Everything that ``learnd run`` needs to know."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "learnd"
    """Labels logs, metrics and exports."""
    data_dir: Path = Path("data")
    """Holds checkpoints, exports and the lock; one daemon at a time."""
    source: AnySource
    decode: AnyDecoder
    learning: AnyLearner = PerSampleSettings(mode="per_sample")
    averaging: AnyAverager = WindowSettings(kind="window")
    checkpoint: CheckpointSettings = CheckpointSettings()
    export: ExportSettings = ExportSettings()
    dead_letter: SinkSettings | None = None
    predictions: SinkSettings | None = None
    http: HttpSettings = HttpSettings()

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(self.features)

    def fingerprint(self) -> dict[str, Any]:
        """The part of the settings that a checkpoint's arrays depend on; it may not change under them."""
        wanted = {"features", "target", "task", "model", "scaling", "averaging"}
        values = self.model_dump(mode="json", include=wanted)
        # What is as it is by default may get company without making old checkpoints strange.
        brief = self.model_dump(mode="json", include={"task", "model", "scaling"}, exclude_defaults=True)
        values["features"] = list(self.features)
        kept = ("window", "horizon", "classes", "known", "max_classes", "outputs")
        values["task"] = {"kind": self.task.kind, **{k: v for k, v in brief.get("task", {}).items() if k in kept}}
        values["model"] = {"kind": self.model.kind, **brief["model"]}
        values["scaling"] = brief.get("scaling", {})
        values["learning"] = self._learning_fingerprint()
        return values

    def _learning_fingerprint(self) -> dict[str, Any]:
        learning = self.learning
        # A loaded model may bring an optimizer of its own; else leaving it out is to say Adam.
        unsaid = OptimizerSettings().kind if self.model.load is None else None
        kind = learning.optimizer.kind if learning.optimizer is not None else unsaid
        values: dict[str, Any] = {"mode": learning.mode, "optimizer": kind}
        if isinstance(learning, MicroBatchSettings):
            values["batch_size"] = learning.batch_size
        if learning.replay is not None:
            values["replay"] = {"size": learning.replay.size}
        return values

    def digest(self) -> str:
        """SHA-256 of the settings, in hex; secrets do not enter it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in the YAML file at *path*.

    Raises
    ------
    ConfigError
        with every problem of the file, each with its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            Problem("", f"cannot be read ({error}); `learnd init` writes a configuration", str(path))
        ) from error
    return loads(text, file=str(path), environ=os.environ if environ is None else environ)


def loads(text: str, *, file: str = "<configuration>", environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in YAML *text*; see `load`."""
    document = parse(text, file=file, environ=environ or {})
    values = document.values
    if not isinstance(values, dict):
        problems = document.problems or [Problem("", "must hold keys and values; see `learnd init`", file, 1)]
        raise ConfigError(*problems)
    broken = {problem.path for problem in document.problems}
    values = {**values}
    if isinstance(values.get("source"), dict):
        values.setdefault("decode", {"kind": default_decoder(values["source"])})
    for section, key, default in _DEFAULT_KINDS:
        if isinstance(values.get(section), dict):
            values[section] = {key: default, **values[section]}
    _name_kind_of_model(values)
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        found = [_translate(details, document) for details in error.errors()]
        raise ConfigError(*document.problems, *(p for p in found if p.path not in broken)) from None
    problems = [
        *document.problems,
        *(document.problem(at, message) for at, message in _contradictions(settings)),
    ]
    if problems:
        raise ConfigError(*problems)
    return settings


_DEFAULT_KINDS = (
    ("task", "kind", "regression"),
    ("learning", "mode", "per_sample"),
    ("averaging", "kind", "window"),
    ("decode", "kind", "json"),
)


def _name_kind_of_model(values: dict[str, Any]) -> None:
    """``model: {load: path}`` and ``model: {factory: function}`` say enough."""
    model = values.get("model")
    if isinstance(model, dict) and "kind" not in model:
        for kind in ("factory", "load"):
            if kind in model:
                values["model"] = {"kind": kind, **model}
                return


def default_decoder(source: Mapping[str, Any]) -> str:
    """``csv`` for a CSV file, ``json`` for everything else.

    >>> default_decoder({"kind": "file", "path": "readings.csv.gz"})
    'csv'
    """
    if source.get("kind") == "file" and isinstance(source.get("path"), str):
        declared = source.get("format")
        if declared == "csv" or (declared is None and re.search(r"\.[ct]sv(\.gz)?$", source["path"])):
            return "csv"
    return "json"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 7) of the configuration, for editors."""
    schema = Settings.model_json_schema()
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["title"] = "learnd configuration"
    properties = schema["properties"]
    schema["required"] = [name for name in schema["required"] if name != "decode"]
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    properties["features"] = {"anyOf": [names, properties["features"]]}
    properties["target"] = {"anyOf": [{"type": "string"}, properties["target"]]}
    for section, key, default in _DEFAULT_KINDS:
        for reference in properties[section].get("oneOf", []):
            definition = schema["$defs"][reference["$ref"].rpartition("/")[2]]
            if definition["properties"][key].get("const") == default:
                definition["required"] = [name for name in definition["required"] if name != key]
        properties[section]["anyOf"] = properties[section].pop("oneOf")
    feature = schema["$defs"]["FeatureSettings"]
    feature["type"] = ["object", "null"]
    return schema


def _contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What is wrong between sections that are each right by themselves."""
    task, model, source, decode = settings.task, settings.model, settings.source, settings.decode
    if isinstance(task, RegressionSettings | ClassificationSettings):
        if not settings.target:
            yield ("target",), f"is needed for a {task.kind}: name the field to predict, or set task.kind"
    elif settings.target:
        yield ("target",), f"has no meaning for task.kind {task.kind}; take it out, or use regression"
    if isinstance(task, ClassificationSettings) and len(settings.target) > 1:
        yield ("target",), f"a classification has one; these are {len(settings.target)}"
    for key in ("time", "key"):
        name = getattr(decode, key)
        if name is not None and (name in settings.features or name in settings.target):
            yield ("decode", key), f"{name} is a feature or a target too; it can be only one of them"
    if decode.time is not None and decode.time == decode.key:
        yield ("decode", "key"), f"{decode.key} is the time too; it can be only one of them"
    for name in settings.target:
        if name in settings.features:
            yield ("target",), f"{name} is a feature too; a model that sees its target learns nothing"
    if len(set(settings.target)) < len(settings.target):
        yield ("target",), "names stand twice"
    if model.kind in SEQUENCE_MODELS and task.window is None:
        yield ("model", "kind"), f"{model.kind} wants a sequence: set task.window to the number of readings"
    if isinstance(model, AutoencoderSettings) and not isinstance(task, ReconstructionSettings):
        yield ("model", "kind"), "autoencoder fits task.kind reconstruction; use mlp, or change the task"
    if isinstance(task, ForecastSettings) and task.max_gap_s is not None and _untimed(settings):
        yield ("task", "max_gap_s"), "needs event times: name the field in decode.time"
    for name, feature in settings.features.items():
        if feature.min is not None and feature.max is not None and feature.min >= feature.max:
            yield ("features", name), f"min {feature.min} must be below max {feature.max}"
        if feature.stuck_after is not None and feature.on_fault == "hold":
            yield ("features", name, "on_fault"), "hold repeats the very reading that is stuck; use mean or reject"
        if feature.on_fault != "reject" and not feature.has_rule:
            yield ("features", name, "on_fault"), "has no fault to act on; set min, max, max_change or stuck_after"
    yield from _model_contradictions(settings)
    yield from _learning_contradictions(settings)
    if isinstance(decode, CsvSettings):
        yield from _csv_contradictions(settings, decode)
    if isinstance(decode, Float32Settings) and isinstance(source, FileSettings):
        yield ("decode", "kind"), "float32 rows have no lines, so a file cannot hold them; use csv or json"
    for section in ("dead_letter", "predictions"):
        sink = getattr(settings, section)
        if sink is not None and sink.topic is not None:
            if not isinstance(source, KafkaSettings):
                yield (section, "topic"), "needs source.kind kafka; name a path instead"
            elif sink.topic in source.topics:
                yield (section, "topic"), f"{sink.topic} is read by the source; learnd would feed itself"
    paths = {"source": getattr(source, "path", None)}
    for section in ("dead_letter", "predictions"):
        sink = getattr(settings, section)
        for other, path in paths.items():
            if sink is not None and sink.path is not None and sink.path == path:
                yield (section, "path"), f"{sink.path} is the {other}'s path too; each needs a file of its own"
        paths[section] = sink.path if sink is not None else None
    if settings.export.every_seconds is None and settings.export.every_samples is None:
        yield ("export",), "set every_seconds or every_samples"
    if settings.checkpoint.every_seconds is None and settings.checkpoint.every_samples is None:
        yield ("checkpoint",), "set every_seconds or every_samples"


def _model_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    model = settings.model
    batches = isinstance(settings.learning, MicroBatchSettings)
    if getattr(model, "normalization", None) == "batch" and not batches:
        yield ("model", "normalization"), "batch needs learning.mode micro_batch: one sample has no spread; use layer"
    if model.load is None:
        for name in ("code", "allow_lambda"):
            if getattr(model, name):
                yield ("model", name), "belongs to a loaded model; name a file in model.load, or take it out"
        if model.head is not None and not isinstance(model, FactorySettings):
            yield ("model", "head"), f"replaces the end of a model that exists; {model.kind} gets the right one anyway"


def _learning_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    learning = settings.learning
    if learning.class_weights is not None and not isinstance(settings.task, ClassificationSettings):
        yield ("learning", "class_weights"), f"{settings.task.kind} has no classes; take it out"
    if learning.sample_weight is not None and learning.sample_weight in (*settings.features, *settings.target):
        yield ("learning", "sample_weight"), f"{learning.sample_weight} is a feature or a target too"
    if learning.elastic and settings.averaging.kind == "none":
        yield ("learning", "elastic"), "pulls towards the averaged weights; set averaging.kind to window or ema"
    if learning.update is not None:
        for name in ("loss", "sample_weight", "class_weights", "replay"):
            if getattr(learning, name) is not None:
                yield ("learning", name), "has no effect beside update, which brings its own; take one of them out"


def _untimed(settings: Settings) -> bool:
    return isinstance(settings.source, FileSettings) and settings.decode.time is None


def _csv_contradictions(settings: Settings, decode: CsvSettings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    source = settings.source
    from_header = isinstance(source, FileSettings) and source.header
    if decode.columns is None:
        if not from_header:
            yield ("decode", "columns"), "is needed: these records carry no header line to name them"
        return
    wanted = [*settings.features, *settings.target, decode.time, decode.key, settings.learning.sample_weight]
    for name in wanted:
        if name is not None and name not in decode.columns and not name.startswith("__"):
            yield ("decode", "columns"), f"lacks {name}{_suggestion(name, decode.columns)}"


def _suggestion(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _translate(details: Any, document: Document) -> Problem:
    """One pydantic error as a problem: the union tags taken out of its path, its message with a way out."""
    path, model = _written_path(details["loc"], document.values), _holder(details["loc"])
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = sorted(model.model_fields) if model is not None else []
        hint = _elsewhere(details["loc"]) or _suggestion(str(path[-1]), known) or f"; known here: {', '.join(known)}"
        message = f"unknown key{hint}"
    elif kind == "missing":
        message = "is missing"
        field = model.model_fields.get(str(path[-1])) if model is not None else None
        if field is not None and (kinds := _tags(field.annotation)):
            message += f"; give it a kind: {', '.join(kinds)}"
    elif kind == "union_tag_not_found":
        message = f"needs {context['discriminator']}: one of {', '.join(_tags_at(path))}"
    elif kind == "union_tag_invalid":
        tags = _tags_at(path)
        message = f"{context['tag']!r} is not one of {', '.join(tags)}{_suggestion(str(context['tag']), tags)}"
        path = (*path, str(context["discriminator"]).strip("'"))
    elif kind == "value_error":
        message = str(context["error"])
    else:
        got = details["input"]
        shown = "" if isinstance(got, dict | list) else f", not {got!r}"
        message = details["msg"].removeprefix("Input ").replace("String ", "") + shown
    if any("password" in str(part) for part in path):
        message = "is not valid"
    return document.problem(path, message)


def _elsewhere(location: Sequence[str | int]) -> str:
    """Of which other kind of the section the unknown key at *location* is one, if of any."""
    annotation = Settings.model_fields[str(location[0])].annotation if location[0] in Settings.model_fields else None
    homes = [model for model in _models_of(annotation) if len(location) == 3 and location[-1] in model.model_fields]
    if not homes:
        return ""
    tag = "mode" if "mode" in homes[0].model_fields else "kind"
    return f"; it belongs to {tag}: {' or '.join(str(_tag_of(model)) for model in homes)}"


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    """Every settings class inside *annotation* (unions, Annotated, dict values)."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_of(argument)]


def _tag_of(model: type[BaseModel]) -> str | None:
    for name in ("kind", "mode"):
        if name in model.model_fields and (values := get_args(model.model_fields[name].annotation)):
            return str(values[0])
    return None


def _tags(annotation: Any) -> list[str]:
    return [tag for model in _models_of(annotation) if (tag := _tag_of(model))]


def _tags_at(path: Sequence[str | int]) -> list[str]:
    return _tags(Settings.model_fields[str(path[0])].annotation)


def _written_path(location: Sequence[str | int], values: Any) -> tuple[str | int, ...]:
    """Pydantic's *location* without the union tags in it, which nobody wrote as a key."""
    path: list[str | int] = []
    annotation: Any = Settings
    for i, part in enumerate(location):
        if path and not isinstance(values, dict | list):
            break  # what follows names a branch of a union of plain values
        models = _models_of(annotation)
        if tagged := [model for model in models if len(models) > 1 and _tag_of(model) == part]:
            annotation = tagged[0]
            continue
        if isinstance(values, dict) and part not in values and i < len(location) - 1:
            continue
        path.append(part)
        fields = models[0].model_fields if len(models) == 1 else {}
        annotation = fields[str(part)].annotation if part in fields else None
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            values = {}
    return tuple(path)


def _holder(location: Sequence[str | int]) -> type[BaseModel] | None:
    """The settings class that holds the last key of *location*."""
    annotation: Any = Settings
    for part in location[:-1]:
        models = _models_of(annotation)
        if tagged := [model for model in models if _tag_of(model) == part]:
            annotation = tagged[0]
        elif len(models) == 1 and part in models[0].model_fields:
            annotation = models[0].model_fields[str(part)].annotation
    models = _models_of(annotation)
    return models[0] if len(models) == 1 else None
