"""Which record a truth belongs to: limits, counts, and two topics, in whatever order they are read."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.types import Batch, Samples, TopicPartition
from learnd.learners.answers import AnswerBook
from learnd.transforms.truth_join import TruthJoin
from learnd.transforms.truth_matching import TruthMatcher
from tests.support.helpers import make_samples

QUESTIONS, TRUTHS = TopicPartition("questions", 0), TopicPartition("truths", 0)


class _Stage:
    """Both halves, and how many samples were learned by their truth."""

    def __init__(self, *, within_s: float = 100.0, size: int = 1000, topic: str | None = None) -> None:
        self.matcher = TruthMatcher(by_time=False, within_s=within_s, size=size, topic=topic, has_keys=False)
        self.book = AnswerBook(1, size=10_000)
        self.join = TruthJoin(self.matcher, self.book)
        self.learned: list[tuple[float, float]] = []
        self.counts: dict[str, int] = {}

    def __call__(self, *rows: tuple[TopicPartition, int, float, float | None, float | None]) -> Samples:
        """Feed rows of partition, offset, time, feature (None: a truth only) and target (None: a question)."""
        x = np.array([[np.nan if row[3] is None else row[3]] for row in rows], np.float32)
        y = np.array([[np.nan if row[4] is None else row[4]] for row in rows], np.float32)
        samples = make_samples(x, y, times_s=[row[2] for row in rows], keys=[str(row[0]) for row in rows])
        ids = np.array([str(int(row[2])) for row in rows], object)
        origins = np.empty(len(rows), object)
        for i, row in enumerate(rows):
            origins[i] = row[0]
        columns: dict[str, Any] = {
            "x": samples.x,
            "y": samples.y,
            "times_s": samples.times_s,
            "keys": samples.keys,
            "origins": origins,
            "offsets": np.array([row[1] for row in rows]),
            "has_target": np.array([row[4] is not None for row in rows]),
            "ids": ids,
        }
        batch = Batch(Samples(**columns), (), {}, len(rows), 0)
        for part in (self.matcher, self.join):
            batch = batch.with_(part(batch))
        for outcome, count in batch.truths.items():
            self.counts[outcome] = self.counts.get(outcome, 0) + count
        result = batch.samples
        known = np.array(result.has_target)
        self.learned += zip(result.times_s[known].tolist(), result.y[known, 0].tolist(), strict=True)
        return result


def _question(i: int) -> tuple[TopicPartition, int, float, float | None, float | None]:
    return (QUESTIONS, i, float(i), float(i), None)


def _truth(i: int, value: float | None = None) -> tuple[TopicPartition, int, float, float | None, float | None]:
    return (TRUTHS, i, float(i), None, float(i) if value is None else value)


@hypothesis_settings(max_examples=50, deadline=None, derandomize=True)
@given(order=st.lists(st.booleans(), min_size=0, max_size=60), cuts=st.sets(st.integers(0, 60)))
def test_with_two_topics_every_pair_is_learned_once_however_they_are_interleaved(
    order: list[bool], cuts: set[int]
) -> None:
    """Although one topic may run far ahead of the other: a record waits by the time of the truths, and vice versa."""
    count = 30
    questions, truths = [_question(i) for i in range(count)], [_truth(i) for i in range(count)]
    rows = []
    for first in order:
        side = questions if first else truths
        if side:
            rows.append(side.pop(0))
    rows += questions + truths
    stage = _Stage(within_s=3.0, topic="truths")
    bounds = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for start, stop in itertools.pairwise(bounds):
        stage(*rows[start:stop])
    assert sorted(stage.learned) == [(float(i), float(i)) for i in range(count)]
    assert stage.counts == {"matched": count}


def test_a_record_whose_truth_does_not_come_is_dropped_and_counted() -> None:
    """By the time of the truths: the records may be far ahead."""
    stage = _Stage(within_s=3.0, topic="truths")
    stage(*[_question(i) for i in range(10)])
    assert stage.counts == {}
    stage(_truth(9))
    assert stage.counts == {"matched": 1, "expired": 6}
    assert len(stage.book) == 4  # three wait, and the matched one is with the learner
    stage(_truth(0))
    assert stage.learned == [(9.0, 9.0)], "too late"


def test_a_truth_whose_record_does_not_come_is_dropped_and_counted() -> None:
    """By the time of the records."""
    stage = _Stage(within_s=3.0, topic="truths")
    stage(*[_truth(i) for i in range(10)])
    stage(_question(9))
    assert stage.counts == {"matched": 1, "unmatched": 6}
    assert stage.learned == [(9.0, 9.0)]


def test_the_number_of_those_that_wait_is_limited() -> None:
    """The ones that have waited longest go first."""
    stage = _Stage(size=3, topic="truths")
    stage(*[_question(i) for i in range(5)])
    assert stage.counts == {"evicted": 2}
    assert len(stage.book) == 3
    stage(*[_truth(i) for i in range(5)])
    assert [time_s for time_s, _ in stage.learned] == [2.0, 3.0, 4.0]


def test_repeated_and_corrected_truths_are_counted_and_not_learned_again() -> None:
    """A truth that waits for its record takes the correction."""
    stage = _Stage(topic="truths")
    stage(_truth(1), _truth(1), _truth(1, 7.0), _question(1), _truth(1, 8.0), _truth(1, 8.0), _question(1))
    assert stage.learned == [(1.0, 7.0)]
    assert stage.counts == {"duplicate": 2, "corrected": 2, "matched": 1}


def test_a_repeated_question_is_answered_and_waits_once() -> None:
    """Its answer is not kept: the first one counts."""
    stage = _Stage(topic="truths")
    result = stage(_question(1), (QUESTIONS, 2, 1.0, 1.5, None), _truth(1))
    assert len(result) == 3
    assert stage.learned == [(1.0, 1.0)]
    assert result.x[np.array(result.has_target), 0].tolist() == [1.0]
