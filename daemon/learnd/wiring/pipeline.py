"""The composition root: settings to a wired pipeline. The only module that knows every component."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import structlog
import tensorflow as tf

import learnd
from learnd.averaging import AVERAGERS
from learnd.checkpoint.checkpointer import Checkpoints
from learnd.config.settings import LearningRecipe, ModelRecipe, Settings
from learnd.core.errors import ConfigError
from learnd.core.protocols import DeadLetters, Decoder, Learner, Predictions, Source, Transform
from learnd.core.schedule import IntervalTrigger
from learnd.core.types import UNREADABLE, Records, TopicPartition
from learnd.decoders import DECODERS
from learnd.decoders.settings import CsvSettings
from learnd.decoders.validation import REASONS, Fields, fields_from
from learnd.evaluation.prequential import Prequential
from learnd.export.exportable_model import argument_names
from learnd.export.publisher import Exporter
from learnd.export.settings import ExportSettings
from learnd.export.signing import Signer
from learnd.export.upload import Uploader
from learnd.learners import LEARNERS
from learnd.learners.averaged import AveragedModel, as_arrays
from learnd.learners.chunk import CompiledChunk
from learnd.learners.guard import Guard
from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import AnyLearner, MicroBatchSettings, PerSampleSettings
from learnd.observability.metrics import Metrics
from learnd.runtime.loop import Pipeline
from learnd.runtime.reader import Reader
from learnd.sinks.dead_letter import DroppedDeadLetters, FileDeadLetters, TopicDeadLetters
from learnd.sinks.predictions import FilePredictions, Lines, NoPredictions, TopicPredictions
from learnd.sinks.topics import TopicSink
from learnd.sources import SOURCES
from learnd.sources.file import read_header
from learnd.sources.kafka_auth import client_options
from learnd.sources.settings import FileSettings, KafkaSettings
from learnd.tasks.settings import ClassificationSettings, ForecastSettings, ReconstructionSettings
from learnd.transforms import labels as transforms_of_labels
from learnd.transforms import rules, windows
from learnd.transforms.chain import Chain
from learnd.transforms.labels import Labels
from learnd.transforms.unchanged import Unchanged
from learnd.wiring.model import make_model, make_update, named_variables, require_no_batch_statistics, targets_of
from learnd.wiring.warm_start import pinned_copy

log = structlog.get_logger()

_XLA_EXTRA = "xla_backend_extra_options"
_ONE_KERNEL = "xla_cpu_small_while_loop_byte_threshold=1000000"
"""By default only loops that touch less than 1024 bytes a turn become one kernel."""


def configure_tensorflow(learning: AnyLearner) -> None:
    """Settle how TensorFlow uses the machine. Once per process, before anything is compiled.

    Two threads on an update of a small network cost nearly twice the processor time and save none (MLP 32-16 with
    Adam: 13.1 against 7.2 us of it; `tests/bench/threads.py` compares sizes). One update per sample becomes 1.3 to 7
    times faster where XLA makes one kernel of the whole loop; micro-batches, whose matrix products are worth kernels of
    their own, would become up to five times slower (`tests/bench/models.py`).
    """
    tf.config.threading.set_intra_op_parallelism_threads(learning.threads)
    flags = os.environ.get("XLA_FLAGS", "")
    if isinstance(learning, PerSampleSettings) and _XLA_EXTRA not in flags:  # an operator's own choice stays
        os.environ["XLA_FLAGS"] = f"{flags} --{_XLA_EXTRA}={_ONE_KERNEL}".strip()


def make_pipeline(
    settings: Settings,
    *,
    source: Source | None = None,
    once: bool = False,
    max_records: int | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Pipeline:
    """Everything that ``learnd run`` needs, wired but not yet open.

    Parameters
    ----------
    source : instead of the configured one, for tests (`learnd.sources.memory.MemorySource`)

    Raises
    ------
    ConfigError
        where only building it shows that a setting is wrong.
    """
    recipe = pinned_copy(settings, settings.data_dir)
    decoder = make_decoder(settings)
    core = make_learning(settings, recipe)
    labels = core.labels
    metrics = Metrics(
        reject_reasons=tuple(dict.fromkeys((*REASONS, UNREADABLE, *rules.REASONS))),
        skip_reasons=(*windows.SKIP_REASONS, *transforms_of_labels.SKIP_REASONS),
        replace_reasons=rules.REASONS,
    )
    metrics.build(name=settings.name, version=learnd.__version__, tensorflow=tf.__version__)
    checkpoint, export = settings.checkpoint, settings.export
    _check_key(export)
    return Pipeline(
        reader=Reader(
            source if source is not None else make_source(settings, decoder),
            decoder,
            max_records=max_records,
            once=once,
        ),
        rules=make_rules(settings),
        transform=make_transform(settings, labels),
        learner=core.learner,
        averaged=core.averaged,
        evaluator=Prequential(of=_judged(settings)),
        dead_letters=make_dead_letters(settings),
        predictions=make_predictions(settings, labels),
        checkpoints=Checkpoints(
            settings.data_dir / "checkpoints",
            keep=checkpoint.keep,
            variables=core.variables,
            fingerprint=settings.fingerprint(),
            clock=clock,
        ),
        learning_state=lambda: as_arrays(core.continuation),
        exporter=Exporter(
            settings.data_dir / "exports",
            export,
            answer=core.averaged.predict,
            freeze=lambda x, weights: core.averaged.frozen_losses(
                weights, x[:1], np.zeros((1, targets_of(settings)), np.float32)
            ),
            recipe=recipe.model_dump(mode="json", include=set(LearningRecipe.model_fields)),
            description=describe(settings),
            uploader=Uploader(export.upload, clock=clock) if export.upload is not None else None,
            clock=clock,
        ),
        metrics=metrics,
        wait_for_broker=isinstance(settings.source, KafkaSettings) and settings.source.startup == "retry",
        checkpoint_every=IntervalTrigger(
            seconds=checkpoint.every_seconds, samples=checkpoint.every_samples, clock=clock
        ),
        retry_every=IntervalTrigger(seconds=checkpoint.retry_seconds, samples=None, clock=clock),
        max_failures=checkpoint.max_failures,
        export_every=IntervalTrigger(seconds=export.every_seconds, samples=export.every_samples, clock=clock),
        retraces=lambda: core.chunk.retraces,
        # Once a batch: a variable's own `numpy` takes 50 microseconds, this 15, and learning one sample some 500.
        refusals=lambda: (int(core.guard.refused.value().numpy()), int(core.guard.rollbacks.value().numpy())),
        classes=(lambda: labels.names[: int(core.network.known.numpy())]) if labels is not None else tuple,
    )


def check(settings: Settings) -> str:
    """Make, load and compile the model as ``run`` would, and join no stream; returns what was made, for people.

    Raises
    ------
    ConfigError
        where that shows that a setting is wrong.
    """
    make_decoder(settings)
    _check_key(settings.export)
    core = make_learning(settings, settings)
    core.learner.prepare()
    numbers, trained = (
        sum(int(tf.size(v)) for v in variables)
        for variables in (core.network.core.weights, core.network.trainable_variables)
    )
    return f"{numbers:,} weights, {trained:,} of them learn, by {core.optimizer}"


def _check_key(export: ExportSettings) -> None:
    """A key that is not there is told before the stream is joined."""
    if export.signing_key_file is not None:
        Signer(export.signing_key_file)


@dataclass(frozen=True, slots=True)
class Learning:
    """What learns, wired: a network, its optimizer and averages, inside a learner; and all that a checkpoint holds."""

    network: Any
    learner: Learner
    averaged: AveragedModel
    chunk: CompiledChunk
    guard: Guard
    labels: Labels | None
    variables: Mapping[str, Any]
    continuation: Mapping[str, Any]
    """What an exported model needs beside its weights to go on learning."""
    optimizer: str


def make_learning(settings: Settings, recipe: ModelRecipe) -> Learning:
    """The model of *recipe*, and everything that it learns with as *settings* say.

    Raises
    ------
    ConfigError
        where only building it shows that a setting is wrong.
    """
    learning = settings.learning
    made = make_model(recipe, loss=learning.loss)
    network = made.network
    if isinstance(learning, PerSampleSettings):
        require_no_batch_statistics(network)
    averager = AVERAGERS[settings.averaging.kind].load()(settings.averaging)
    averager.build(network.averaged_weights())
    batch_rows = learning.batch_size if isinstance(learning, MicroBatchSettings) else 1
    targets = targets_of(settings)
    averaged = AveragedModel(network, averager, batch_rows=batch_rows)
    replay = None
    if learning.replay is not None:
        replay = ReplayBuffer(
            learning.replay, rows=batch_rows, row_shape=network.row_shape, targets=targets, seed=settings.seed
        )
    update = make_update(made, learning, averaged, replay)
    chunk = CompiledChunk(
        network,
        update,
        averaged,
        batch_rows=batch_rows,
        targets=targets,
        compile=learning.compile,
        thaw=made.freeze.thaw,
        thaw_at=made.thaw_at,
    )
    if not learning.compile:
        log.warning("runs_without_xla", note="learning.compile is false: many times slower (README, How fast)")
    owners = {
        "averager": averager,
        "averaged": averaged,
        "guard": update.guard,
        **({"replay": replay} if replay is not None else {}),
    }
    trained = named_variables(network, update.optimizer)
    served = {id(v) for v in network.served_state()}
    return Learning(
        network,
        LEARNERS[learning.mode].load()(chunk, learning),
        averaged,
        chunk,
        update.guard,
        _labels(settings, made.labels),
        {
            **trained,
            **{f"{prefix}/{name}": v for prefix, owner in owners.items() for name, v in owner.variables().items()},
            "learned": chunk.learned,
        },
        {**{name: v for name, v in trained.items() if id(v) not in served}, "learned": chunk.learned},
        type(update.optimizer).__name__,
    )


def make_source(settings: Settings, decoder: Decoder) -> Source:
    """The configured source."""
    options: dict[str, Any] = {}
    if isinstance(settings.source, KafkaSettings):
        options["group_id"] = f"learnd-{settings.name}"
    if isinstance(settings.source, FileSettings):
        options["max_line_bytes"] = settings.decode.max_bytes
        if settings.source.speed is not None:
            options["moment"] = lambda line: _moment(decoder, line)
    source: Source = SOURCES[settings.source.kind].load()(settings.source, **options)
    return source


def _moment(decoder: Decoder, line: bytes) -> float | None:
    """The event time of one line; None for a line that will be rejected."""
    samples, _ = decoder.decode(Records(TopicPartition("", 0), [0], [line], [None], [0], 1))
    return float(samples.times_s[0]) if len(samples) else None


def make_decoder(settings: Settings) -> Decoder:
    """The configured decoder; a CSV file's header line names its columns."""
    task = settings.task
    classify = isinstance(task, ClassificationSettings)
    fields = fields_from(
        settings.features,
        settings.target,
        settings.decode,
        weight=settings.learning.sample_weight,
        classes=None if not isinstance(task, ClassificationSettings) or task.classes == "dynamic" else task.classes,
        classify=classify,
        keep_blocks=bool(rules.rules_from(settings.features)),
    )
    options: dict[str, Any] = {}
    decode, source = settings.decode, settings.source
    if isinstance(decode, CsvSettings):
        from_file = isinstance(source, FileSettings)
        options["delimiter"] = decode.delimiter or (source.separator() if isinstance(source, FileSettings) else ",")
        columns = decode.columns
        if columns is None and isinstance(source, FileSettings):
            columns = read_header(source)
        options["columns"] = _with_wanted(columns or [], fields, "source.path" if from_file else "decode.columns")
    decoder: Decoder = DECODERS[decode.kind].load()(fields, **options)
    return decoder


def _with_wanted(columns: list[str], fields: Fields, place: str) -> list[str]:
    wanted = [field.name for field in fields.numbers]
    others = (fields.time, fields.key, fields.label)
    wanted += [name for name in others if name is not None and not name.startswith("__")]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ConfigError(f"{place}: no column {', '.join(missing)}; there are {', '.join(columns)}")
    return columns


def make_rules(settings: Settings) -> Transform:
    """The rules of the features, where any has one that looks at more than a single reading."""
    found = rules.rules_from(settings.features)
    if not found:
        return Unchanged()
    return rules.Rules(found, drop_duplicates=_drops_duplicates(settings), max_keys=settings.task.max_keys)


def _drops_duplicates(settings: Settings) -> bool:
    # The times at which a broker received records say nothing about repeated readings.
    return settings.task.duplicates == "drop" and settings.decode.time is not None


def make_transform(settings: Settings, labels: Labels | None) -> Transform:
    """Windows per key where the task wants them, then class numbers where there are classes."""
    task = settings.task
    parts: list[Transform] = []
    if task.window is not None:
        parts.append(
            windows.Windows(
                window=task.window,
                features=len(settings.features),
                targets=len(settings.target),
                horizon=task.horizon if isinstance(task, ForecastSettings) else 0,
                max_gap_s=task.max_gap_s,
                drop_duplicates=_drops_duplicates(settings),
                max_keys=task.max_keys,
            )
        )
    if labels is not None:
        parts.append(labels)
    if not parts:
        return Unchanged()
    return parts[0] if len(parts) == 1 else Chain(parts)


def _labels(settings: Settings, first: Sequence[str]) -> Labels | None:
    if not isinstance(settings.task, ClassificationSettings):
        return None
    return Labels(first, capacity=settings.task.capacity, weights=settings.learning.class_weights)


def _judged(settings: Settings) -> Literal["targets", "inputs", "classes"]:
    if isinstance(settings.task, ReconstructionSettings):
        return "inputs"
    return "classes" if isinstance(settings.task, ClassificationSettings) else "targets"


def make_dead_letters(settings: Settings) -> DeadLetters:
    """The configured sink, or one that counts and logs."""
    sink = settings.dead_letter
    if sink is None:
        return DroppedDeadLetters()
    if sink.path is not None:
        return FileDeadLetters(sink.path, settings.name)
    return TopicDeadLetters(_topic_sink(settings, "dead_letter"), settings.name)


def make_predictions(settings: Settings, labels: Labels | None) -> Predictions:
    """The configured sink, or none."""
    sink = settings.predictions
    if sink is None:
        return NoPredictions()
    names = output_names(settings)
    describe_result = Lines(_judged(settings), (lambda: labels.names) if labels is not None else (lambda: names))
    if sink.path is not None:
        return FilePredictions(sink.path, describe_result)
    return TopicPredictions(_topic_sink(settings, "predictions"), describe_result)


def _topic_sink(settings: Settings, section: str) -> Any:
    assert isinstance(settings.source, KafkaSettings)
    topic = getattr(settings, section).topic
    return TopicSink(topic, client_options(settings.source), key=f"{section}.topic")


def output_names(settings: Settings) -> tuple[str, ...]:
    """What the numbers of a prediction are called."""
    task = settings.task
    if isinstance(task, ForecastSettings) and task.horizon > 1:
        return tuple(f"{name}+{ahead}" for ahead in range(1, task.horizon + 1) for name in settings.features)
    return tuple(settings.target) or settings.feature_names


def describe(settings: Settings) -> Mapping[str, Any]:
    """What the manifest says of the model, whatever it has learned."""
    inputs = argument_names(settings.feature_names)
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
                "missing": feature.missing,
            }
            for name, feature in settings.features.items()
        ],
        "predicts": list(output_names(settings)),
        "window": settings.task.window,
    }
