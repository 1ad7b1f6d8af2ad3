"""The last line of the log: is the newest export any good?"""

import math
from types import SimpleNamespace

import pytest
from structlog.testing import capture_logs

from learnd.cli.export_summary import export_verdict
from learnd.core.quality import Errors
from learnd.core.schedule import IntervalTrigger
from learnd.core.snapshot import Published
from learnd.export.publisher import Exported
from learnd.observability.metrics import Metrics
from learnd.runtime.publishing import Publishing


def _recent(skill: float) -> Errors:
    return Errors(samples=1000, live=1.0 - skill, averaged=1.0 - skill, naive=1.0)


def _published(number: int, skill: float, samples: int) -> Published:
    return Published(number, 0.0, samples, 1.0 - skill, 1.0, recent_loss=0.0, averaged_loss=0.0, recent_samples=samples)


@pytest.mark.parametrize(
    ("published", "recent", "samples", "good", "words"),
    [
        (None, 0.5, 1000, True, "better than a naive forecast, by the averaged weights"),
        (None, -0.5, 1000, False, "no better than a naive forecast"),
        (None, 0.5, 199, None, "unknown yet"),
        (None, math.nan, 1000, None, "unknown yet"),
        (_published(7, -0.2, 500), 0.5, 1000, False, "on the samples after it: skill -0.200"),
        (_published(7, 0.2, 500), -0.5, 1000, True, "on the samples after it: skill 0.200"),
        (_published(7, -0.2, 100), 0.5, 1000, True, "by the averaged weights"),
        (_published(6, -0.2, 500), 0.5, 1000, True, "by the averaged weights"),
    ],
)
def test_an_export_is_rated_by_what_came_after_it_or_by_its_weights(
    published: Published | None, recent: float, samples: int, good: bool | None, words: str
) -> None:
    """Too few samples, or errors of another export, prove nothing."""
    verdict, note = export_verdict(7, published, _recent(recent), samples)
    assert verdict is good
    assert words in note


@pytest.mark.parametrize(
    ("last", "event", "level"), [(False, "export_superseded", "info"), (True, "last_export_abandoned", "warning")]
)
def test_an_export_that_was_given_up_does_not_read_like_a_fault(last: bool, event: str, level: str) -> None:
    """One that makes room for a newer one is no news; the last one that a stop did not wait for is worth a warning."""
    outcomes = [Exported(7, 100, 1.0, "the export was abandoned", given_up=True)]
    exporter = SimpleNamespace(
        enabled=True,
        begin=lambda snapshot, urgent: None,
        busy=lambda: False,
        held=lambda: False,
        newest_number=lambda: 0,
        outcome=lambda: outcomes.pop() if outcomes else None,
        refusal=lambda snapshot: None,
        uploaded=lambda: None,
    )
    trigger = IntervalTrigger(seconds=None, samples=None, clock=lambda: 0.0)
    publishing = Publishing(exporter, trigger=trigger, metrics=Metrics())  # type: ignore[arg-type]
    snapshot = SimpleNamespace(published=None)
    publishing.begin(lambda: snapshot, samples=100, urgent=last)  # type: ignore[arg-type, return-value]
    with capture_logs() as logs:
        publishing.collect()
    (line,) = logs
    assert (line["event"], line["log_level"], line["number"]) == (event, level, 7)
    assert publishing.exporter.outcome() is None
