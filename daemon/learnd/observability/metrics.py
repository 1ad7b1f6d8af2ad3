"""Every metric and the form of every log event, in one place."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from learnd.core.reasons import FAULTS, RejectReason, SkipReason
from learnd.core.types import Batch, PrequentialScores, StepResult, TopicPartition

REPEAT_S = 10.0
"""The same event is logged at most this often, with the count that it stands for."""


class Metrics:
    """All metrics, in a registry of their own. Children of labelled metrics are made once, ahead of use."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._labels: dict[tuple[str, tuple[str, ...]], Any] = {}

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"learnd_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(f"learnd_{name}", text, labels, registry=self.registry)

        self.records = counter("records_consumed_total", "Records read from the source.")
        self.bytes = counter("consumed_bytes_total", "Bytes of their values.")
        rejected = counter("records_rejected_total", "Records sent to the dead letters.", ("reason",))
        skipped = counter("samples_skipped_total", "Good records that made no sample.", ("reason",))
        replaced = counter("readings_replaced_total", "Readings of faulty sensors, replaced by rule.", ("reason",))
        self._rejected = {reason: rejected.labels(reason) for reason in RejectReason}
        self._skipped = {reason: skipped.labels(reason) for reason in SkipReason}
        self._replaced = {reason: replaced.labels(reason) for reason in FAULTS}
        self.unreadable = counter("records_unreadable_total", "Offsets skipped: their batch could not be read.")
        self.lost = counter("records_lost_total", "Offsets skipped: the broker no longer held them.")
        self.samples = counter("samples_learned_total", "Samples predicted and learned by this process.")
        self.held = counter(
            "samples_predicted_only_total",
            "Samples predicted and not learned by this process: held, or without a target.",
        )
        self.updates = counter("updates_total", "Optimizer steps taken by this process.")
        self.refused = counter("updates_refused_total", "Updates refused because they would have broken the model.")
        self.rollbacks = counter("rollbacks_total", "Times that the weights went back to their average.")
        self.model_samples = gauge("model_samples", "Samples that the model has learned in all its life.")
        loss = gauge(
            "prequential_loss",
            "Mean loss of the last 1000 samples before they were learned (squared error in standard deviations).",
            ("weights",),
        )
        self._live_loss, self._averaged_loss = loss.labels("live"), loss.labels("averaged")
        self.absolute_error = gauge(
            "prequential_absolute_error",
            "The same as an absolute error in the target's units; of classes the share wrong.",
        )
        self.update_seconds = Histogram(
            "learnd_update_duration_seconds",
            "Mean time of one update, observed once a batch.",
            registry=self.registry,
            buckets=(2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1, 1.0),
        )
        self._lag = gauge("consumer_lag_records", "Records waiting in the source.", ("topic", "partition"))
        self._checkpoints = counter("checkpoints_total", "Checkpoints made durable.")
        self.checkpoint_failures = counter("checkpoint_failures_total", "Checkpoints that failed.")
        self.checkpoint_consecutive_failures = gauge(
            "checkpoint_consecutive_failures", "Checkpoints that failed since the last one that succeeded."
        )
        self.checkpoints_damaged = counter(
            "checkpoints_damaged_total", "Damaged checkpoints that the start had to pass over."
        )
        self._checkpoint_seconds = gauge("checkpoint_duration_seconds", "Time of the last checkpoint.")
        self._checkpoint_bytes = gauge("checkpoint_bytes", "Size of the last checkpoint.")
        self._checkpoint_time = gauge(
            "checkpoint_last_success_timestamp_seconds", "When the last checkpoint became durable."
        )
        self.export_loss = gauge(
            "export_loss", "Mean loss of the newest export's weights over what came after it; nan where not known."
        )
        self._exports = counter("exports_total", "Exports published.")
        self.export_failures = counter("export_failures_total", "Exports that failed.")
        self._export_seconds = gauge("export_duration_seconds", "Time of the last export.")
        self._export_time = gauge("export_last_success_timestamp_seconds", "When the last export was published.")
        self._export_number = gauge("export_number", "Number of the newest export.")
        self._uploads = counter("uploads_total", "Exports copied to export.upload, its latest included.")
        self.upload_failures = counter("upload_failures_total", "Uploads that failed; the next export tries again.")
        self._upload_time = gauge("upload_last_success_timestamp_seconds", "When the last upload was complete.")
        self._uploaded_number = gauge("uploaded_number", "Number of the newest export that was uploaded.")
        self.retraces = gauge("compiled_retraces", "Compilations of the update beyond the first.")
        self.classes = gauge("classes", "Classes that the model knows; 0 where it has none.")
        self._build = gauge("build_info", "What runs here, as labels; always 1.", ("name", "version", "tensorflow"))
        ProcessCollector(registry=self.registry)

    def build(self, *, name: str, version: str, tensorflow: str) -> None:
        """Say what runs here."""
        self._build.labels(name, version, tensorflow).set(1)

    def observe(self, batch: Batch, result: StepResult, scores: PrequentialScores, *, model_samples: int) -> None:
        """Count one batch, after which the model has learned *model_samples* in its life."""
        self.records.inc(batch.record_count)
        self.bytes.inc(batch.byte_count)
        for item in batch.rejects:
            self._rejected[item.reason].inc()
        self.unreadable.inc(batch.unreadable)
        self.lost.inc(batch.lost)
        for reason, count in batch.skipped.items():
            self._skipped[reason].inc(count)
        for fault, count in batch.replaced.items():
            self._replaced[fault].inc(count)
        learned = int(result.learned.sum())
        self.samples.inc(learned)
        self.held.inc(len(result.samples) - learned)
        self.updates.inc(result.updates)
        self.model_samples.set(model_samples)
        if result.updates:
            self.update_seconds.observe(result.duration_s / result.updates)
            self._live_loss.set(scores.loss)
            self._averaged_loss.set(scores.averaged_loss)
            self.absolute_error.set(scores.absolute_error)

    def saved(self, duration_s: float, size_bytes: int) -> None:
        """Count a checkpoint that became durable just now."""
        self._checkpoints.inc()
        self._checkpoint_seconds.set(duration_s)
        self._checkpoint_bytes.set(size_bytes)
        self._checkpoint_time.set_to_current_time()

    def exported(self, number: int, duration_s: float) -> None:
        """Count an export that was published just now."""
        self._exports.inc()
        self._export_seconds.set(duration_s)
        self._export_number.set(number)
        self._export_time.set_to_current_time()

    def uploaded(self, number: int) -> None:
        """Count an upload that was completed just now."""
        self._uploads.inc()
        self._uploaded_number.set(number)
        self._upload_time.set_to_current_time()

    def lags(self, lags: Mapping[TopicPartition, int]) -> None:
        """Set the lag of each partition."""
        for partition, lag in lags.items():
            key = (partition.topic, (str(partition.partition),))
            if key not in self._labels:
                self._labels[key] = self._lag.labels(partition.topic, partition.partition)
            self._labels[key].set(lag)


class RateLimit:
    """Lets an event of one name through at most once in `REPEAT_S`, with the number of those held back.

    Errors always pass, and so does what is logged with ``always=True``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}

    def __call__(self, _logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.pop("always", False) or method in ("error", "critical", "exception"):
            return event
        key = (str(event.get("event")), str(event.get("reason", "")))
        now = self._clock()
        last_s, held = self._last.get(key, (-REPEAT_S, 0))
        if now - last_s < REPEAT_S:
            self._last[key] = (last_s, held + 1)
            raise structlog.DropEvent
        self._last[key] = (now, 0)
        if held:
            event["held_back"] = held
        return event


def configure_logs(*, terminal: bool, name: str, stream: TextIO | None = None) -> None:
    """Structured logs on standard error: readable on a terminal, JSON elsewhere."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=stream or sys.stderr, force=True)
    for chatty in ("kafka", "absl", "tensorflow"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=24)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            RateLimit(),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=_StandardErrorFactory(stream),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(name=name)


class _StandardErrorFactory:
    """Loggers that look ``sys.stderr`` up at each line, so that the live line can redirect it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __call__(self, *_: Any) -> Any:
        return _Lines(self._stream or sys.stderr)


class _Lines(structlog.PrintLogger):
    """Loses a line that cannot be written: a full disk under the log must not end learning."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = msg
