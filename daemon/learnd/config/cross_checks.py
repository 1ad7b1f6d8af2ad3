"""What is wrong between sections that are each right by themselves."""

from collections.abc import Iterator

from learnd.config.error_messages import suggestion
from learnd.config.settings import Settings
from learnd.decoders.settings import CsvSettings, Float32Settings
from learnd.export.settings import ExportSettings
from learnd.learners.settings import MicroBatchSettings
from learnd.models.settings import SEQUENCE_MODELS, AutoencoderSettings, FactorySettings
from learnd.sources.settings import FileSettings, KafkaSettings
from learnd.tasks.settings import (
    ClassificationSettings,
    ForecastSettings,
    ReconstructionSettings,
    RegressionSettings,
)


def contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
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
            if (
                sink is not None
                and sink.path is not None
                and path is not None
                and sink.path.resolve() == path.resolve()
            ):
                yield (section, "path"), f"{sink.path} is the {other}'s path too; each needs a file of its own"
        paths[section] = sink.path if sink is not None else None
    yield from _export_contradictions(settings.export)
    if settings.checkpoint.every_seconds is None and settings.checkpoint.every_samples is None:
        yield ("checkpoint",), "set every_seconds or every_samples"


def _export_contradictions(export: ExportSettings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if export.every_seconds is None and export.every_samples is None:
        yield ("export",), "set every_seconds or every_samples; formats: [] is how to publish nothing"
    if not export.formats and (export.upload is not None or export.signing_key_file is not None):
        yield ("export", "formats"), "is empty, so there is nothing to sign or to upload; name one, or take those out"


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
            yield ("decode", "columns"), f"lacks {name}{suggestion(name, decode.columns)}"
