"""Checks across sections: settings that are valid by themselves and contradict each other."""

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
    """Yield a path and a message for each contradiction between sections."""
    task, model, source, decode = settings.task, settings.model, settings.source, settings.decode
    if isinstance(task, RegressionSettings | ClassificationSettings):
        if not settings.target:
            yield ("target",), f"is required for task.kind {task.kind}: name the field to predict, or change task.kind"
    elif settings.target:
        yield ("target",), f"has no effect for task.kind {task.kind}; remove it, or use regression"
    if isinstance(task, ClassificationSettings) and len(settings.target) > 1:
        yield ("target",), f"must name one field for a classification, not {len(settings.target)}"
    for key in ("time", "key"):
        name = getattr(decode, key)
        if name is not None and (name in settings.features or name in settings.target):
            yield ("decode", key), f"{name} is also a feature or a target; a field can have only one role"
    if decode.time is not None and decode.time == decode.key:
        yield ("decode", "key"), f"{decode.key} is also the time; a field can have only one role"
    for name in settings.target:
        if name in settings.features:
            yield ("target",), f"{name} is also a feature; a model that sees its target learns nothing"
    if len(set(settings.target)) < len(settings.target):
        yield ("target",), "names a field more than once; name each field once"
    if model.kind in SEQUENCE_MODELS and task.window is None:
        yield ("model", "kind"), f"{model.kind} needs a sequence: set task.window to the number of readings"
    if isinstance(model, AutoencoderSettings) and not isinstance(task, ReconstructionSettings):
        yield ("model", "kind"), "autoencoder needs task.kind reconstruction; use mlp, or change the task"
    if isinstance(task, ForecastSettings) and task.max_gap_s is not None and _untimed(settings):
        yield ("task", "max_gap_s"), "needs event times: name the field in decode.time"
    for name, feature in settings.features.items():
        if feature.min is not None and feature.max is not None and feature.min >= feature.max:
            yield ("features", name), f"min {feature.min} must be below max {feature.max}"
        if feature.stuck_after is not None and feature.on_fault == "hold":
            yield ("features", name, "on_fault"), "hold would repeat the reading that is stuck; use mean or reject"
        if feature.on_fault != "reject" and not feature.has_rule:
            yield ("features", name, "on_fault"), "has no effect without min, max, max_change or stuck_after; set one"
    yield from _model_contradictions(settings)
    yield from _learning_contradictions(settings)
    if isinstance(decode, CsvSettings):
        yield from _csv_contradictions(settings, decode)
    if isinstance(decode, Float32Settings) and isinstance(source, FileSettings):
        yield ("decode", "kind"), "float32 rows are not lines, so a file source cannot read them; use csv or json"
    for section in ("dead_letter", "predictions"):
        sink = getattr(settings, section)
        if sink is not None and sink.topic is not None:
            if not isinstance(source, KafkaSettings):
                yield (section, "topic"), "needs source.kind kafka; set path instead"
            elif sink.topic in source.topics:
                yield (section, "topic"), f"{sink.topic} is read by the source; learnd would read its own output"
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
                yield (section, "path"), f"{sink.path} is also the path of {other}; use a different file for each"
        paths[section] = sink.path if sink is not None else None
    yield from _export_contradictions(settings.export)
    if settings.checkpoint.every_seconds is None and settings.checkpoint.every_samples is None:
        yield ("checkpoint",), "set every_seconds or every_samples"


def _export_contradictions(export: ExportSettings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if export.every_seconds is None and export.every_samples is None:
        yield ("export",), "set every_seconds or every_samples; to publish nothing, set formats: []"
    if not export.formats and (export.upload is not None or export.signing_key_file is not None):
        yield ("export", "formats"), "is empty, so there is nothing to sign or upload; add one, or remove those options"


def _model_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    model = settings.model
    batches = isinstance(settings.learning, MicroBatchSettings)
    if getattr(model, "normalization", None) == "batch" and not batches:
        yield ("model", "normalization"), "batch needs learning.mode micro_batch: one sample has no variance; use layer"
    if model.load is None:
        for name in ("code", "allow_lambda"):
            if getattr(model, name):
                yield ("model", name), "has an effect only on a loaded model; name a file in model.load, or remove it"
        if model.head is not None and not isinstance(model, FactorySettings):
            yield ("model", "head"), f"replaces the last layers of an existing model; {model.kind} already fits"


def _learning_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    learning = settings.learning
    if learning.class_weights is not None and not isinstance(settings.task, ClassificationSettings):
        yield ("learning", "class_weights"), f"{settings.task.kind} has no classes; remove it"
    if learning.sample_weight is not None and learning.sample_weight in (*settings.features, *settings.target):
        yield ("learning", "sample_weight"), f"{learning.sample_weight} is also a feature or a target"
    if learning.elastic and settings.averaging.kind == "none":
        yield ("learning", "elastic"), "needs averaged weights to pull towards; set averaging.kind to window or ema"
    if learning.update is not None:
        for name in ("loss", "sample_weight", "class_weights", "replay"):
            if getattr(learning, name) is not None:
                yield ("learning", name), "has no effect with learning.update, which brings its own; remove one of them"


def _untimed(settings: Settings) -> bool:
    return isinstance(settings.source, FileSettings) and settings.decode.time is None


def _csv_contradictions(settings: Settings, decode: CsvSettings) -> Iterator[tuple[tuple[str | int, ...], str]]:
    source = settings.source
    from_header = isinstance(source, FileSettings) and source.header
    if decode.columns is None:
        if not from_header:
            yield ("decode", "columns"), "is required, because these records have no header line with column names"
        return
    names = [*settings.features, *settings.target, decode.time, decode.key, settings.learning.sample_weight]
    for name in names:
        if name is not None and name not in decode.columns and not name.startswith("__"):
            yield ("decode", "columns"), f"lacks {name}{suggestion(name, decode.columns)}"
