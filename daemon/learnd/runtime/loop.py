"""The whole flow on one screen."""

import functools
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from learnd.checkpoint.checkpointer import Checkpoints, Saved
from learnd.core.errors import BrokerUnavailableError, ExportError, FileLostError, SaveFailedError
from learnd.core.protocols import DeadLetters, Evaluator, Learner, Predictions, Stateful, Transform
from learnd.core.schedule import IntervalTrigger
from learnd.core.types import Batch, PrequentialScores, Snapshot
from learnd.evaluation.export_loss import FrozenForward
from learnd.export.publisher import Exported, Exporter
from learnd.export.upload import Uploaded
from learnd.learners.averaged import AveragedModel
from learnd.observability.metrics import Metrics
from learnd.runtime.progress import Progress, Recent, readable
from learnd.runtime.reader import BATCH_RECORDS, Reader

log = structlog.get_logger()

POLL_S = 0.1
BATCH_S = 0.5
DRAIN_S = 5.0
"""After a stop, batches that were read already are still learned for so long; the rest is read again later."""
STOP_S = 18.0
"""After a stop, the last export is given up at this point; the promise is an end within 25 s."""
RECONNECT_S = 1.0
"""Between two attempts to reach the broker at the start; one lasts up to ``connect_timeout_s`` by itself."""


@dataclass(slots=True)
class Pipeline:
    """The wired parts. `learnd.wiring.pipeline` makes one."""

    reader: Reader
    rules: Transform
    """What the features' rules reject or replace; apart from `transform`, for rules may come and go between runs."""
    transform: Transform
    learner: Learner
    averaged: AveragedModel
    evaluator: Evaluator
    dead_letters: DeadLetters
    predictions: Predictions
    checkpoints: Checkpoints
    exporter: Exporter
    metrics: Metrics
    checkpoint_every: IntervalTrigger
    retry_every: IntervalTrigger
    """After a failed checkpoint this alone says when to try again."""
    export_every: IntervalTrigger
    retraces: Callable[[], int]
    max_failures: int | None = None
    """So many checkpoints in a row may fail before learning ends; None: any number."""
    classes: Callable[[], tuple[str, ...]] = tuple
    """Names of the classes so far, by number."""
    refusals: Callable[[], tuple[int, int]] = lambda: (0, 0)
    """Updates refused, and roll-backs, since the very beginning."""
    learning_state: Callable[[], Mapping[str, Any]] = dict
    """What an exported model needs beside its weights to go on learning, as arrays that never change."""
    wait_for_broker: bool = False
    """Whether a start without a broker waits for it, rather than ending."""
    forward: FrozenForward = field(default_factory=FrozenForward)
    """How the newest export does on what came after it."""
    progress: Progress = field(default_factory=Progress)
    began: Progress = field(default_factory=Progress)
    """Where the model stood when this process opened it."""
    recent: Recent = field(default_factory=Recent)
    signal: PrequentialScores = field(
        default_factory=lambda: PrequentialScores(0, math.nan, math.nan, math.nan, math.nan)
    )
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    """By this process, by reason; like the counts of `metrics`, for the last line of the log."""
    last_saved: Saved | None = None
    last_exported: Exported | None = None
    ready: bool = False
    failure: SaveFailedError | None = None
    """Why the last checkpoint failed; None once one has succeeded."""
    failures: int = 0
    """How many in a row."""
    beat_s: float | None = None
    """When the main loop came round last; None before it began: a start may have much to compile, or to skip."""
    _exported_samples: int = 0
    """How many this model had learned when its last export was begun, or is still to be tried again."""
    _export_error: str = ""
    """Why the last export failed; empty if it did not."""
    _published_samples: int = 0
    """The same of its last export that came out."""
    _known_classes: int | None = None
    _known_refusals: tuple[int, int] = (0, 0)

    def _stateful(self) -> Mapping[str, Stateful]:
        return {
            "progress": self.progress,
            "recent": self.recent,
            "rules": self.rules,
            "transform": self.transform,
            "learner": self.learner,
            "evaluator": self.evaluator,
            "dead_letters": self.dead_letters,
            "predictions": self.predictions,
        }

    def open(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Restore the newest sound state and stand at its offsets; False if *stopping* came before that.

        Raises
        ------
        SaveFailedError
            if there was none, and that of the start cannot be made durable either.
        """
        self.checkpoints.open()
        self.exporter.open()
        self.learner.prepare()
        state = self.checkpoints.restore()
        self.metrics.checkpoints_damaged.inc(len(self.checkpoints.damaged))
        if state is not None:
            self.progress.restore(state["progress"])
            self.began = replace(self.progress)
        progress = self.progress
        start = functools.partial(self.reader.start, progress.offsets, progress.topic_ids, progress.histories)
        for connect in (start, self.dead_letters.open, self.predictions.open):
            if not self._connect(connect, stopping):
                return False
        if state is not None:
            state = {"rules": {}, **state}  # a checkpoint from before there were rules goes on with new ones
            for name, part in self._stateful().items():
                part.restore(state[name])
            log.info("state_restored", samples=self.progress.samples, offsets=readable(self.progress.offsets))
        self.signal = self.evaluator.signal()
        self._known_classes = len(self.classes())
        self._known_refusals = self.refusals()
        if state is None:
            self.progress.exports_before = max(self.exporter.numbers(), default=0)
        published = self.exporter.newest_samples(above=self.progress.exports_before)
        self._published_samples = self._exported_samples = published
        # Where a partition begins is state too: one that brings nothing before the first stop must not begin anew.
        self.progress.offsets = {**self.reader.positions(), **self.progress.offsets}
        self.progress.topic_ids = {**self.reader.topic_ids(), **self.progress.topic_ids}
        if state is None or self._sinks_differ(state):
            self._save_the_start()
        self.checkpoint_every.reset(self.progress.samples)
        self.export_every.reset(self.progress.samples)
        self.ready = True
        return True

    def _sinks_differ(self, state: Mapping[str, Any]) -> bool:
        """Whether they are not, or do not hold, what *state* says: other files, or shorter ones."""
        sinks = {"dead_letters": self.dead_letters, "predictions": self.predictions}
        return any(sink.state() != state[name] for name, sink in sinks.items())

    def _connect(self, attempt: Callable[[], None], stopping: Callable[[], bool]) -> bool:
        """*attempt*, again and again while there is no broker, if that is wanted; False if *stopping* came first."""
        while not stopping():
            try:
                attempt()
            except BrokerUnavailableError as error:
                if not self.wait_for_broker:
                    raise
                log.warning("broker_unavailable", error=str(error))
                time.sleep(RECONNECT_S)
            else:
                return True
        return False

    def _save_the_start(self) -> None:
        """Waits: until it is known how long the files of the sinks were, a crash could not take back what is added."""
        self.save()
        self.checkpoints.wait()
        self.collect_outcomes()
        if self.failure is not None:
            raise self.failure

    def learn(self, batch: Batch) -> None:
        """One batch, from its samples to its metrics."""
        started_s = time.monotonic()
        batch = self.transform(self.rules(batch))
        result = self.learner.learn(batch.samples)  # test, then train; averages inside the compiled call
        self.signal = self.evaluator.observe(result)
        self.progress.advance(batch, result)
        self.rejected.update(reject.reason for reject in batch.rejects)
        self.skipped.update(batch.skipped)
        self.recent.observe(result)
        self.dead_letters.put(batch.rejects)
        self.predictions.put(result)
        self.metrics.observe(batch, result, self.signal)
        self.metrics.export_loss.set(self.forward.observe(result))
        self._note_classes()
        self._note_refusals()
        self._pace(len(result.samples), time.monotonic() - started_s)

    def _note_classes(self) -> None:
        """A class that came to be is saved and published at once: those who use exports wait for it."""
        classes = len(self.classes())
        if classes != self._known_classes:
            if self._known_classes is not None:
                self.checkpoint_every.hasten()
                self.export_every.hasten()
            self._known_classes = classes
            self.metrics.classes.set(classes)

    def _note_refusals(self) -> None:
        refused, rollbacks = self.refusals()
        refused_before, rollbacks_before = self._known_refusals
        self._known_refusals = (refused, rollbacks)
        if refused > refused_before:
            self.metrics.refused.inc(refused - refused_before)
            log.warning("updates_refused", count=refused - refused_before, samples=self.progress.samples)
        if rollbacks > rollbacks_before:
            self.metrics.rollbacks.inc(rollbacks - rollbacks_before)
            log.error("rolled_back", count=rollbacks - rollbacks_before, samples=self.progress.samples)

    def _pace(self, samples: int, duration_s: float) -> None:
        """Batches as large as can be learned in good time: signals and saves wait for the end of one."""
        if samples:  # a batch that only filled windows says nothing about the cost of learning
            affordable = int(BATCH_S * samples / max(duration_s, 1e-9))
            self.reader.batch_records = max(1, min(affordable, 2 * self.reader.batch_records, BATCH_RECORDS))

    def readiness(self) -> tuple[bool, str]:
        """Whether all is well, and a word on why: a state that cannot be saved is learned in vain."""
        if not self.ready:
            return False, "not learning yet, or no longer"
        if not self.reader.connected():
            return False, "the broker does not answer, or a topic is gone; learning goes on when it is back"
        if self.failure is not None:
            return False, f"learning, but {self.failures} checkpoints in a row failed: {self.failure}"
        return True, "learning"

    def save_due(self) -> bool:
        """Whether it is time for a checkpoint, and none is under way."""
        every = self.checkpoint_every if self.failure is None else self.retry_every
        return every.due(self.progress.samples) and not self.checkpoints.busy()

    def save(self, *, flush: bool = True) -> None:
        """Start a checkpoint of everything as it is now; without *flush* the sinks were flushed just before."""
        self.checkpoint_every.reset(self.progress.samples)
        state = {name: part.state() for name, part in self._stateful().items()}
        self.checkpoints.begin(state, self.progress.offsets, self._flush if flush else lambda: None)

    def _flush(self) -> None:
        self.dead_letters.flush()
        self.predictions.flush()

    def _flushed(self) -> bool:
        try:
            self._flush()
        except Exception as error:  # the save that follows tries again, and tells
            log.warning("flush_failed", error=str(error))
            return False
        return True

    def export_due(self) -> bool:
        """Whether it is time for an export, or somebody asked for one, and none is under way.

        A request that comes meanwhile stays due, and is answered with the weights of the moment at which the exporter
        is free: of several the newest wins, and none waits in memory.
        """
        return self.export_every.due(self.progress.samples) and not self.exporter.busy()

    def export(self, *, urgent: bool = False) -> None:
        """Start an export of the averaged weights as they are now, if exports are wanted and there is anything new."""
        self.export_every.reset(self.progress.samples)
        nothing_new = not self.recent.rows or self.progress.samples <= self._exported_samples
        if nothing_new or not self.exporter.enabled:
            return
        self._exported_samples = self.progress.samples
        self.exporter.begin(self._snapshot(), urgent=urgent)

    def _snapshot(self) -> Snapshot:
        progress = self.progress
        return Snapshot(
            self.averaged.weights(),
            self.recent.x(),
            progress.samples,
            progress.updates,
            progress.offsets,
            progress.first_time_s,
            progress.last_time_s,
            self.signal,
            self.classes(),
            self.learning_state(),
            self.forward.published(),
        )

    def collect_outcomes(self) -> None:
        """Take note of saves and exports that came to an end; only now are their offsets acknowledged.

        Raises
        ------
        SaveFailedError
            if too many checkpoints in a row have failed, or trying again is no use.
        """
        while (saved := self.checkpoints.outcome()) is not None:
            self._note_saved(saved)
        while (exported := self.exporter.outcome()) is not None:
            self._note_exported(exported)
        while (uploaded := self.exporter.uploaded()) is not None:
            self._note_uploaded(uploaded)
        self.metrics.lags(self.reader.lags())
        self.metrics.retraces.set(self.retraces())
        self.beat_s = time.monotonic()

    def _note_saved(self, saved: Saved) -> None:
        self.failure = saved.error
        self.failures = 0 if saved.error is None else self.failures + 1
        self.metrics.checkpoint_consecutive_failures.set(self.failures)
        if saved.error is not None:
            self._note_failed(saved.error)
            return
        self.last_saved = saved
        self.reader.acknowledge(saved.offsets)
        self.metrics.saved(saved.duration_s, saved.size_bytes)
        duration_s = round(saved.duration_s, 3)
        log.info("checkpoint_saved", number=saved.number, duration_s=duration_s, offsets=readable(saved.offsets))

    def _note_failed(self, error: SaveFailedError) -> None:
        self.metrics.checkpoint_failures.inc()
        log.error("checkpoint_failed", error=str(error), in_a_row=self.failures)
        self.retry_every.reset(self.progress.samples)
        if isinstance(error, FileLostError):
            raise error
        if self.max_failures is not None and self.failures >= self.max_failures:
            raise SaveFailedError(
                f"{self.failures} checkpoints in a row failed (checkpoint.max_failures), the last with: {error}; make "
                "room or mend the disk, then start again: it goes on from the last checkpoint"
            )

    def _note_exported(self, exported: Exported) -> None:
        if exported.error and not self.exporter.busy():
            # What was not published is still to be published, also when no further sample comes.
            self._exported_samples = self._published_samples
        if exported.given_up:
            log.info("export_given_up", number=exported.number, note="the end came first, with a newer one")
            return
        self._export_error = exported.error
        if exported.error:
            self.metrics.export_failures.inc()
            log.error("export_failed", number=exported.number, error=exported.error)
            return
        self.last_exported = exported
        self._published_samples = exported.samples
        self.forward.begin(exported.number, exported.losses)
        if exported.without:
            log.warning("formats_unavailable", number=exported.number, **exported.without)
        self.metrics.exported(exported.number, exported.duration_s)
        said = {"number": exported.number, "samples": exported.samples, "duration_s": round(exported.duration_s, 3)}
        log.info("export_published", always=True, **said)

    def _note_uploaded(self, uploaded: Uploaded) -> None:
        if uploaded.error:
            self.metrics.upload_failures.inc()
            log.error("upload_failed", number=uploaded.number, error=uploaded.error)
            return
        self.metrics.uploaded(uploaded.number)
        log.info("export_uploaded", number=uploaded.number, duration_s=round(uploaded.duration_s, 3))

    def finish(self, stopped_s: Callable[[], float | None]) -> None:
        """The clean end: the last export beside the last save, and both are waited for.

        The export is given up `STOP_S` after the stop. A stream that ended by itself sets no time: nobody waits for
        the end, and many formats take minutes. An upload may hang, and has `STOP_S` from here then.

        Parameters
        ----------
        stopped_s : when the stop came, by `time.monotonic`; None as long as none did

        Raises
        ------
        SaveFailedError
            if the state could not be made durable.
        ExportError
            if the stream ended by itself, and the last export failed: nobody else would tell.
        """
        self.exporter.abandon()  # an export under way would be older than the one that comes now
        self.collect_outcomes()
        self.export(urgent=True)
        # Before the state is taken: what is confirmed by then is not sent again at the next start.
        flushed = self._flushed()
        self.save(flush=not flushed)
        self.checkpoints.wait()
        self.collect_outcomes()
        self._let_go()  # while the export is under way: a broker that hangs takes its time for this
        while self.exporter.busy() and not _passed(stopped_s(), STOP_S):
            self.exporter.wait(POLL_S)
            self.beat_s = time.monotonic()
        if self.exporter.busy():
            log.warning("last_export_unfinished", note="the stop did not wait for it; the next start makes up for it")
        since_s = stopped_s() or time.monotonic()
        if not self.exporter.wait(max(0.0, since_s + STOP_S - time.monotonic())):
            self.exporter.abandon()
        self.collect_outcomes()
        if self.failure is not None:
            raise self.failure
        if self._export_error and stopped_s() is None:
            raise ExportError(f"all is learned and saved, but the last export failed: {self._export_error}")

    def close(self) -> None:
        """Let go of everything; nothing is saved here."""
        self.ready = False
        self.exporter.abandon()
        self.checkpoints.wait()
        self._let_go()

    def _let_go(self) -> None:
        self.reader.close()
        self.dead_letters.close()
        self.predictions.close()


def run(
    pipeline: Pipeline,
    *,
    stopping: Callable[[], bool],
    on_open: Callable[[], Any] = lambda: None,
    on_batch: Callable[[], Any] = lambda: None,
) -> None:
    """Learn until *stopping*, or until the stream ends. After an error nothing is saved: the last checkpoint counts."""
    try:
        if not pipeline.open(stopping):
            return
        on_open()
        stop_s: float | None = None

        def stopped_s() -> float | None:
            nonlocal stop_s
            if stop_s is None and stopping():
                stop_s = time.monotonic()
            return stop_s

        while not pipeline.reader.finished and not _passed(stop_s, DRAIN_S):
            if stop_s is None and stopped_s() is not None:
                pipeline.reader.stop()
            batch = pipeline.reader.next(timeout_s=POLL_S)  # polled and decoded ahead, on the reader's thread
            if batch is not None:
                pipeline.learn(batch)
            if pipeline.save_due():
                pipeline.save()  # sinks flushed -> state durable -> offsets acknowledged
            if pipeline.export_due():
                pipeline.export()  # a reference to the weights; the work happens elsewhere
            pipeline.collect_outcomes()
            on_batch()
        pipeline.finish(stopped_s)
    finally:
        pipeline.close()


def _passed(since_s: float | None, duration_s: float) -> bool:
    """Whether there was a *since_s*, and it is longer ago than *duration_s*."""
    return since_s is not None and time.monotonic() - since_s > duration_s
