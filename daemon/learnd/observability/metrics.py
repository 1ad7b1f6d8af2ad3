"""Every metric, in one place."""

import math
from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from learnd.core.quality import Figures
from learnd.core.reasons import FAULTS, RejectReason, SkipReason, TruthOutcome
from learnd.core.snapshot import ChosenWeights, MixtureState
from learnd.core.types import Batch, PrequentialScores, StepResult, TopicPartition
from learnd.observability.health_metrics import HealthMetrics


class Metrics:
    """All metrics, in a registry of their own. Children of labelled metrics are created once, before use."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.health = HealthMetrics(self.registry)
        self._lag_gauges: dict[TopicPartition, Gauge] = {}
        self._declare_stream()
        self._declare_learning()
        self._declare_checkpoints()
        self._declare_exports()
        self._build = self._gauge(
            "build_info", "Name, version and TensorFlow version as labels; always 1.", ("name", "version", "tensorflow")
        )
        ProcessCollector(registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"learnd_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
        """Return a gauge that is NaN until its value is known: 0 would be a figure."""
        gauge = Gauge(f"learnd_{name}", text, labels, registry=self.registry)
        if not labels:
            gauge.set(math.nan)
        return gauge

    def _declare_stream(self) -> None:
        self.records = self._counter("records_consumed_total", "Records read from the source.")
        self.bytes = self._counter("consumed_bytes_total", "Size of the values of those records.")
        rejected = self._counter(
            "records_rejected_total", "Records rejected; they go to the dead letters.", ("reason",)
        )
        skipped = self._counter("samples_skipped_total", "Valid records that produced no sample.", ("reason",))
        replaced = self._counter(
            "readings_replaced_total", "Readings of faulty sensors, replaced as on_fault says.", ("reason",)
        )
        self._rejected = {reason: rejected.labels(reason) for reason in RejectReason}
        self._skipped = {reason: skipped.labels(reason) for reason in SkipReason}
        self._replaced = {reason: replaced.labels(reason) for reason in FAULTS}
        truths = self._counter(
            "truths_total", "Truths that came later than their records, by what became of them.", ("outcome",)
        )
        self._truths = {outcome: truths.labels(outcome) for outcome in TruthOutcome}
        self.answers_pending = self._gauge("answers_pending", "Answered records that wait for their truth.")
        self.unreadable = self._counter(
            "records_unreadable_total", "Offsets skipped because their record batch could not be read."
        )
        self.lost = self._counter(
            "records_lost_total", "Offsets skipped because the source no longer held their records."
        )
        self._lag = self._gauge("consumer_lag_records", "Records waiting in the source.", ("topic", "partition"))

    def _declare_learning(self) -> None:
        self.samples = self._counter("samples_learned_total", "Samples predicted and learned by this process.")
        self.held = self._counter(
            "samples_predicted_only_total", "Samples predicted but not learned: on hold, or without a target."
        )
        self.updates = self._counter(
            "updates_total", "Updates by this process; each takes learning.passes optimizer steps."
        )
        self.refused = self._counter(
            "updates_refused_total", "Updates refused because they would have broken the model."
        )
        self.rollbacks = self._counter("rollbacks_total", "Rollbacks to the averaged weights.")
        self.drifts = self._counter(
            "drifts_total", "Times that the stored samples were emptied because the stream had changed."
        )
        self._expert_weight = self._gauge(
            "expert_weight", "Share of each expert in the prediction; absent for a single learner.", ("expert",)
        )
        self._chosen = self._gauge(
            "chosen_weights", "1 for the weights that the next export has; absent without averaging.", ("weights",)
        )
        self._standing_loss = self._gauge(
            "standing_loss", "Loss of weights on rows that came after them; absent before 400 rows.", ("weights",)
        )
        self.model_samples = self._gauge("model_samples", "Samples that the model has learned, all runs included.")
        loss = self._gauge(
            "prequential_loss",
            "Mean loss over the last 1000 samples, each evaluated before it was learned "
            "(by default squared error in standard deviations; for classes cross-entropy in nats).",
            ("weights",),
        )
        self._live_loss, self._averaged_loss = loss.labels("live"), loss.labels("averaged")
        for unknown in (self._live_loss, self._averaged_loss):
            unknown.set(math.nan)
        self.absolute_error = self._gauge(
            "prequential_absolute_error",
            "Mean absolute error over the same samples, in the target's units; for classes the fraction wrong.",
        )
        self._declare_quality()
        self._declare_alarms()
        self.update_seconds = Histogram(
            "learnd_update_duration_seconds",
            "Mean time of one update, observed once per batch.",
            registry=self.registry,
            buckets=(2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 0.1, 1.0),
        )
        self.retraces = self._gauge(
            "compiled_retraces", "Unexpected compilations of the update; more than 0 is a defect."
        )
        self.classes = self._gauge("classes", "Classes that the model knows; 0 for a task without classes.")

    def _declare_alarms(self) -> None:
        alarms = self._counter(
            "alarms_total",
            "Alarms that began: of the state head (it is not normal), the onset head (something new begins), and "
            "sensors (one is stuck or missing).",
            ("head",),
        )
        self._alarms = {head: alarms.labels(head) for head in ("state", "onset", "sensor")}
        self._drifts = self._counter(
            "drift_detections_total",
            "Drifts that were detected: of the loss, or of a feature (a reading).",
            ("on",),
        )
        self._reactions = self._counter("drift_reactions_total", "Reactions to drift, by kind.", ("reaction",))
        self._alarms_active = self._gauge("alarms_active", "Keys that are in alarm now.")

    def _declare_quality(self) -> None:
        self._skill = self._gauge(
            "skill",
            "1 - error / error of the naive forecast, over the last 1000 samples (for published: on samples after the "
            "export); 1 is perfect, 0 is as good as naive, less is worse; NaN while unknown.",
            ("weights",),
        )
        self._naive_error = self._gauge(
            "naive_error",
            "Error of the naive forecast over the same samples: mean absolute error, for classes log loss in nats.",
        )
        self._quality = self._gauge(
            "quality",
            "Figures over the last 1000 samples: mae, rmse, r2, bias, interval_coverage, interval_width; for classes "
            "accuracy, log_loss, macro_f1, roc_auc, calibration_error, brier.",
            ("figure",),
        )
        self._fading_quality = self._gauge(
            "fading_quality",
            "The same figures over all samples, with weights that halve every 5000 samples.",
            ("figure",),
        )
        for weights in ("live", "averaged", "published"):
            self._skill.labels(weights).set(math.nan)
        self._naive_error.set(math.nan)

    def _declare_checkpoints(self) -> None:
        self._checkpoints = self._counter("checkpoints_total", "Checkpoints that became durable.")
        self.checkpoint_failures = self._counter("checkpoint_failures_total", "Checkpoints that failed.")
        self.checkpoint_consecutive_failures = self._gauge(
            "checkpoint_consecutive_failures", "Checkpoints that failed since the last one that succeeded."
        )
        self.checkpoint_consecutive_failures.set(0)
        self.checkpoints_damaged = self._counter(
            "checkpoints_damaged_total", "Damaged checkpoints that were passed over at the start."
        )
        self._checkpoint_seconds = self._gauge("checkpoint_duration_seconds", "Duration of the last checkpoint.")
        self._checkpoint_bytes = self._gauge("checkpoint_bytes", "Size of the last checkpoint.")
        self._checkpoint_time = self._gauge(
            "checkpoint_last_success_timestamp_seconds", "Time at which the last checkpoint became durable."
        )

    def _declare_exports(self) -> None:
        self.export_loss = self._gauge(
            "export_loss",
            "Mean loss of the newest export on samples that arrived after it: the error its users see; "
            "NaN while unknown.",
        )
        self._exports = self._counter("exports_total", "Exports published.")
        self.export_failures = self._counter("export_failures_total", "Exports that failed.")
        refused = self._counter(
            "export_refusals_total",
            "Exports that the gate refused, because they are worse than the newest export or than a naive forecast.",
            ("reason",),
        )
        self._refused_exports = {reason: refused.labels(reason) for reason in ("published", "naive")}
        self._export_seconds = self._gauge("export_duration_seconds", "Duration of the last export.")
        self._export_time = self._gauge(
            "export_last_success_timestamp_seconds", "Time at which the last export was published."
        )
        self._export_number = self._gauge("export_number", "Number of the newest export.")
        self._uploads = self._counter(
            "uploads_total", "Exports copied to export.upload, including its pointer to the latest."
        )
        self.upload_failures = self._counter(
            "upload_failures_total", "Uploads that failed; the next export tries again."
        )
        self._upload_time = self._gauge(
            "upload_last_success_timestamp_seconds", "Time at which the last upload was complete."
        )
        self._uploaded_number = self._gauge("uploaded_number", "Number of the newest export that was uploaded.")

    def build(self, *, name: str, version: str, tensorflow: str) -> None:
        """Set the labels that name this process."""
        self._build.labels(name, version, tensorflow).set(1)

    def begin(self, scores: PrequentialScores, *, model_samples: int) -> None:
        """Show what a model that was opened has learned, and how well."""
        self.model_samples.set(model_samples)
        self._show(scores)

    def _show(self, scores: PrequentialScores) -> None:
        self._live_loss.set(scores.loss)
        self._averaged_loss.set(scores.averaged_loss)
        self.absolute_error.set(scores.absolute_error)

    def set_mixture(self, mixture: MixtureState) -> None:
        """Show the weights of the experts."""
        for expert, weight in mixture.weights.items():
            self._expert_weight.labels(expert).set(weight)

    def set_chosen(self, chosen: ChosenWeights) -> None:
        """Show which weights are published, and the losses of all candidates."""
        for name, loss in chosen.losses.items():
            self._standing_loss.labels(name).set(loss)
            self._chosen.labels(name).set(name == chosen.name)

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
        for outcome, count in batch.truths.items():
            self._truths[outcome].inc(count)
        learned = int(result.learned.sum())
        self.samples.inc(learned)
        self.held.inc(len(result.samples) - learned)
        self.updates.inc(result.updates)
        self.model_samples.set(model_samples)
        if result.updates:
            self.update_seconds.observe(result.duration_s / result.updates)
            self._show(scores)

    def alarms(self, heads_of_new: Iterable[str], *, active: int) -> None:
        """Count alarms that have just begun, by their heads, and show the number of keys in alarm."""
        for head in heads_of_new:
            self._alarms[head].inc()
        self._alarms_active.set(active)

    def drift(self, on: str, reactions: Iterable[str]) -> None:
        """Count a drift of the loss or of a reading, and the *reactions* to it."""
        self._drifts.labels("loss" if on == "loss" else "feature").inc()
        for reaction in reactions:
            self._reactions.labels(reaction).inc()

    def quality(self, recent: Figures, fading: Figures, *, export_skill: float) -> None:
        """Set the figures of the recent samples, those that fade, and the skill of the newest export."""
        errors = recent.errors
        skills = {"live": errors.live_skill, "averaged": errors.averaged_skill, "published": export_skill}
        for weights, skill in skills.items():
            self._skill.labels(weights).set(skill)
        self._naive_error.set(errors.naive)
        for name, figure in recent.measures.items():
            self._quality.labels(name).set(figure)
        for name, figure in fading.measures.items():
            self._fading_quality.labels(name).set(figure)

    def saved(self, duration_s: float, size_bytes: int) -> None:
        """Count a checkpoint that has just become durable."""
        self._checkpoints.inc()
        self._checkpoint_seconds.set(duration_s)
        self._checkpoint_bytes.set(size_bytes)
        self._checkpoint_time.set_to_current_time()

    def found_saved(self, saved_at_s: float, size_bytes: int) -> None:
        """Show the checkpoint that an earlier process saved."""
        self._checkpoint_bytes.set(size_bytes)
        self._checkpoint_time.set(saved_at_s)

    def found_exported(self, number: int, published_at_s: float) -> None:
        """Show the export that an earlier process published."""
        self._export_number.set(number)
        self._export_time.set(published_at_s)

    def exported(self, number: int, duration_s: float) -> None:
        """Count an export that has just been published."""
        self._exports.inc()
        self._export_seconds.set(duration_s)
        self._export_number.set(number)
        self._export_time.set_to_current_time()

    def export_refused(self, reason: str) -> None:
        """Count an export that the gate refused."""
        self._refused_exports[reason].inc()

    def uploaded(self, number: int) -> None:
        """Count an upload that has just been completed."""
        self._uploads.inc()
        self._uploaded_number.set(number)
        self._upload_time.set_to_current_time()

    def lags(self, lags: Mapping[TopicPartition, int]) -> None:
        """Set the lag of each partition."""
        for partition, lag in lags.items():
            if partition not in self._lag_gauges:
                self._lag_gauges[partition] = self._lag.labels(partition.topic, partition.partition)
            self._lag_gauges[partition].set(lag)
