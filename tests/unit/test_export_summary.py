"""The last line of the log: is the newest export any good?"""

import math

import pytest

from learnd.cli.export_summary import export_verdict
from learnd.core.quality import Errors
from learnd.core.snapshot import Published


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
