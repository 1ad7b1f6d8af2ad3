"""What every drift detector owes: it finds a change, is silent without one, and its state restores anywhere."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.drift.channel import Channel, Drift
from learnd.drift.detectors import DETECTORS

CASES: dict[str, dict[str, Any]] = {"adwin": {}, "page_hinkley": {}, "kswin": {"window": 40, "newest": 15}}
CHANGE, COUNT = 2000, 3000


def _channel(kind: str, name: str = "loss", **options: Any) -> Channel:
    detector = DETECTORS[kind]
    made = detector.settings(kind=kind, **{"block": 8, **CASES[kind], **options})
    return Channel(name, made, detector.load()(made, seed=7))


def _losses(*, change: float = 4.0, seed: int = 0) -> Any:
    losses = np.random.default_rng(seed).normal(size=COUNT) ** 2
    losses[CHANGE:] *= change
    return losses


def _observe(channel: Channel, values: Any, first: int = 0) -> list[Drift]:
    return channel.observe(values, np.arange(first + 1, first + len(values) + 1))


@pytest.mark.parametrize("kind", CASES)
def test_a_change_is_found_once_and_soon(kind: str) -> None:
    """With the means before and after it."""
    [drift] = _observe(_channel(kind), _losses())
    assert CHANGE < drift.samples < CHANGE + 300
    assert drift.samples % 8 == 0
    assert 0.7 < drift.before < 1.5 < drift.after


@pytest.mark.parametrize("kind", CASES)
def test_without_a_change_nothing_is_found(kind: str) -> None:
    """In thousands of samples of noise with a long tail."""
    for seed in range(3):
        assert _observe(_channel(kind), _losses(change=1.0, seed=seed)) == []


@pytest.mark.parametrize("kind", CASES)
def test_only_the_chosen_direction_counts(kind: str) -> None:
    """A loss that falls is no drift, unless the option says so."""
    fallen = _losses(change=0.1)
    assert _observe(_channel(kind), fallen) == []
    assert len(_observe(_channel(kind, direction="both"), fallen)) == 1
    assert len(_observe(_channel(kind, name="flow"), fallen)) == 1


@pytest.mark.parametrize("kind", CASES)
def test_a_significant_change_that_hardly_matters_is_no_drift(kind: str) -> None:
    """A loss that rises by a twentieth, with little noise; many such steps together are one."""
    noise = 1.0 + 0.02 * np.random.default_rng(1).normal(size=COUNT)
    small = noise * np.where(np.arange(COUNT) < CHANGE, 1.0, 1.05)
    assert _observe(_channel(kind), small) == []
    assert len(_observe(_channel(kind, least_change=0.0), small)) == 1
    steps = noise * 1.05 ** np.clip((np.arange(COUNT) - CHANGE) // 60, 0, None)
    assert _observe(_channel(kind), steps)


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(1, COUNT - 1), min_size=1, max_size=5))
def test_a_restored_state_continues_with_the_same_bits(kind: str, cuts: list[int]) -> None:
    """However the series is cut: the state passes the codec of the checkpoint, and nothing is pickled."""
    values = _losses()
    whole = _channel(kind)
    expected = _observe(whole, values)
    channel, found, start = _channel(kind), [], 0
    for stop in [*sorted(cuts), COUNT]:
        found += _observe(channel, values[start:stop], start)
        saved = state_codec.decode(state_codec.encode(channel.state()))
        channel, start = _channel(kind), stop
        assert channel.fits(saved)
        channel.restore(saved)
    assert found == expected
    assert state_codec.encode(channel.state()) == state_codec.encode(whole.state())


@pytest.mark.parametrize("kind", CASES)
def test_the_state_at_every_point_restores(kind: str) -> None:
    """Block by block around the change, where detectors cut their windows."""
    values = _losses()
    one = _channel(kind)
    _observe(one, values[: CHANGE - 40])
    for start in range(CHANGE - 40, CHANGE + 200, 8):
        other = _channel(kind)
        other.restore(state_codec.decode(state_codec.encode(one.state())))
        block = values[start : start + 8]
        assert _observe(one, block, start) == _observe(other, block, start)
        assert state_codec.encode(one.state()) == state_codec.encode(other.state())


def test_a_spread_that_changes_is_found() -> None:
    """The mean says nothing of it."""
    values = np.random.default_rng(0).normal(size=COUNT)
    values[CHANGE:] *= 3.0
    assert len(_observe(_channel("adwin", name="flow", statistic="spread"), values)) == 1
    assert _observe(_channel("adwin", name="flow"), values) == []


def test_the_state_of_another_river_does_not_fit() -> None:
    """Its private attributes may mean something else."""
    state = _channel("adwin").state()
    state["detector"]["version"] = "0.1.0"
    assert not _channel("adwin").fits(state)
