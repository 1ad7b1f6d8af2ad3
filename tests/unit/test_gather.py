"""Records with one value each become rows of one key and time."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.errors import ConfigError
from learnd.core.types import Batch, Position, Records, TopicPartition
from learnd.runtime.reader import decode
from learnd.wiring.stream import make_decoder, make_transforms
from tests.support.helpers import settings

LONG = {"name": "tag", "value": "v"}
T0 = 1705320000.0
Item = tuple[float, str, str, float]
"""Time after `T0`, key, name, value."""


def _settings(folder: Path, long: dict[str, Any] | None = None, **sections: Any) -> Any:
    decode_ = {"kind": "json", "time": "t", "key": "k", "long": {**LONG, **(long or {})}, **sections.pop("decode", {})}
    return settings(folder, decode=decode_, features=sections.pop("features", ["a", "b"]), **sections)


def _batches(options: Any, items: list[Item], cuts: list[int]) -> list[Batch]:
    """The transformed batches, with a restart of the transforms at every cut."""
    values = [json.dumps({"t": T0 + t, "k": k, "tag": n, "v": v}).encode() for t, k, n, v in items]
    decoder, transforms, batches = make_decoder(options), make_transforms(options, None), []
    edges = [0, *sorted(cut for cut in cuts if cut < len(values)), len(values)]
    for first, last in itertools.pairwise(edges):
        count = last - first
        run = Records(
            TopicPartition("t", 0), range(first, last), values[first:last], [None] * count, [0] * count, Position(last)
        )
        batches.append(transforms(decode([run], decoder, keep_records=True)))
        state = transforms.state()
        transforms = make_transforms(options, None)
        transforms.restore(state)
    return batches


def _rows(batches: list[Batch]) -> list[tuple[Any, ...]]:
    """Offset, time, key, features, target of each sample."""
    return [
        (int(o), float(t) - T0, k, *x.tolist(), *y.tolist())
        for batch in batches
        for o, t, k, x, y in zip(
            batch.samples.offsets,
            batch.samples.times_s,
            batch.samples.keys,
            batch.samples.x,
            batch.samples.y,
            strict=True,
        )
    ]


def _skipped(batches: list[Batch]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for batch in batches:
        for reason, count in batch.skipped.items():
            counts[reason] = counts.get(reason, 0) + count
    return counts


def test_a_row_is_complete_with_its_last_value(tmp_path: Path) -> None:
    """In any order of names and keys; other names are counted."""
    items = [
        (0, "m", "b", 2.0),
        (0, "n", "a", 7.0),
        (0, "m", "y", 3.0),
        (0, "m", "x", 9.0),
        (0, "m", "a", 1.0),
        (0, "n", "y", 8.0),
        (0, "n", "b", 9.0),
    ]
    batches = _batches(_settings(tmp_path), items, [])
    assert _rows(batches) == [(4, 0.0, "m", 1.0, 2.0, 3.0), (6, 0.0, "n", 7.0, 9.0, 8.0)]
    assert _skipped(batches) == {"row_filling": 4, "other_name": 1}


@pytest.mark.parametrize(
    ("long", "features", "rows"),
    [
        ({}, {"a": {"missing": 5.0}, "b": None}, [(2, 0.0, "m", 5.0, 2.0, 3.0), (5, 60.0, "m", 5.0, 4.0, 6.0)]),
        ({}, {"a": {"missing": "reject"}, "b": None}, []),
        ({"gaps": "hold"}, {"a": {"missing": "reject"}, "b": {"missing": "reject"}}, []),
    ],
)
def test_what_a_row_lacks_is_filled_as_configured(
    long: dict[str, Any], features: Any, rows: Any, tmp_path: Path
) -> None:
    """The time is that of the row; it is given away when the next one begins."""
    items = [
        (0, "m", "b", 2.0),
        (0, "m", "y", 3.0),
        (60, "m", "b", 4.0),
        (60, "m", "y", 5.0),
        (60, "m", "y", 6.0),
        (120, "m", "b", 0.0),
    ]
    batches = _batches(_settings(tmp_path, long, features=features), items, [])
    assert _rows(batches) == rows
    if not rows:
        assert _skipped(batches)["row_incomplete"] == 2


def test_the_last_value_can_be_held(tmp_path: Path) -> None:
    """That of the same key, whichever row it came in."""
    items = [
        (0, "m", "a", 1.0),
        (0, "m", "b", 2.0),
        (0, "m", "y", 3.0),
        (60, "m", "b", 4.0),
        (90, "m", "y", 5.0),
        (91, "n", "y", 0.0),
        (120, "m", "a", 6.0),
    ]
    rows = _rows(_batches(_settings(tmp_path, {"gaps": "hold"}), items, []))
    assert rows == [(2, 0.0, "m", 1.0, 2.0, 3.0), (4, 60.0, "m", 1.0, 4.0, 3.0), (6, 90.0, "m", 1.0, 4.0, 5.0)]


def test_values_of_one_interval_belong_together(tmp_path: Path) -> None:
    """Sensors do not report at the same moment."""
    items = [
        (1, "m", "a", 1.0),
        (2, "m", "b", 2.0),
        (9, "m", "a", 1.5),
        (9.5, "m", "y", 3.0),
        (9.9, "m", "a", 0.0),
        (11, "m", "a", 4.0),
    ]
    batches = _batches(_settings(tmp_path, {"every_s": 10}), items, [])
    assert _rows(batches) == [(3, 9.5, "m", 1.5, 2.0, 3.0)]
    assert _skipped(batches) == {"row_filling": 4, "duplicate_time": 1}


def test_late_records_and_bad_values_are_counted(tmp_path: Path) -> None:
    """A value outside its range is rejected whole, with its name."""
    items = [(60, "m", "a", 1.0), (0, "m", "b", 2.0), (60, "m", "b", 99.0), (60, "m", "b", 2.0), (60, "m", "y", 3.0)]
    batches = _batches(_settings(tmp_path, features={"a": None, "b": {"max": 10.0}}), items, [])
    assert _rows(batches) == [(4, 60.0, "m", 1.0, 2.0, 3.0)]
    (reject,) = [reject for batch in batches for reject in batch.rejects]
    assert (reject.offset, reject.reason, reject.detail) == (2, "out_of_range", "b is 99, above max 10")
    assert json.loads(reject.value or b"")["v"] == 99.0
    assert _skipped(batches) == {"row_filling": 2, "duplicate_time": 1}


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    items=st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 2.0, 3.0, 9.0]), st.sampled_from("mn"), st.sampled_from("abyx"), st.floats(-9, 9)
        ),
        max_size=30,
    ),
    cuts=st.lists(st.integers(1, 29), max_size=4),
    gaps=st.sampled_from(["missing", "hold"]),
)
def test_the_rows_do_not_depend_on_batches_and_restarts(items: list[Item], cuts: list[int], gaps: str) -> None:
    """Bit for bit, with the state restored at each cut; and every record is a sample, a skip or a reject."""
    options = _settings(
        Path("unused"),
        {"gaps": gaps, "every_s": 2.0},
        features={"a": None, "b": {"missing": 1.0}, "h": {"season": "day"}},
    )
    whole, cut = _batches(options, items, []), _batches(options, items, cuts)
    assert repr(_rows(whole)) == repr(_rows(cut))
    assert _skipped(whole) == _skipped(cut)
    for _, time_s, *row in _rows(whole):
        assert row[3] == (T0 + time_s) % 86_400


def test_csv_can_hold_one_value_a_line(tmp_path: Path) -> None:
    """As exports of historians do; a forecast has no target to wait for."""
    path = tmp_path / "long.csv"
    path.write_text(
        "time;tag;value\n2024-01-15 12:00;a;1,5\n2024-01-15 12:00;b;2\n2024-01-15 12:01;a;2,5\n2024-01-15 12:01;b;3\n"
    )
    options = settings(
        tmp_path,
        source={"kind": "file", "path": str(path)},
        decode={"kind": "csv", "time": "time", "number_format": "1234,56", "long": {"name": "tag", "value": "value"}},
        features=["a", "b"],
        target=None,
        task={"kind": "reconstruction"},
        model={"kind": "autoencoder", "hidden": [2]},
    )
    lines = path.read_bytes().splitlines()[1:]
    run = Records(TopicPartition("t", 0), range(4), lines, [None] * 4, [0] * 4, Position(4))
    samples = make_transforms(options, None)(decode([run], make_decoder(options))).samples
    np.testing.assert_array_equal(samples.x, [[1.5, 2.0], [2.5, 3.0]])


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"task": {"kind": "classification"}}, r"decode\.long: holds numbers"),
        ({"features": {"a": {"path": "x.a"}, "b": None}}, r"features\.a\.path: with decode\.long"),
        ({"decode": {"long": {"name": "v", "value": "v"}}}, r"decode\.long\.value: v is also the name"),
        ({"learning": {"mode": "per_sample", "sample_weight": "w"}}, "remove sample_weight"),
    ],
)
def test_what_does_not_fit_is_refused(sections: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _settings(tmp_path, **sections)
