"""Averages are what they are called, to the last bit where that is promised."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.averaging.ema import EmaAverager
from learnd.averaging.settings import EmaSettings, WindowSettings
from learnd.averaging.window import WindowAverager


class _Weight:
    """What an averager sees of a Keras variable."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.variable = tf.Variable(tf.zeros(shape))
        self.shape = shape

    @property
    def value(self) -> Any:
        return self.variable


def _observe(averager: Any) -> Any:
    return tf.function(averager.observe, autograph=False, jit_compile=True)


@pytest.mark.parametrize(("size", "warmup"), [(1, 1.0), (4, 1.0), (5, 0.5), (20, 0.25)])
def test_window_is_the_mean_of_the_last_snapshots(size: int, warmup: float) -> None:
    """After every snapshot, the mean over the last ``min(size, ceil(warmup * taken))`` of them."""
    weight = _Weight((3,))
    averager = WindowAverager(WindowSettings(kind="window", size=size, warmup=warmup))
    averager.build([weight])
    observe = _observe(averager)
    snapshots: list[np.ndarray[Any, Any]] = []
    random = np.random.default_rng(0)
    for _ in range(60):
        weight.variable.assign(random.normal(size=3).astype(np.float32))
        if random.random() < 0.3:
            observe(tf.constant(False))
            continue
        snapshots.append(weight.variable.numpy())
        observe(tf.constant(True))
        held = min(size, int(np.ceil(warmup * len(snapshots))))
        expected = np.mean(snapshots[-held:], axis=0, dtype=np.float64).astype(np.float32)
        np.testing.assert_array_equal(averager.averages()[0], expected)  # type: ignore[index]


def test_window_does_not_drift_over_ten_million_updates() -> None:
    """After 10^7 snapshots of very different sizes the sum is that of the last ones, to the rounding of two rounds.

    A plain float64 running sum is carried along to show that the test could fail: it does drift.
    """
    size, updates = 20, 10_000_000
    weight = _Weight(())
    averager = WindowAverager(WindowSettings(kind="window", size=size, warmup=1.0))
    averager.build([weight])
    naive = tf.Variable(0.0, dtype=tf.float64)
    recent = tf.Variable(tf.zeros(2 * size))

    def value_at(i: Any) -> Any:
        # Sizes from 1e-9 to 1e12: what rounds off a large value would show beside a small one.
        step = tf.cast(i % 1009, tf.float32)
        return tf.math.exp(tf.math.sin(step) * 25.0) * 1e2 + tf.math.sin(step * 0.7)

    @tf.function(autograph=False, jit_compile=True)
    def many(count: Any) -> None:
        def one(i: Any) -> Any:
            new = value_at(i)
            weight.variable.assign(new)
            old = tf.gather(recent, (i - size) % (2 * size))
            naive.assign(naive + tf.cast(new, tf.float64) - tf.cast(old, tf.float64))
            recent.scatter_nd_update([[i % (2 * size)]], new[None])
            averager.observe(tf.constant(True))
            return [i + 1]

        tf.while_loop(lambda i: i < count, one, [tf.constant(0)])

    many(tf.constant(updates))
    newest = np.roll(recent.numpy(), -(updates % (2 * size))).astype(np.float64)
    expected = newest[size:].sum()
    allowed = 2 * size * np.finfo(np.float64).eps * np.abs(newest).max()
    assert abs(averager.variables()["sum/0"].numpy() - expected) <= allowed
    np.testing.assert_allclose(averager.averages()[0], expected / size, rtol=1e-7)  # type: ignore[index]
    assert abs(naive.numpy() - expected) > allowed


def test_ema_follows_its_recurrence() -> None:
    """The first snapshot is taken whole; afterwards the decay rises to its configured value."""
    weight = _Weight((2,))
    averager = EmaAverager(EmaSettings(kind="ema", decay=0.9))
    averager.build([weight])
    observe = _observe(averager)
    expected = np.zeros(2)
    for k in range(40):
        value = np.array([k, -k * 0.5], np.float32)
        weight.variable.assign(value)
        observe(tf.constant(True))
        decay = 0.0 if k == 0 else min(0.9, (1 + k) / (10 + k))
        expected = decay * expected + (1 - decay) * value
        np.testing.assert_allclose(averager.averages()[0], expected, rtol=1e-5)
        observe(tf.constant(False))
        np.testing.assert_allclose(averager.averages()[0], expected, rtol=1e-5)
