"""Rare classes: replay keeps them, and probabilities stay right."""

import numpy as np
import pytest
import tensorflow as tf

from learnd.learners.replay import ReplayBuffer
from learnd.learners.settings import ReplaySettings


def _filled(rows: int = 2000, *, every: int = 100) -> ReplayBuffer:
    """A reservoir of 100 after *rows* rows, each hundredth of which is of class 1. A row holds its own number."""
    settings = ReplaySettings(kind="reservoir", size=100, ratio=4.0)
    buffer = ReplayBuffer(settings, rows=1, row_shape=(1,), targets=1, seed=0, dtype="float32", classes=3)

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def store(i: tf.Tensor) -> None:
        number = tf.cast(i, tf.float32)
        label = tf.where(i % every == 0, 1.0, 0.0)
        buffer.store(number[None, None], label[None, None], tf.ones(1))

    for i in range(rows):
        store(tf.constant(i))
    return buffer


@pytest.fixture(scope="module")
def filled() -> ReplayBuffer:
    return _filled()


def test_every_row_of_a_rare_class_is_kept(filled: ReplayBuffer) -> None:
    x, y, _ = (part.numpy() for part in filled.rows())
    rare = y[:, 0] == 1.0
    assert sorted(x[rare, 0]) == list(range(0, 2000, 100))
    assert filled.variables()["kept"].numpy().tolist() == [80.0, 20.0, 0.0]
    assert filled.variables()["seen"].numpy().tolist() == [1980.0, 20.0, 0.0]


def test_of_a_frequent_class_old_and_new_rows_are_kept(filled: ReplayBuffer) -> None:
    x, y, _ = (part.numpy() for part in filled.rows())
    frequent = x[y[:, 0] == 0.0, 0]
    assert len(set(frequent)) == 80
    assert 0.3 < (frequent < 1000).mean() < 0.7


def test_drawn_rows_weigh_as_much_as_their_class_comes(filled: ReplayBuffer) -> None:
    """A fifth of the buffer is rare, and a hundredth of the stream."""
    _, y, weights = (part.numpy() for part in filled.draw())
    expected = np.where(y[:, 0] == 1.0, 0.01 / 0.2, 0.99 / 0.8)
    np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_a_buffer_that_takes_over_counts_what_it_took() -> None:
    settings = ReplaySettings(kind="recency", size=50, ratio=4.0)
    recent = ReplayBuffer(settings, rows=1, row_shape=(1,), targets=1, seed=0, dtype="float32", classes=3)
    for label in (0.0, 2.0, 2.0):
        recent.store(tf.zeros((1, 1)), tf.constant([[label]]), tf.ones(1))
    buffer = _filled(200)
    buffer.become(recent)
    assert buffer.variables()["kept"].numpy().tolist() == [1.0, 0.0, 2.0]
    assert buffer.variables()["seen"].numpy().tolist() == [1.0, 0.0, 2.0]
