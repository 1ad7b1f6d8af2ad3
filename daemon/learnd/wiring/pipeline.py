"""The composition root: builds a pipeline from settings."""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import tensorflow as tf

import learnd
from learnd.alarms.feedback import FILE
from learnd.checkpoint.checkpointer import Checkpoints
from learnd.config.settings import FeatureSettings, LearningRecipe, Settings
from learnd.core.protocols import Intervals, Source
from learnd.core.schedule import Clock, IntervalTrigger
from learnd.core.seasons import Season
from learnd.decoders.settings import DecoderSettings
from learnd.evaluation.evaluation import Evaluation, EvaluationSpec
from learnd.evaluation.intervals import ConformalIntervals, NoIntervals
from learnd.export.exportable_model import argument_names
from learnd.export.publisher import Exporter
from learnd.export.rehearsal import Rehearsal
from learnd.export.settings import ExportSettings
from learnd.export.signing import Signer
from learnd.export.upload import Uploader
from learnd.learners.schedule_check import decays_to_zero
from learnd.observability.metrics import Metrics
from learnd.runtime.alarming import Alarming
from learnd.runtime.drifting import Drifting
from learnd.runtime.feedback import FeedbackFile
from learnd.runtime.loop import Pipeline
from learnd.runtime.model_events import ModelEvents
from learnd.runtime.publishing import Publishing
from learnd.runtime.quality_watch import QualityWatch
from learnd.runtime.reader import Reader
from learnd.runtime.saving import Saving
from learnd.transforms.labels import Labels
from learnd.transforms.rules import rules_from
from learnd.wiring.alarms import make_monitor
from learnd.wiring.drift import make_drift_monitor
from learnd.wiring.fresh_snapshot import fresh_snapshot
from learnd.wiring.learner import Learning, make_learning
from learnd.wiring.model import with_whole_inputs
from learnd.wiring.sinks import make_alarm_sink, make_dead_letters, make_predictions
from learnd.wiring.stream import make_decoder, make_source, make_transforms
from learnd.wiring.warm_start import pinned_copy

log = structlog.get_logger()


def make_pipeline(
    settings: Settings,
    *,
    source: Source | None = None,
    collected: list[dict[str, Any]] | None = None,
    once: bool = False,
    max_records: int | None = None,
    clock: Clock = time.monotonic,
) -> Pipeline:
    """Return the configured pipeline, not opened yet.

    Parameters
    ----------
    source : replaces the configured one, for tests and notebooks (`learnd.sources.memory`)
    collected : if given, each prediction is also appended to this list, as the predictions sink describes it
    once : stop at the current end of the stream
    max_records : stop after exactly this many records

    Raises
    ------
    ConfigError
        if building the parts shows that a setting is wrong.
    """
    recipe = pinned_copy(settings, settings.data_dir)
    core = make_learning(settings, recipe)
    if core.whole is not None:
        settings = with_whole_inputs(settings, core.whole)
        recipe = with_whole_inputs(recipe, core.whole)
    decoder = make_decoder(settings)
    labels = core.labels
    metrics = Metrics()
    metrics.build(name=settings.name, version=learnd.__version__, tensorflow=tf.__version__)
    _require_key(settings.export)
    _warn_of_decay(settings)
    evaluator = _evaluation(settings, labels)
    publishing = _publishing(settings, recipe, core, metrics, clock, evaluator)
    return Pipeline(
        reader=Reader(
            source if source is not None else make_source(settings, decoder),
            decoder,
            max_records=max_records,
            once=once,
            keep_records=bool(rules_from(settings.features)) or settings.decode.long is not None,
        ),
        transforms=make_transforms(settings, labels),
        model=core.model,
        alarming=Alarming(
            make_monitor(settings),
            make_alarm_sink(settings),
            metrics,
            FeedbackFile(settings.data_dir / FILE, clock=clock),
            clock=clock,
        ),
        drifting=_drifting(settings, core, metrics, publishing),
        intervals=_intervals(settings),
        evaluator=evaluator,
        quality=QualityWatch(evaluator, metrics, clock=clock, coverage=settings.interval_coverage),
        dead_letters=make_dead_letters(settings),
        predictions=make_predictions(
            settings, lambda: settings.output_names if labels is None else labels.names, collected=collected
        ),
        saving=_saving(settings, core, metrics, clock),
        publishing=publishing,
        metrics=metrics,
        events=ModelEvents(core.model, metrics),
        wait_for_broker=settings.source.waits_for_broker,
    )


def _drifting(settings: Settings, core: Learning, metrics: Metrics, publishing: Publishing) -> Drifting:
    monitor = make_drift_monitor(settings, core.controls, export=publishing.trigger.hasten)
    within_learning = settings.drift.changes_model
    if within_learning:
        core.chunk.reviewer = monitor
    return Drifting(monitor, metrics, within_learning=within_learning)


def _saving(settings: Settings, core: Learning, metrics: Metrics, clock: Clock) -> Saving:
    checkpoint = settings.checkpoint
    return Saving(
        Checkpoints(
            settings.data_dir / "checkpoints",
            keep=checkpoint.keep,
            variables=core.variables,
            fingerprint=settings.fingerprint(),
            clock=clock,
        ),
        trigger=IntervalTrigger(seconds=checkpoint.every_seconds, samples=checkpoint.every_samples, clock=clock),
        retry=IntervalTrigger(seconds=checkpoint.retry_seconds, samples=None, clock=clock),
        max_failures=checkpoint.max_failures,
        metrics=metrics,
    )


def _warn_of_decay(settings: Settings) -> None:
    """Log a warning if the learning rate decays to zero: a stream has no end, and such a model stops to learn."""
    optimizer = getattr(settings.learning, "optimizer", None)
    rate = getattr(optimizer, "learning_rate", None)
    if isinstance(rate, dict) and decays_to_zero(rate):
        log.warning(
            "learning_rate_decays_to_zero",
            option="learning.optimizer.learning_rate",
            schedule=rate["kind"],
            note="then nothing is learned any more, however the stream changes; set a number, or a schedule that ends "
            "above zero, such as CosineDecay with alpha: 0.1",
        )


def _evaluation(settings: Settings, labels: Labels | None) -> Evaluation:
    task, features = settings.task, settings.reading_names
    spec = EvaluationSpec(
        of=task.evaluated_on,
        naive=task.naive,
        outputs=settings.output_count,
        features=len(features),
        parts=task.reported_parts(features, settings.target),
    )
    return Evaluation(spec, (lambda: labels.names) if labels is not None else tuple)


def _intervals(settings: Settings) -> Intervals:
    coverage = settings.interval_coverage
    return NoIntervals() if coverage is None else ConformalIntervals(coverage, settings.output_count)


def _publishing(
    settings: Settings,
    recipe: LearningRecipe,
    core: Learning,
    metrics: Metrics,
    clock: Clock,
    evaluator: Evaluation,
) -> Publishing:
    export = settings.export.with_naive_gate(settings.task.naive_in_exports)
    averaged = core.model.averaged
    no_target = np.zeros((1, settings.target_count))
    exporter = Exporter(
        settings.data_dir / "exports",
        export,
        answer=averaged.predict,
        freeze=lambda x, weights: averaged.frozen_losses(weights, x[:1].astype(np.float64), no_target),
        recipe=recipe.model_dump(mode="json", include=set(LearningRecipe.model_fields)),
        description=describe(settings),
        uploader=Uploader(export.upload, clock=clock) if export.upload is not None else None,
        clock=clock,
    )
    trigger = IntervalTrigger(seconds=export.every_seconds, samples=export.every_samples, clock=clock)
    rehearsal = _rehearsal(settings, recipe, core, settings.data_dir / "exports")
    return Publishing(exporter, trigger=trigger, metrics=metrics, measure=evaluator.measure, rehearsal=rehearsal)


def _rehearsal(settings: Settings, recipe: LearningRecipe, core: Learning, directory: Path) -> Rehearsal:
    return Rehearsal(
        directory,
        settings.export,
        snapshot=lambda: fresh_snapshot(core, settings.features),
        recipe=recipe.model_dump(mode="json", include=set(LearningRecipe.model_fields)),
        description=describe(settings),
    )


def check(settings: Settings) -> str:
    """Build, load and compile the model as ``run`` does, without opening the stream; return a description of it.

    Raises
    ------
    ConfigError
        if a setting is wrong.
    """
    _require_key(settings.export)
    core = make_learning(settings, settings)
    if core.whole is not None:
        settings = with_whole_inputs(settings, core.whole)
    make_decoder(settings)
    with tempfile.TemporaryDirectory() as folder:
        rehearsal = _rehearsal(settings, settings, core, Path(folder))
        rehearsal.begin(fresh=True)
        core.model.learner.prepare()
        rehearsal.finish(lambda: False)
    weights, trainable = (
        sum(int(tf.size(v)) for v in variables)
        for variables in (core.network.core.weights, core.network.trainable_variables)
    )
    return f"{weights:,} weights, {trainable:,} of them trained, by {core.optimizer}"


def _require_key(export: ExportSettings) -> None:
    """Raise `ConfigError` for an unusable signing key, before the stream is opened."""
    if export.signing_key_file is not None:
        Signer(export.signing_key_file)


def _season(season: Season | None, decode: DecoderSettings) -> dict[str, object] | None:
    """Return what a manifest says about a seasonal input; None for a reading."""
    if season is None:
        return None
    # A reader of the manifest knows only ISO 8601 in UTC and numbers. Other times it must not take for those: without
    # a field, it expects the seconds since the period began.
    portable = decode.time_format is None and decode.time_zone is None and decode.time_of_day is None
    time = (season.time or decode.time) if portable else None
    return {
        "period_s": season.period_s,
        "origin_s": season.origin_s,
        "time": time,
        "time_unit": decode.time_unit if time is not None else None,
    }


def _missing(feature: FeatureSettings, *, fills_gaps: bool) -> float | str | None:
    """Return what stands for a missing reading in an export: a number, or ``mean``; None: nothing does."""
    if feature.missing is None and fills_gaps and feature.season is None:
        return "mean"
    return None if feature.missing == "reject" else feature.missing


def describe(settings: Settings) -> Mapping[str, object]:
    """Return the part of the manifest that depends only on the settings."""
    inputs = argument_names(settings.feature_names)
    seasons = {season.name: season for season in settings.seasons}
    return {
        "name": settings.name,
        "config_sha256": settings.digest(),
        "task": settings.task.kind,
        "model": settings.model.kind,
        "features": [
            {
                "name": name,
                "input": inputs[name],
                "min": feature.min,
                "max": feature.max,
                "missing": _missing(feature, fills_gaps=settings.fills_gaps),
                "season": _season(seasons.get(name), settings.decode),
                "indicator": feature.indicator,
            }
            for name, feature in settings.features.items()
        ],
        "predicts": list(settings.output_names),
        "window": settings.task.window,
        "baseline": settings.task.naive,
    }
