"""The main loop: read, decode, transform, watch, predict, learn, evaluate, deliver, save, publish."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from learnd.core.errors import BrokerUnavailableError
from learnd.core.protocols import DeadLetters, Evaluator, Intervals, Predictions, Sink, Stateful
from learnd.core.snapshot import Snapshot
from learnd.core.types import Batch, State, offsets_of
from learnd.learners.answers import AnswerBook
from learnd.observability.metrics import Metrics
from learnd.runtime.alarming import Alarming
from learnd.runtime.answering import with_versions
from learnd.runtime.drifting import Drifting
from learnd.runtime.intake import Intake
from learnd.runtime.model_events import ModelEvents
from learnd.runtime.progress import ProbeRows, Progress, RunStatus, readable
from learnd.runtime.publishing import Publishing
from learnd.runtime.quality_watch import QualityWatch
from learnd.runtime.reader import Reader
from learnd.runtime.saving import Saving
from learnd.runtime.target_watch import TargetWatch
from learnd.runtime.trained_model import TrainedModel
from learnd.transforms.chain import Chain

log = structlog.get_logger()

POLL_S = 0.1
DRAIN_S = 5.0
"""Time after a stop during which batches that were already read are learned. The others are read again later."""
STOP_S = 18.0
"""Time after a stop at which the last export is abandoned. The process must end within 25 s of the stop."""
RECONNECT_S = 1.0
"""Pause between two attempts to reach the broker at the start. An attempt itself takes up to ``connect_timeout_s``."""


@dataclass(slots=True)
class Pipeline:
    """The wired parts of the daemon, and the flow between them. `learnd.wiring.pipeline` makes one."""

    reader: Reader
    transforms: Chain
    model: TrainedModel
    alarming: Alarming
    drifting: Drifting
    intervals: Intervals
    evaluator: Evaluator
    quality: QualityWatch
    dead_letters: DeadLetters
    predictions: Predictions
    saving: Saving
    publishing: Publishing
    metrics: Metrics
    events: ModelEvents
    book: AnswerBook | None = None
    """The answers that wait for their truth; None: each truth comes with its record, or never."""
    targets: TargetWatch = field(default_factory=lambda: TargetWatch(()))
    wait_for_broker: bool = False
    """True: a start without a broker waits for it instead of failing."""
    progress: Progress = field(default_factory=Progress)
    probe: ProbeRows = field(default_factory=ProbeRows)
    status: RunStatus = field(default_factory=RunStatus)
    intake: Intake = field(default_factory=Intake)

    def learn(self, batch: Batch) -> None:
        """Process one batch: transform, watch, predict, learn, evaluate, deliver."""
        started_s = time.monotonic()
        batch = self.transforms(batch)
        samples, hold = self.alarming.watch(batch.samples)
        learned = self.model.learner.learn(samples, hold)  # test, then train; averages inside the compiled call
        drifts = self.drifting.observe(learned)
        learned = with_versions(learned, learned_before=self.progress.samples, batch_rows=self.model.batch_rows)
        result = self.intervals(learned)
        if self.book is not None:
            result = self.book.recall(result)
        result = self.alarming.evaluate(result, drifts)
        scores = self.evaluator.observe(result)
        self.progress.advance(batch, result)
        self.probe.observe(result)
        self.dead_letters.put(batch.rejects)
        self.predictions.put(result)
        self.status.observe(batch, scores)
        self.targets.observe(batch.samples, model_samples=self.progress.samples)
        self.intake.observe(batch.record_count, len(batch.rejects))
        self.metrics.observe(batch, result, scores, model_samples=self.progress.samples)
        self.publishing.observe(result, self.evaluator.compared)
        if self.events.note(self.progress.samples):  # a new class is saved and published at once
            self.saving.trigger.hasten()
            self.publishing.trigger.hasten()
        self.reader.pace(len(result.samples), time.monotonic() - started_s)

    def save(self, *, flush: bool = True) -> None:
        """Start a checkpoint of the current state. Pass *flush* as False if the sinks were flushed just before."""
        state = {name: part.state() for name, part in self._stateful().items()}
        offsets = offsets_of(self.progress.positions)
        self.saving.begin(state, offsets, self._flush if flush else lambda: None, samples=self.progress.samples)

    def export(self, *, urgent: bool = False) -> None:
        """Start an export of the current averaged weights, if samples were learned since the last one."""
        if not self.probe.rows:
            self.publishing.trigger.reset(self.progress.samples)
            return
        self.publishing.begin(self._snapshot, samples=self.progress.samples, urgent=urgent)

    def collect_outcomes(self) -> None:
        """Record the outcomes of checkpoints and exports. Acknowledge the offsets of durable checkpoints.

        Raises
        ------
        SaveFailedError
            if too many checkpoints in a row have failed, or another attempt cannot help.
        """
        for saved in self.saving.collect(self.progress.samples):
            self.reader.acknowledge(saved.offsets)
        self.publishing.collect()
        self.alarming.follow_feedback()
        lags = self.reader.lags()
        self.metrics.lags(lags)
        if lags:
            self.intake.observe_lag(sum(lags.values()))
        self._show_pending_answers()
        self.metrics.retraces.set(self.model.retraces())
        if self.quality.due():
            self.quality.refresh(self.publishing.newest_errors())
        self.status.beat_s = time.monotonic()

    def _show_pending_answers(self) -> None:
        self.metrics.answers_pending.set(0 if self.book is None else len(self.book))

    def readiness(self) -> tuple[bool, str]:
        """Return whether the daemon is learning, connected and able to save, and the reason if not."""
        if not self.status.ready:
            return False, "not learning: starting or stopping"
        if not self.reader.connected():
            return False, "the broker does not answer, or a topic is gone; learning continues when it is back"
        if self.saving.failure is not None:
            return False, f"learning, but {self.saving.failures} checkpoints in a row failed: {self.saving.failure}"
        return True, "learning"

    def open(self, stopping: Callable[[], bool] = lambda: False) -> bool:
        """Restore the newest sound checkpoint and continue at its positions; return False if *stopping* came first.

        Raises
        ------
        SaveFailedError
            if there was no checkpoint, and the first one cannot be made durable.
        ConfigError
            if the model cannot be compiled, or exported in any of the configured formats.
        """
        self.metrics.health.follow(
            ready=lambda: self.readiness()[0],
            connected=self._connected,
            accepted_age_s=self.intake.accepted_age_s,
            rejected_share=self.intake.rejected_share,
            catch_up_s=self.intake.catch_up_s,
            pending={name: sink.pending for name, sink in self._sinks().items()},
        )
        self.saving.open()
        self.publishing.open()
        state = self.saving.restore()
        self.model.refresh()
        self.publishing.begin_rehearsal(fresh=state is None)
        self.alarming.prepare()
        self.model.learner.prepare()
        if not self.publishing.finish_rehearsal(stopping):
            return False
        if state is not None:
            self.progress.restore(state["progress"])
            self.status.began = replace(self.progress)
        for connect in (self._start_reading, *(sink.open for sink in self._sinks().values())):
            if not self._connect(connect, stopping):
                return False
        if state is not None:
            self.drifting.begin(self.progress.samples)
            for name, part in self._stateful().items():
                if name in state:  # a part that is newer than the checkpoint starts fresh
                    part.restore(state[name])
            offsets = readable(offsets_of(self.progress.positions))
            log.info("state_restored", samples=self.progress.samples, offsets=offsets)
        else:
            self.progress.exports_before = max(self.publishing.exporter.numbers(), default=0)
        self.status.scores = self.evaluator.scores()
        self.metrics.begin(self.status.scores, model_samples=self.progress.samples)
        self.events.begin()
        self._show_pending_answers()
        self.publishing.resume(self.progress.exports_before)
        self.progress.begin(self.reader.positions())
        if state is None or self._sinks_differ(state):
            self._save_the_start()
        self.saving.trigger.reset(self.progress.samples)
        self.publishing.trigger.reset(self.progress.samples)
        self.intake.begin()
        self.status.ready = True
        return True

    def finish(self, stopped_s: Callable[[], float | None]) -> None:
        """Finish cleanly: start the last export and the last checkpoint, and wait for both.

        The export is abandoned `STOP_S` after the stop. If the stream ended by itself, the export has no deadline,
        because some formats take minutes; only an upload, which may hang, has `STOP_S` from here.

        Parameters
        ----------
        stopped_s : returns the time of the stop by `time.monotonic`; None without a stop

        Raises
        ------
        SaveFailedError
            if the state could not be made durable.
        ExportError
            if the stream ended by itself and the last export failed, because nothing else would report it.
        """
        log.info("finishing", always=True, doing="saving")
        exporter = self.publishing.exporter
        exporter.abandon()  # a running export is older than the one that starts now
        self.quality.refresh(self.publishing.published())
        self.collect_outcomes()
        self.export(urgent=True)
        # Flushed before the state is read: the next start then does not send these records again.
        flushed = self._flushed()
        self.save(flush=not flushed)
        self.saving.checkpoints.wait()
        self.collect_outcomes()
        if exporter.busy():
            log.info("finishing", always=True, doing="exporting", note="the state is saved; a stop waits up to 18 s")
        self._release()  # while the export runs, because a broker that hangs delays it
        while exporter.busy() and not _passed(stopped_s(), STOP_S):
            exporter.wait(POLL_S)
            self.status.beat_s = time.monotonic()
        since_s = stopped_s() or time.monotonic()
        if not exporter.wait(max(0.0, since_s + STOP_S - time.monotonic())):
            exporter.abandon()
        self.collect_outcomes()
        self.saving.require_success()
        if stopped_s() is None:
            self.publishing.require_success()

    def close(self) -> None:
        """Release all resources, without saving."""
        self.status.ready = False
        self.publishing.exporter.abandon()
        self.saving.checkpoints.wait()
        self._release()

    def _stateful(self) -> Mapping[str, Stateful]:
        return {
            "progress": self.progress,
            "probe": self.probe,
            "transforms": self.transforms,
            "learner": self.model.learner,
            "intervals": self.intervals,
            "evaluator": self.evaluator,
            "alarms": self.alarming,
            "drift": self.drifting,
            **({} if self.book is None else {"answers": self.book}),
            **self._sinks(),
        }

    def _sinks(self) -> Mapping[str, Sink]:
        return {
            "dead_letters": self.dead_letters,
            "predictions": self.predictions,
            "alarm_sink": self.alarming.sink,
        }

    def _connected(self) -> float:
        """Return 1 if the source answers, else 0; nan before reading begins and after it has ended."""
        return float(self.reader.connected()) if self.status.ready else math.nan

    def _start_reading(self) -> None:
        self.reader.start(self.progress.positions)

    def _connect(self, attempt: Callable[[], None], stopping: Callable[[], bool]) -> bool:
        """Call *attempt* until there is a broker, if waiting is configured; return False if *stopping* came first."""
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

    def _sinks_differ(self, state: State) -> bool:
        """Return whether the sinks differ from *state*: other files, or other lengths."""
        return any(sink.state() != state.get(name) for name, sink in self._sinks().items())

    def _save_the_start(self) -> None:
        """Save and wait. A crash can undo additions to the sinks' files only once their length is durable."""
        self.save()
        self.saving.checkpoints.wait()
        self.collect_outcomes()
        self.saving.require_success()

    def _snapshot(self) -> Snapshot:
        progress, model = self.progress, self.model
        return Snapshot(
            model.averaged.weights(),
            self.probe.x(),
            progress.samples,
            progress.updates,
            offsets_of(progress.positions),
            progress.first_time_s,
            progress.last_time_s,
            self.status.scores,
            model.classes(),
            model.continuation(),
            self.publishing.published(),
            self.evaluator.quality(),
            self.intervals.offsets(),
            model.chosen(),
        )

    def _flush(self) -> None:
        for sink in self._sinks().values():
            sink.flush()

    def _flushed(self) -> bool:
        try:
            self._flush()
        except Exception as error:  # the save that follows tries again, and reports it
            log.warning("flush_failed", error=str(error))
            return False
        return True

    def _release(self) -> None:
        self.reader.close()
        self.drifting.close()
        for sink in self._sinks().values():
            sink.close()


def run(
    pipeline: Pipeline,
    *,
    stopping: Callable[[], bool],
    on_open: Callable[[], object] = lambda: None,
    on_batch: Callable[[], object] = lambda: None,
) -> None:
    """Learn until *stopping*, or until the stream ends.

    After an error nothing is saved: the next start continues from the last checkpoint.
    """
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
            if pipeline.saving.due(pipeline.progress.samples):
                pipeline.save()  # sinks flushed -> state durable -> offsets acknowledged
            if pipeline.publishing.due(pipeline.progress.samples):
                pipeline.export()  # keeps a reference to the weights; another process does the work
            pipeline.collect_outcomes()
            on_batch()
        pipeline.finish(stopped_s)
    finally:
        pipeline.close()


def _passed(since_s: float | None, duration_s: float) -> bool:
    """Return whether *since_s* is known and more than *duration_s* ago."""
    return since_s is not None and time.monotonic() - since_s > duration_s
