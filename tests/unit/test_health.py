"""Metrics that never lie: unknown is not 0, a restart shows what the state knows, and health is seen from outside."""

import math
import time
from pathlib import Path
from typing import Any

import pytest

from learnd.observability.metrics import Metrics
from learnd.runtime.intake import SHARE_RECORDS, Intake
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource, Pause
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import hollow
from tests.support.helpers import SAVED_MODEL, readings, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

KNOWN_AT_ONCE = {"learnd_ready": 0.0, "learnd_checkpoint_consecutive_failures": 0.0}
"""Gauges that have a true value before anything has happened."""
UNKNOWN_AFTER_A_RESTART = {
    "learnd_export_loss",  # no sample has arrived since
    "learnd_checkpoint_duration_seconds",
    "learnd_export_duration_seconds",
    "learnd_upload_last_success_timestamp_seconds",
    "learnd_uploaded_number",
    "learnd_rejected_share",
    "learnd_catch_up_seconds",
    "learnd_naive_error",
    "learnd_skill",
    "learnd_compiled_retraces",
}
"""Gauges about this process alone, or about samples to come; all others must be known before the first new record."""


def _gauges(metrics: Metrics) -> dict[str, list[float]]:
    return {
        family.name: [sample.value for sample in family.samples]
        for family in metrics.registry.collect()
        if family.type == "gauge" and family.name.startswith("learnd_") and family.name != "learnd_build_info"
    }


def test_a_gauge_is_unknown_before_anything_happened() -> None:
    """NaN, or absent, unless 0 is the truth."""
    gauges = _gauges(Metrics())
    assert len(gauges) > 25
    wrong = {
        name: values
        for name, values in gauges.items()
        if (values != [KNOWN_AT_ONCE[name]] if name in KNOWN_AT_ONCE else not all(map(math.isnan, values)))
    }
    assert wrong == {}


def _pipeline(folder: Path, script: list[Any]) -> Pipeline:
    learning = {"compile": False, "mode": "per_sample"}
    pipeline = make_pipeline(settings(folder, learning=learning, export=SAVED_MODEL), source=MemorySource(script))
    pipeline.publishing.exporter._build = hollow  # type: ignore[method-assign]
    return pipeline


def test_a_restart_shows_what_the_state_knows(tmp_path: Path) -> None:
    """Losses, samples, the checkpoint and the export of the process before, and when each was made."""
    started_s = time.time()
    script = [*readings(300), Pause(10**9)]
    before = _pipeline(tmp_path, script)
    run(before, stopping=lambda: before.progress.records >= 300)
    (number,) = before.publishing.exporter.numbers()
    after = _pipeline(tmp_path, script)
    seen: dict[str, list[float]] = {}
    run(after, stopping=lambda: bool(seen), on_open=lambda: seen.update(_gauges(after.metrics)))
    unknown = {name for name, values in seen.items() if values and all(map(math.isnan, values))}
    assert unknown - UNKNOWN_AFTER_A_RESTART == set()
    scores = before.status.scores
    assert seen["learnd_model_samples"] == [300.0]
    assert seen["learnd_prequential_loss"] == [scores.loss, scores.averaged_loss]
    assert seen["learnd_prequential_absolute_error"] == [scores.absolute_error]
    assert seen["learnd_export_number"] == [number]
    assert seen["learnd_checkpoint_bytes"][0] > 1000
    for name in ("export", "checkpoint"):
        (at_s,) = seen[f"learnd_{name}_last_success_timestamp_seconds"]
        assert started_s - 1.0 <= at_s <= time.time()
    assert (seen["learnd_ready"], seen["learnd_source_connected"]) == ([1.0], [1.0])


def test_health_is_read_from_outside(tmp_path: Path) -> None:
    """Ready and connected while it learns; the share of rejects; how long ago a record was good; nothing pending."""
    pipeline = _pipeline(tmp_path, [*readings(60), *[b"junk"] * 20, Pause(10**9)])
    value = pipeline.metrics.registry.get_sample_value
    seen: list[list[float | None]] = []
    names = ("ready", "source_connected", "rejected_share", "catch_up_seconds")

    def on_batch() -> None:
        if pipeline.progress.records == 80:
            pipeline.intake.observe_lag(0)
            seen.append([value(f"learnd_{name}") for name in names])

    run(pipeline, stopping=lambda: bool(seen), on_batch=on_batch)
    assert seen[0] == [1.0, 1.0, 0.25, 0.0]
    assert value("learnd_deliveries_pending", {"sink": "dead_letters"}) == 0.0
    assert 0.0 <= (value("learnd_accepted_record_age_seconds") or -1.0) < 600.0
    assert value("learnd_ready") == 0.0, "it has stopped"
    assert math.isnan(value("learnd_source_connected") or 0.0)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_the_age_counts_accepted_records_only_and_from_the_start() -> None:
    """A topic that goes silent, or sends nothing but rejects, is seen, also where no record ever came."""
    clock = Clock()
    intake = Intake(clock)
    assert math.isnan(intake.accepted_age_s())
    intake.begin()
    clock.now_s = 130.0
    assert intake.accepted_age_s() == 30.0
    intake.observe(10, 10)
    assert intake.accepted_age_s() == 30.0
    intake.observe(10, 9)
    assert intake.accepted_age_s() == 0.0


def test_the_share_of_rejects_is_that_of_the_newest_records() -> None:
    """An old flood of rejects leaves it; a batch that the source rejected whole counts."""
    intake = Intake(Clock())
    assert math.isnan(intake.rejected_share())
    intake.observe(0, 500)
    assert intake.rejected_share() == 1.0
    intake.observe(500, 0)
    assert intake.rejected_share() == 0.5
    for _ in range(SHARE_RECORDS // 100):
        intake.observe(100, 10)
    assert intake.rejected_share() == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("lags", "records_per_s", "expected"),
    [
        ([6000 - 100 * second for second in range(20)], 500, 41.0),  # 4100 left, 100 fewer each second
        ([100 * second for second in range(1, 20)], 10, math.inf),
        ([5000] * 20, 500, math.inf),
        ([0] * 20, 500, 0.0),
        ([300, 400] * 10, 500, 0.0),  # less than a second's records: what a broker's batches look like
        ([6000, 5000], 1000, math.nan),  # two seconds prove nothing
    ],
)
def test_the_time_to_catch_up_follows_the_lag(lags: list[int], records_per_s: int, expected: float) -> None:
    """By how fast the lag falls, which has in it what arrives meanwhile."""
    clock = Clock()
    intake = Intake(clock)
    assert math.isnan(intake.catch_up_s())
    for lag in lags:
        intake.observe(records_per_s, 0)
        intake.observe_lag(lag)
        clock.now_s += 1.0
    assert intake.catch_up_s() == pytest.approx(expected, nan_ok=True)
