"""Windows per key: what is in them, what breaks them, and that the cutting of the stream does not matter."""

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.core.types import Batch, Position
from learnd.transforms.windows import Windows
from tests.support.helpers import PARTITION, make_samples


def _windows(**options: Any) -> Windows:
    defaults: dict[str, Any] = {
        "window": 3,
        "features": 1,
        "targets": 1,
        "horizon": 1,
        "max_gap_s": None,
        "drop_duplicates": True,
        "max_keys": 10,
    }
    return Windows(**{**defaults, **options})


def _batch(times: list[float], keys: list[str] | None = None, first: int = 0) -> Batch:
    count = len(times)
    values = np.arange(first, first + count, dtype=np.float32)[:, None]
    rows = make_samples(values, -values, first=first, times_s=times, keys=keys)
    return Batch(rows, (), {PARTITION: Position(first + count)}, count, 0)


def _pairs(batch: Batch) -> list[tuple[list[float], float]]:
    return [(x[:, 0].tolist(), float(y[0])) for x, y in zip(batch.samples.x, batch.samples.y, strict=True)]


def test_forecast_pairs_each_reading_with_the_window_before_it() -> None:
    """The target is the reading itself; the window ends just before it."""
    batch = _windows()(_batch([0, 1, 2, 3, 4]))
    assert _pairs(batch) == [([0, 1, 2], 3), ([1, 2, 3], 4)]
    assert batch.skipped == {"window_filling": 3}


def test_a_forecast_of_several_steps_waits_for_the_last_of_them() -> None:
    """The target holds the readings ahead, the nearest first; the sample is that of the last one."""
    batch = _windows(horizon=2)(_batch([0, 1, 2, 3, 4, 5]))
    assert batch.samples.x[:, :, 0].tolist() == [[0, 1, 2], [1, 2, 3]]
    assert batch.samples.y.tolist() == [[3, 4], [4, 5]]
    assert batch.samples.offsets.tolist() == [4, 5]


def test_without_a_horizon_the_window_ends_with_the_sample() -> None:
    """The target stays the sample's own."""
    assert _pairs(_windows(horizon=0)(_batch([0, 1, 2, 3]))) == [([0, 1, 2], -2), ([1, 2, 3], -3)]


def test_keys_do_not_mix() -> None:
    """Each key has a window of its own; the order of arrival stays."""
    batch = _windows(window=2)(_batch(list(range(6)), ["a", "b", "a", "b", "a", "b"]))
    assert _pairs(batch) == [([0, 2], 4), ([1, 3], 5)]


def test_a_repeated_or_late_reading_is_left_out() -> None:
    """Only readings newer than the newest of their key count."""
    batch = _windows(window=2)(_batch([0, 1, 1, 0.5, 2]))
    assert _pairs(batch) == [([0, 1], 4)]
    assert batch.skipped["duplicate_time"] == 2


def test_duplicates_can_be_kept() -> None:
    """Then readings count in the order of arrival."""
    assert len(_windows(window=2, drop_duplicates=False)(_batch([0, 1, 1, 0.5])).samples) == 2


def test_no_window_spans_a_gap() -> None:
    """After a longer silence than max_gap_s the window fills up anew, also across batches."""
    windows = _windows(window=2, max_gap_s=10.0)
    assert _pairs(windows(_batch([0, 1, 50, 51, 52]))) == [([2, 3], 4)]
    assert _pairs(windows(_batch([100, 101, 102], first=5))) == [([5, 6], 7)]


def test_too_many_keys_are_counted_and_left_out() -> None:
    """Memory is bounded; the keys that came first go on."""
    batch = _windows(max_keys=1)(_batch([0, 1, 2, 3], ["a", "b", "b", "a"]))
    assert batch.skipped["too_many_keys"] == 2


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.sampled_from([-1.0, 0.0, 1.0, 1.0, 30.0]), min_size=1, max_size=60),
    keys=st.lists(st.sampled_from("abc"), min_size=60, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    horizon=st.integers(0, 3),
    drop=st.booleans(),
)
def test_windows_do_not_depend_on_how_the_stream_is_cut(
    steps: list[float], keys: list[str], cuts: list[int], horizon: int, drop: bool
) -> None:
    """Windows, skips and the state are the same for any cutting, with a save and a restore at every cut."""
    times = np.cumsum(steps).tolist()
    options: dict[str, Any] = {"horizon": horizon, "drop_duplicates": drop, "max_gap_s": 10.0, "max_keys": 2}
    whole = _windows(**options)
    expected = whole(_batch(times, keys[: len(times)]))
    bounds = [0, *sorted({cut for cut in cuts if cut < len(times)}), len(times)]
    state: dict[str, Any] = _windows(**options).state()
    pairs: list[Any] = []
    skipped = 0
    for start, end in itertools.pairwise(bounds):
        part = _windows(**options)
        part.restore(state_codec.decode(state_codec.encode(state)))
        batch = part(_batch(times[start:end], keys[start:end], first=start))
        pairs += _pairs(batch)
        skipped += sum(batch.skipped.values())
        state = part.state()
    assert pairs == _pairs(expected)
    assert skipped == sum(expected.skipped.values())
    assert state_codec.encode(state) == state_codec.encode(whole.state())
