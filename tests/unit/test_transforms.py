"""Transforms together: what one of them counted, no other can lose."""

import numpy as np

from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import Batch, Position, Records
from learnd.observability.metrics import Metrics
from learnd.transforms.chain import Chain
from learnd.transforms.labels import Labels
from learnd.transforms.rules import Rule, Rules
from learnd.transforms.windows import Windows
from tests.support.helpers import PARTITION, make_samples


def _batch() -> Batch:
    """Readings of two keys, of which the rules follow one, with three labels, of which the model takes two."""
    x = np.array([[1.0], [1.0], [90.0], [2.0], [2.0], [3.0]], np.float32)
    keys = ["m", "n", "m", "m", "m", "m"]
    labels = np.array(["a", "a", "a", "b", "c", "a"], object)
    records = Records(PARTITION, range(6), [b"%d" % i for i in range(6)], [None] * 6, [0] * 6, Position(6))
    return Batch(make_samples(x, x, keys=keys, labels=labels), (), {PARTITION: Position(6)}, 6, 0, records=[records])


def test_counts_of_every_transform_add_up() -> None:
    """Rules, windows and labels each skip samples; none overwrites what another counted or rejected."""
    chain = Chain(
        {
            "rules": Rules([Rule("a", 0, max=10.0)], drop_duplicates=False, max_keys=1),
            "windows": Windows(window=2, features=1, targets=1, max_gap_s=None, drop_duplicates=False, max_keys=9),
            "labels": Labels((), capacity=2, weights=None),
        }
    )
    batch = chain(_batch())
    assert batch.skipped == {
        SkipReason.TOO_MANY_KEYS: 1,
        SkipReason.WINDOW_FILLING: 1,
        SkipReason.TOO_MANY_CLASSES: 1,
    }
    assert [(reject.offset, reject.reason, reject.value) for reject in batch.rejects] == [
        (2, RejectReason.OUT_OF_RANGE, b"2")
    ]
    assert batch.samples.offsets.tolist() == [3, 4]


def test_counts_of_the_same_reason_add_up() -> None:
    """The rules and the windows each have a bound on keys."""
    batch = Chain(
        {
            "rules": Rules([Rule("a", 0, max=100.0)], drop_duplicates=False, max_keys=1),
            "windows": Windows(window=1, features=1, targets=1, max_gap_s=None, drop_duplicates=False, max_keys=0),
        }
    )(_batch())
    assert batch.skipped == {SkipReason.TOO_MANY_KEYS: 6}


def test_every_reason_has_its_count_from_the_start() -> None:
    """A reason cannot be forgotten where metrics are declared: they are made from the enumerations."""
    registry = Metrics().registry
    for reason in RejectReason:
        assert registry.get_sample_value("learnd_records_rejected_total", {"reason": reason.value}) == 0.0
    for skipped in SkipReason:
        assert registry.get_sample_value("learnd_samples_skipped_total", {"reason": skipped.value}) == 0.0
