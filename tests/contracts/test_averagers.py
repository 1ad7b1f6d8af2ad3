"""What every averager owes to the compiled step."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.averaging import AVERAGERS

CASES: dict[str, dict[str, Any]] = {
    "window": {"size": 3, "every_samples": 5},
    "ema": {"decay": 0.5, "every_samples": 5},
    "none": {},
}


class _Weight:
    def __init__(self) -> None:
        self.value = tf.Variable([1.0, 2.0])
        self.shape = (2,)


def _make(kind: str) -> tuple[Any, _Weight]:
    component = AVERAGERS[kind]
    weight = _Weight()
    averager = component.load()(component.settings(kind=kind, **CASES[kind]))
    averager.build([weight])
    return averager, weight


@pytest.mark.parametrize("kind", CASES)
def test_averages_of_a_constant_are_that_constant(kind: str) -> None:
    """Whatever the number of snapshots."""
    averager, _ = _make(kind)
    observe = tf.function(averager.observe, autograph=False, jit_compile=True)
    for _ in range(10):
        observe(tf.constant(True))
        averages = averager.averages()
        assert averages is None or np.array_equal(averages[0], [1.0, 2.0])


@pytest.mark.parametrize("kind", CASES)
def test_nothing_changes_when_no_snapshot_is_due(kind: str) -> None:
    """And it is not ready before the first one."""
    averager, weight = _make(kind)
    observe = tf.function(averager.observe, autograph=False, jit_compile=True)
    assert not bool(averager.ready())
    weight.value.assign([5.0, 6.0])
    before = {name: variable.numpy() for name, variable in averager.variables().items()}
    observe(tf.constant(False))
    for name, variable in averager.variables().items():
        np.testing.assert_array_equal(variable.numpy(), before[name])
    assert not bool(averager.ready())


@pytest.mark.parametrize("kind", CASES)
def test_restored_variables_go_on_the_same(kind: str) -> None:
    """All of its state lies in its variables."""
    (one, weight_one), (other, weight_other) = _make(kind), _make(kind)
    random = np.random.default_rng(0)
    for step in range(12):
        value = random.normal(size=2).astype(np.float32)
        weight_one.value.assign(value)
        one.observe(tf.constant(step % 2 == 0))
        if step == 6:
            for name, variable in other.variables().items():
                variable.assign(one.variables()[name])
        if step > 6:
            weight_other.value.assign(value)
            other.observe(tf.constant(step % 2 == 0))
    for name, variable in one.variables().items():
        np.testing.assert_array_equal(variable.numpy(), other.variables()[name].numpy())


@pytest.mark.parametrize("kind", CASES)
def test_a_restarted_average_forgets_what_was_before(kind: str) -> None:
    """It is not ready until the next snapshot, and then knows only of later weights."""
    averager, weight = _make(kind)
    observe = tf.function(averager.observe, autograph=False, jit_compile=True)
    for _ in range(4):
        observe(tf.constant(True))
    averager.restart()
    assert not bool(averager.ready())
    weight.value.assign([5.0, 6.0])
    observe(tf.constant(True))
    averages = averager.averages()
    assert averages is None or np.array_equal(averages[0], [5.0, 6.0])
