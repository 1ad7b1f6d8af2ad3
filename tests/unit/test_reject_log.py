"""The log says why records are rejected, and the exit code whether a run was of use."""

import io
import json
from collections import Counter

import pytest
import structlog
from structlog.testing import capture_logs

from learnd.cli.run import verdict
from learnd.core.errors import BadDataError
from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import Reject, TopicPartition
from learnd.observability.logs import RateLimit
from learnd.runtime.progress import Progress, RunStatus
from learnd.sinks.dead_letter import DroppedDeadLetters
from learnd.sinks.reject_log import FIRST


def _rejects(count: int, reason: RejectReason = RejectReason.WRONG_TYPE, first: int = 0) -> list[Reject]:
    return [
        Reject(TopicPartition("t", 0), first + i, reason, f"a is 'x{first + i}', not a number", b"{}")
        for i in range(count)
    ]


def test_the_first_rejects_of_each_reason_are_logged_and_the_others_are_counted() -> None:
    """Without dead letters, too; a reason that comes late has its lines as well."""
    sink = DroppedDeadLetters()
    with capture_logs() as logs:
        sink.put(_rejects(10))
        sink.put([*_rejects(5, first=10), *_rejects(1, RejectReason.BAD_TIME, first=15)])
    lines = [(line["reason"], line["offset"], line.get("in_batch"), line["of_this_reason"]) for line in logs]
    assert lines == [
        ("wrong_type", 0, None, 1),
        ("wrong_type", 1, None, 2),
        ("wrong_type", 2, None, 3),
        ("wrong_type", 9, 10, 10),
        ("bad_time", 15, None, 1),
        ("wrong_type", 14, 5, 15),
    ]
    assert logs[0]["detail"] == "a is 'x0', not a number"
    assert FIRST == 3


def test_the_first_rejects_pass_the_limit_on_repetitions() -> None:
    """The limit holds back what comes after them, and says how much."""
    old = structlog.get_config()
    now_s, out = 0.0, io.StringIO()
    limit = RateLimit(lambda: now_s)
    factory = structlog.PrintLoggerFactory(out)
    structlog.configure(processors=[limit, structlog.processors.JSONRenderer()], logger_factory=factory)
    try:
        sink = DroppedDeadLetters()
        for first in range(0, 50, 10):
            sink.put(_rejects(10, first=first))
        now_s = 60.0
        sink.put(_rejects(10, first=50))
    finally:
        structlog.configure(**old)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["offset"], line.get("held_back")) for line in lines] == [
        (0, None),
        (1, None),
        (2, None),
        (9, None),
        (59, 4),
    ]


@pytest.mark.parametrize(
    ("records", "samples", "rejected", "skipped", "event"),
    [
        (100, 100, 0, 0, None),
        (0, 0, 0, 0, None),
        (10, 0, 0, 0, None),  # a micro-batch waits for more
        (10, 0, 10, 0, "nothing_learned"),
        (10, 0, 0, 10, "nothing_learned"),
        (100, 49, 51, 0, "too_many_rejected"),
        (100, 50, 50, 0, None),
    ],
)
def test_the_exit_code_of_a_run_says_whether_it_was_of_use(
    records: int, samples: int, rejected: int, skipped: int, event: str | None
) -> None:
    """By what this run learned, whatever runs before it did; the log repeats the first rejects."""
    began = Progress(records=1000, samples=900)
    status = RunStatus(began=began, rejected=Counter(), skipped=Counter())
    if rejected:
        status.rejected[RejectReason.WRONG_TYPE] = rejected
        status.first_rejects[RejectReason.WRONG_TYPE] = "a is 'x'"
    if skipped:
        status.skipped[SkipReason.WINDOW_FILLING] = skipped
    with capture_logs() as logs:
        code = verdict(Progress(records=1000 + records, samples=900 + samples), status, 0.5)
    assert code == (0 if event is None else BadDataError.exit_code)
    assert [line["event"] for line in logs] == ([] if event is None else [event])
    if rejected and event:
        assert logs[0]["first_rejects"] == {"wrong_type": "a is 'x'"}
        assert "another data_dir" not in logs[0]["note"], "the model has learned something worth keeping"


@pytest.mark.parametrize("records", [10, 0])
def test_records_that_no_run_could_use_are_not_passed_over_in_silence(records: int) -> None:
    """A corrected configuration does not read them again, so both runs say how to."""
    status = RunStatus(began=Progress(records=1000))
    status.rejected[RejectReason.WRONG_TYPE] = records
    with capture_logs() as logs:
        assert verdict(Progress(records=1000 + records), status, 0.5) == BadDataError.exit_code
    assert [(line["event"], line["records"]) for line in logs] == [("nothing_learned", records)]
    assert "another data_dir" in logs[0]["note"]
