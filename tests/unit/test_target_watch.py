"""The watch for a target that never comes."""

import numpy as np
from structlog.testing import capture_logs

from learnd.runtime.target_watch import FIRST_RECORDS, TargetWatch
from tests.support.helpers import make_samples


def _observe(watch: TargetWatch, count: int, *, known: bool, model_samples: int = 0) -> list[str]:
    x, y = np.zeros((count, 1), np.float32), np.zeros((count, 1), np.float32)
    with capture_logs() as logs:
        watch.observe(make_samples(x, y, has_target=np.full(count, known)), model_samples=model_samples)
    return [f"{line['log_level']} {line['event']} {line['records']}" for line in logs]


def test_a_target_that_never_comes_is_reported_again_and_again() -> None:
    """Each time that the number of records has doubled."""
    watch = TargetWatch(["power"])
    assert _observe(watch, FIRST_RECORDS - 1, known=False) == []
    assert _observe(watch, 1, known=False) == [f"error no_target {FIRST_RECORDS}"]
    assert _observe(watch, FIRST_RECORDS - 1, known=False) == []
    assert _observe(watch, 3 * FIRST_RECORDS, known=False) == [f"error no_target {5 * FIRST_RECORDS - 1}"]
    assert watch.never_seen


def test_one_target_is_enough() -> None:
    """Then the name is right, and records without it are questions."""
    watch = TargetWatch(["power"])
    _observe(watch, 1, known=True)
    assert _observe(watch, 10 * FIRST_RECORDS, known=False) == []
    assert not watch.never_seen


def test_a_model_that_has_learned_may_answer_only() -> None:
    """Its configuration had the right name before."""
    watch = TargetWatch(["power"])
    assert _observe(watch, 10 * FIRST_RECORDS, known=False, model_samples=1) == []
    assert not watch.never_seen


def test_a_task_without_target_fields_is_not_watched() -> None:
    """A forecast makes its targets of later readings."""
    watch = TargetWatch([])
    assert _observe(watch, 10 * FIRST_RECORDS, known=False) == []
    assert not watch.never_seen
