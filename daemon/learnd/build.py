"""The composition root: settings to a wired pipeline. The only module that knows every component."""

import time
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import keras
import tensorflow as tf

import learnd
from learnd.averaging import AVERAGERS
from learnd.checkpoint import Checkpoints
from learnd.config import ModelRecipe, Settings
from learnd.decoders import DECODERS
from learnd.decoders.admission import REASONS, Fields, fields_from
from learnd.decoders.settings import CsvSettings
from learnd.errors import ConfigError
from learnd.evaluation.prequential import Prequential
from learnd.exporters.publish import Exporter
from learnd.learners import LEARNERS
from learnd.learners.averaged import AveragedModel
from learnd.learners.chunk import CompiledChunk
from learnd.learners.optimizer import make_optimizer
from learnd.learners.settings import MicroBatchSettings
from learnd.loop import Pipeline
from learnd.models import MODELS
from learnd.models.core import CoreSpec
from learnd.protocols import DeadLetters, Decoder, Predictions, Source, Transform
from learnd.reader import Reader
from learnd.schedule import Every
from learnd.sinks.dead_letter import DroppedDeadLetters, FileDeadLetters, TopicDeadLetters
from learnd.sinks.predictions import FilePredictions, NoPredictions, TopicPredictions
from learnd.sinks.topics import TopicSink
from learnd.sources import SOURCES
from learnd.sources.file import read_header
from learnd.sources.settings import FileSettings, KafkaSettings
from learnd.tasks import TASKS
from learnd.tasks.settings import ForecastSettings, ReconstructionSettings
from learnd.telemetry import Metrics
from learnd.transforms.unchanged import Unchanged
from learnd.transforms.windows import SKIP_REASONS, Windows
from learnd.types import Records, TopicPartition


def configure_tensorflow(settings: Settings) -> None:
    """Settle how TensorFlow uses the machine. Once per process, before anything else of TensorFlow.

    Two threads on an update of a small network cost nearly twice the processor time and save none (MLP 32-16 with
    Adam: 13.1 against 7.2 us of it; `tests/bench/threads.py` compares sizes).
    """
    tf.config.threading.set_intra_op_parallelism_threads(settings.learning.threads)


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
    decoder = make_decoder(settings)
    network = make_network(settings)
    optimizer = make_optimizer(settings.learning.optimizer)
    optimizer.build(network.trainable_variables)
    averager = AVERAGERS[settings.averaging.kind].load()(settings.averaging)
    averager.build(network.averaged_weights())
    learning = settings.learning
    chunk = CompiledChunk(
        network,
        optimizer,
        averager,
        batch_rows=learning.batch_size if isinstance(learning, MicroBatchSettings) else 1,
        targets=_targets(settings),
    )
    averaged = AveragedModel(network, averager)
    metrics = Metrics(reject_reasons=REASONS, skip_reasons=SKIP_REASONS)
    metrics.build(name=settings.name, version=learnd.__version__, tensorflow=tf.__version__)
    checkpoint, export = settings.checkpoint, settings.export
    return Pipeline(
        reader=Reader(
            source if source is not None else make_source(settings, decoder),
            decoder,
            max_records=max_records,
            once=once,
        ),
        transform=make_transform(settings),
        learner=LEARNERS[learning.mode].load()(chunk, learning),
        averaged=averaged,
        evaluator=Prequential(reconstruction=isinstance(settings.task, ReconstructionSettings)),
        dead_letters=make_dead_letters(settings),
        predictions=make_predictions(settings),
        checkpoints=Checkpoints(
            settings.data_dir / "checkpoints",
            keep=checkpoint.keep,
            variables=_variables(network, optimizer, averager, chunk),
            fingerprint=settings.fingerprint(),
            clock=clock,
        ),
        exporter=Exporter(
            settings.data_dir / "exports",
            export,
            answer=averaged.predict,
            recipe=settings.model_dump(mode="json", include=set(ModelRecipe.model_fields)),
            description=describe(settings),
            clock=clock,
        ),
        metrics=metrics,
        checkpoint_every=Every(seconds=checkpoint.every_seconds, samples=checkpoint.every_samples, clock=clock),
        export_every=Every(seconds=export.every_seconds, samples=export.every_samples, clock=clock),
        retraces=lambda: chunk.retraces,
    )


def make_network(recipe: ModelRecipe, *, unroll: bool = False) -> Any:
    """The network that the recipe describes, with its first weights drawn from the seed."""
    features = len(recipe.features)
    window = recipe.task.window
    row_shape = (features,) if window is None else (window, features)
    outputs = prod(row_shape) if isinstance(recipe.task, ReconstructionSettings) else _targets(recipe)
    keras.utils.set_random_seed(recipe.seed)
    spec = CoreSpec(row_shape, outputs, seed=recipe.seed, unroll=unroll)
    core = MODELS[recipe.model.kind].load()(recipe.model, spec)
    return TASKS[recipe.task.kind].load()(core, row_shape, outputs)


def _targets(recipe: ModelRecipe) -> int:
    """Numbers in one target row."""
    if isinstance(recipe.task, ReconstructionSettings):
        return 0
    return len(recipe.features) if isinstance(recipe.task, ForecastSettings) else len(recipe.target)


def _variables(network: Any, optimizer: Any, averager: Any, chunk: CompiledChunk) -> dict[str, Any]:
    """Every variable that a checkpoint holds, by a name that is the same in every process."""
    named: dict[str, Any] = {}
    for prefix, variables in (("model", network.variables), ("optimizer", optimizer.variables)):
        for variable in variables:
            name = f"{prefix}/{variable.path.removeprefix('optimizer/')}"
            if name == "optimizer/learning_rate":
                continue  # the configuration's to say, also in the middle of a model's life
            # Adafactor gives its slots the names of their kinds alone.
            repeated = sum(known == name or known.startswith(f"{name}~") for known in named)
            named[f"{name}~{repeated}" if repeated else name] = variable
    named.update({f"averager/{name}": variable for name, variable in averager.variables().items()})
    named["learned"] = chunk.learned
    return named


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
    fields = fields_from(settings.features, settings.target, settings.decode)
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
    wanted += [name for name in (fields.time, fields.key) if name is not None and not name.startswith("__")]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise ConfigError(f"{place}: no column {', '.join(missing)}; there are {', '.join(columns)}")
    return columns


def make_transform(settings: Settings) -> Transform:
    """Windows per key where the task wants them."""
    task = settings.task
    if task.window is None:
        return Unchanged()
    return Windows(
        window=task.window,
        features=len(settings.features),
        targets=len(settings.target),
        forecast=isinstance(task, ForecastSettings),
        max_gap_s=task.max_gap_s,
        # The times at which a broker received records say nothing about repeated readings.
        drop_duplicates=task.duplicates == "drop" and settings.decode.time is not None,
        max_keys=task.max_keys,
    )


def make_dead_letters(settings: Settings) -> DeadLetters:
    """The configured sink, or one that counts and logs."""
    sink = settings.dead_letter
    if sink is None:
        return DroppedDeadLetters()
    if sink.path is not None:
        return FileDeadLetters(sink.path, settings.name)
    return TopicDeadLetters(_topic_sink(settings, "dead_letter"), settings.name)


def make_predictions(settings: Settings) -> Predictions:
    """The configured sink, or none."""
    sink = settings.predictions
    if sink is None:
        return NoPredictions()
    reconstruction = isinstance(settings.task, ReconstructionSettings)
    names = output_names(settings)
    if sink.path is not None:
        return FilePredictions(sink.path, names, reconstruction=reconstruction)
    return TopicPredictions(_topic_sink(settings, "predictions"), names, reconstruction=reconstruction)


def _topic_sink(settings: Settings, section: str) -> Any:
    assert isinstance(settings.source, KafkaSettings)
    topic = getattr(settings, section).topic
    return TopicSink(topic, settings.source.client_options(), key=f"{section}.topic")


def output_names(settings: Settings) -> tuple[str, ...]:
    """What the numbers of a prediction are called."""
    return tuple(settings.target) or settings.feature_names


def describe(settings: Settings) -> Mapping[str, Any]:
    """What the manifest says of the model, whatever it has learned."""
    return {
        "name": settings.name,
        "learnd": learnd.__version__,
        "config_sha256": settings.digest(),
        "task": settings.task.kind,
        "model": settings.model.kind,
        "features": [
            {"name": name, "min": feature.min, "max": feature.max} for name, feature in settings.features.items()
        ],
        "predicts": list(output_names(settings)),
        "window": settings.task.window,
    }
