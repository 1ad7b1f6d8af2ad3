"""One run of a pipeline in this process, and what came of it."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learnd.api.records import Record, as_values
from learnd.config.settings import Settings
from learnd.core.errors import UsageError
from learnd.runtime.data_dir_lock import DataDirLock

if TYPE_CHECKING:
    from learnd.core.protocols import Source
    from learnd.core.tensors import Array
    from learnd.core.types import PrequentialScores
    from learnd.runtime.loop import Pipeline

TOPIC = "records"
"""The topic of records that are passed to `run`, in predictions and positions."""
_VARIABLES = ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL")
"""Environment variables that TensorFlow reads when it starts, and that a run sets."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """The progress of a model over all runs with its ``data_dir``.

    Attributes
    ----------
    samples : samples that the model has learned
    updates : updates of the weights
    records : records that were read, with those that were rejected or skipped
    positions : the next offset to read, by topic and partition. Records that are passed to `run` are partition 0 of
        the topic ``records``; a file is partition 0 of a topic with its name
    """

    samples: int
    updates: int
    records: int
    positions: Mapping[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one call of `run`: what it read, predicted and learned, and the model afterwards.

    Attributes
    ----------
    records, samples, updates : records that this run read, samples that it learned, updates that it took
    rejected : records that could not be learned from, by reason, such as ``{"missing_field": 3}``
    skipped : good records that made no sample, by reason, such as ``{"window_filling": 23}``
    predictions : one dict per sample, in the order of arrival, as the predictions sink writes it: ``topic``,
        ``partition``, ``offset``, ``time_s`` (seconds since 1970 UTC), ``key``, ``prediction``, ``lower`` and ``upper``
        (the ends of its interval) and ``truth`` (by name, in the target's units; None while unknown), ``score`` and
        ``averaged_score`` (the loss of the live and of the averaged weights), and the fields of alarms, such as
        ``anomaly_probability`` and ``alarm``. Each prediction was made before its sample was learned
    scores : means over the last 1000 samples of the model's life
    state : the model's progress over its whole life
    weights : averaged weights and scales of the inputs and the target, by the names in a checkpoint
    classes : the names of the classes so far, in the order of the model's outputs; empty where there are none
    export : the folder of the newest export of this run, for `load_export`; None if it published none
    """

    records: int
    samples: int
    updates: int
    rejected: Mapping[str, int]
    skipped: Mapping[str, int]
    predictions: list[dict[str, Any]]
    scores: "PrequentialScores"
    state: ModelState
    weights: Mapping[str, "Array"]
    classes: tuple[str, ...]
    export: Path | None

    def __repr__(self) -> str:
        return (
            f"RunResult(records={self.records}, samples={self.samples}, rejected={dict(self.rejected)}, "
            f"skipped={dict(self.skipped)}, scores={self.scores}, state={self.state}, export={self.export})"
        )


def run(
    settings: Settings,
    records: Iterable[Record] | None = None,
    *,
    max_records: int | None = None,
    follow: bool = False,
    temporary: bool = False,
    collect: bool = True,
    stopping: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Learn from *records*, or from the configured source, and return what came of it.

    The state is restored from the settings' ``data_dir``, and is saved there at the end, as by ``learnd run``: another
    run with the same ``data_dir`` continues. One run over all records and several runs over parts of them give the same
    model, bit for bit. Configured sinks and exports are written too. There is no HTTP server and no signal handler.

    After an error or an interrupt of the kernel, nothing is saved: the next run continues from the last checkpoint
    (`checkpoint.every_seconds`). A model needs seconds to compile; for quick experiments set
    ``learning: {compile: false}``, which starts in about one second and learns many times slower.

    Building a model sets the global random seeds of Python, NumPy and TensorFlow, and clears Keras's global state.
    TensorFlow takes the number of threads and the options of its compiler only once per process: if it was used before
    the first run, `learning.threads` has no effect and the updates may be slower.

    Parameters
    ----------
    records : the next records of the stream, in place of the configured source: mappings of field names to values (a
        DataFrame's ``to_dict("records")``), or bytes or text that the configured decoder reads. In a mapping, NaN
        counts as a missing value. An iterator is read as needed, on another thread. Pass only new records to a later
        run
    max_records : stop after exactly this many records, counted with the rejected ones. Default: no limit
    follow : wait for new records of the configured source, until *max_records* or *stopping*. Default: stop at the
        present end of the stream
    temporary : start a new model in a temporary directory and delete it afterwards. Nothing is exported, and the
        configured sinks are not written. A Kafka source still commits its offsets to ``source.group_id``
    collect : keep the predictions in memory, about 1 kB each
    stopping : returns True to stop; called between batches, and about ten times per second while none comes. What was
        read by then is learned, for up to 5 s

    Raises
    ------
    UsageError
        if the stream has no end and nothing bounds the run, or if *records* cannot be used.
    ConfigError
        if a setting turns out to be wrong, or does not fit the existing state.
    DataDirLockedError
        if another run or daemon is using the ``data_dir``.
    BrokerUnavailableError, DataLossError, UnreadableError
        if Kafka cannot be read.
    StateDamagedError, SaveFailedError
        if the state cannot be restored or saved.
    ExportError
        if the last export failed; everything is learned and saved.

    Examples
    --------
    >>> import learnd
    >>> settings = learnd.from_dict({
    ...     "source": {"kind": "simulator"},  # not read here: the records are passed to run
    ...     "features": ["inlet", "outlet"],
    ...     "target": "power",
    ...     "model": {"kind": "linear"},
    ...     "learning": {"compile": False},
    ... })
    >>> readings = [{"inlet": i % 7, "outlet": i % 5, "power": 2.0 * (i % 5) - (i % 7)} for i in range(100)]
    >>> result = learnd.run(settings, [*readings, {"inlet": 1.0}], temporary=True)
    >>> result.samples, dict(result.rejected), result.state.positions
    (100, {'missing_field': 1}, {('records', 0): 101})
    >>> result.predictions[99]["truth"], result.predictions[99]["offset"]
    ({'power': 7.0}, 99)
    >>> result.scores.samples, result.scores.absolute_error < 3.0
    (100, True)
    >>> result.weights["model/output/kernel"].shape
    (2, 1)
    """
    if max_records is not None and max_records < 1:
        raise UsageError(f"max_records: is {max_records}, but must be at least 1")
    if records is None and not (follow or max_records or settings.source.has_present_end):
        raise UsageError("the stream has no end: pass max_records, or pass follow=True and stopping")
    collected: list[dict[str, Any]] = []
    with ExitStack() as stack:
        if temporary:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="learnd-"))
            settings = _without_traces(settings, Path(folder))
        stack.enter_context(DataDirLock(settings.data_dir))
        source: Source | None = None
        if records is not None:
            from learnd.sources.memory import NextRecords

            values, settings = as_values(records, settings)
            source = NextRecords(values, topic=TOPIC)
        stack.enter_context(_environment())
        pipeline = _make_pipeline(
            settings,
            stack,
            source=source,
            collected=collected if collect else None,
            once=source is None and not follow,
            max_records=max_records,
        )
        from learnd.runtime import loop

        loop.run(pipeline, stopping=stopping)
    return _result(pipeline, collected, settings.data_dir)


def _make_pipeline(settings: Settings, stack: ExitStack, **options: Any) -> "Pipeline":
    # TensorFlow takes seconds to import, so it comes after the checks of the arguments and the lock.
    import structlog

    from learnd.observability.logs import warnings_only
    from learnd.wiring.learner import configure_tensorflow
    from learnd.wiring.pipeline import make_pipeline

    stack.enter_context(warnings_only())
    try:
        configure_tensorflow(settings.learning)
    except RuntimeError:  # the number of threads is fixed once TensorFlow is running
        note = "TensorFlow was in use before; restart the process to change learning.threads"
        structlog.get_logger().warning("threads_unchanged", note=note)
    return make_pipeline(settings, **options)


@contextmanager
def _environment() -> Iterator[None]:
    """Silence TensorFlow's native logs, and restore `_VARIABLES` at the end: they belong to the caller's process."""
    before = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        yield
    finally:
        for name in _VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _without_traces(settings: Settings, folder: Path) -> Settings:
    """Return settings for a run that leaves nothing behind but what its Kafka group commits."""
    export = settings.export.model_copy(update={"formats": [], "upload": None, "signing_key_file": None})
    changes = {"data_dir": folder, "export": export, "predictions": None, "dead_letter": None}
    return settings.model_copy(update=changes)


def _result(pipeline: "Pipeline", predictions: list[dict[str, Any]], data_dir: Path) -> RunResult:
    progress, status, last = pipeline.progress, pipeline.status, pipeline.publishing.last
    began = status.began
    positions = {
        (partition.topic, partition.partition): position.offset for partition, position in progress.positions.items()
    }
    return RunResult(
        progress.records - began.records,
        progress.samples - began.samples,
        progress.updates - began.updates,
        {str(reason): count for reason, count in status.rejected.items()},
        {str(reason): count for reason, count in status.skipped.items()},
        predictions,
        status.scores,
        ModelState(progress.samples, progress.updates, progress.records, positions),
        pipeline.model.weights(),
        pipeline.model.classes(),
        data_dir / "exports" / str(last.number) if last is not None else None,
    )
