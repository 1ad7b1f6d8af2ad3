"""Every bad record is rejected with its reason, and takes no good one with it."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.types import Position, Records, TopicPartition
from learnd.decoders.csv import CsvDecoder
from learnd.decoders.fields import Field, Fields
from learnd.decoders.float32 import Float32Decoder
from learnd.decoders.json import JsonDecoder

PARTITION = TopicPartition("sensors", 2)


def _fields(**options: Any) -> Fields:
    defaults: dict[str, Any] = {
        "features": (Field("a", min=-10, max=10), Field("b", missing=7.0)),
        "targets": (Field("y"),),
        "time": "t",
        "time_unit": "s",
        "key": "k",
        "max_bytes": 200,
    }
    return Fields(**{**defaults, **options})


def _records(*values: bytes | None) -> Records:
    count = len(values)
    return Records(PARTITION, range(100, 100 + count), values, [b"key"] * count, [1000] * count, Position(100 + count))


GOOD = {"a": 1.5, "b": 2, "y": -3.0, "t": 60, "k": "m1", "other": {"x": [1]}}


def _json(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def test_json_takes_the_configured_fields() -> None:
    """Features and targets in their order as float32; key and time beside them."""
    samples, rejects = JsonDecoder(_fields()).decode(_records(_json(), _json(t="2020-01-01T00:00:00Z", k=5)))
    assert not rejects
    assert samples.x.tolist() == [[1.5, 2.0], [1.5, 2.0]]
    assert samples.y.tolist() == [[-3.0], [-3.0]]
    assert samples.x.dtype == samples.y.dtype == np.float64
    assert samples.times_s.tolist() == [60.0, 1577836800.0]
    assert samples.keys.tolist() == ["m1", "5"]
    assert samples.offsets.tolist() == [100, 101]
    assert samples.origins[0] == PARTITION


@pytest.mark.parametrize(
    ("text", "stopped"), [("true", True), ("1", True), ("0.0", False), ("false", False), ("null", False), (None, False)]
)
def test_a_record_may_mark_a_planned_stop(text: str | None, stopped: bool) -> None:
    """By a boolean or a number; without the field, or with null or an empty cell, it is not in one."""
    fields = _fields(stop=Field("stop", missing=0.0))
    flag = {} if text is None else {"stop": json.loads(text)}
    samples, rejects = JsonDecoder(fields).decode(_records(_json(**flag), _json()))
    assert not rejects
    assert samples.planned_stop is not None
    assert samples.planned_stop.tolist() == [stopped, False]
    decoder = CsvDecoder(fields, ["a", "b", "y", "t", "k", "stop"], ",")
    cell = "" if text in (None, "null") else text
    samples, rejects = decoder.decode(_records(f"1.5,2,-3,60,m1,{cell}".encode(), b"1.5,,-3,60,m1,False"))
    assert not rejects
    assert samples.planned_stop is not None
    assert samples.planned_stop.tolist() == [stopped, False]


BAD_JSON = {
    "tombstone": (None, "tombstone"),
    "not JSON": (b"{", "unparsable"),
    "empty": (b"", "unparsable"),
    "not an object": (b"[1]", "wrong_type"),
    "text for a number": (_json(a="1.5"), "wrong_type"),
    "boolean for a number": (_json(a=True), "wrong_type"),
    "null": (_json(a=None), "wrong_type"),
    "missing feature": (b'{"b": 2, "y": 1, "t": 1, "k": "m"}', "missing_field"),
    "missing target": (b'{"a": 2, "t": 1, "k": "m"}', "missing_field"),
    "NaN": (_json(a=float("nan")), "not_finite"),
    "Infinity": (_json(y=float("inf")), "not_finite"),
    "beyond float64": (b'{"a": 1e400, "y": 1, "t": 1, "k": "m"}', "not_finite"),
    "beyond float32": (_json(y=1e39), "not_finite"),
    "below min": (_json(a=-10.5), "out_of_range"),
    "above max": (_json(a=11), "out_of_range"),
    "oversized": (_json(other="x" * 300), "oversized"),
    "bad UTF-8 in a key": (b'{"a": 1, "y": 1, "t": 1, "k": "\xff"}', "bad_utf8"),
    "bad UTF-8 in an unknown field": (b'{"a": 1, "y": 1, "t": 1, "k": "m", "z": "\xff"}', "bad_utf8"),
    "bad time": (_json(t="yesterday"), "bad_time"),
    "nanoseconds for seconds": (_json(t=1_386_018_900_000_000_000), "bad_time"),
    "time beyond all years": (_json(t="99999-01-01"), "bad_time"),
    "time before the year 1, by its zone": (_json(t="0001-01-01T00:00:00+01:00"), "bad_time"),
    "time that rounds to the year 10000": (_json(t="9999-12-31T23:59:59.9999999"), "bad_time"),
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_bad_json_is_rejected_with_its_reason(case: str) -> None:
    """Alone and among good ones; the good ones stay, in order."""
    value, reason = BAD_JSON[case]
    samples, rejects = JsonDecoder(_fields()).decode(_records(_json(), value, _json(a=2.5)))
    assert [(r.reason, r.offset, r.value, r.key) for r in rejects] == [(reason, 101, value, b"key")]
    assert rejects[0].detail
    assert samples.offsets.tolist() == [100, 102]
    assert samples.x[:, 0].tolist() == [1.5, 2.5]


@pytest.mark.parametrize("value", [b'{"a": 1, "y": 1, "t": 1, "k": "m"}', _json(b=None)])
def test_a_missing_value_can_have_a_stand_in(value: bytes) -> None:
    """``missing: 7`` stands in for an absent field and for null."""
    samples, rejects = JsonDecoder(_fields()).decode(_records(value))
    assert not rejects
    assert samples.x[0, 1] == 7.0


def test_deep_nesting_and_huge_numbers_are_no_crash() -> None:
    """Hostile values are rejects like any other."""
    fields = _fields(max_bytes=1 << 20)
    hostile = [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"9" * 5000 + b', "y": 1, "t": 1, "k": "m"}',
        b"\x00" * 99,
    ]
    samples, rejects = JsonDecoder(fields).decode(_records(*hostile))
    assert len(rejects) == len(hostile)
    assert len(samples) == 0


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.binary(max_size=40), st.sampled_from([_json(), _json(a=3), _json(a=99)])), max_size=8
    )
)
def test_every_record_becomes_a_sample_or_a_reject(values: list[bytes | None]) -> None:
    """Whatever the bytes: nothing is lost, nothing raises, and what is accepted is finite."""
    decoder = JsonDecoder(_fields())
    samples, rejects = decoder.decode(_records(*values))
    assert sorted([*samples.offsets.tolist(), *(r.offset for r in rejects)]) == list(range(100, 100 + len(values)))
    assert np.isfinite(samples.x).all()


def _csv(delimiter: str = ",") -> CsvDecoder:
    return CsvDecoder(_fields(), ["t", "k", "a", "b", "y"], delimiter)


def test_csv_takes_the_configured_columns() -> None:
    """Also quoted ones, and with another delimiter; an empty cell takes the stand-in."""
    samples, rejects = _csv().decode(_records(b"2013-12-02 21:15:00,m_1,1.5,,3", b'60,"m,2",-1,2,4'))
    assert not rejects
    assert samples.x.tolist() == [[1.5, 7.0], [-1.0, 2.0]]
    assert samples.keys.tolist() == ["m_1", "m,2"]
    assert samples.times_s.tolist() == [1386018900.0, 60.0]
    assert _csv(";").decode(_records(b"1;m;1;2;3"))[0].y.tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,m,1.5,2", "unparsable"),
        (b"1,m,1.5,2,3,4", "unparsable"),
        (b'1,"m,1,2,3', "unparsable"),
        (b"1,m,,2,3", "missing_field"),
        (b"1,m,x,2,3", "wrong_type"),
        (b"1,m,1_0,2,3", "wrong_type"),
        (b"1,m,nan,2,3", "not_finite"),
        (b"1,m,1,inf,3", "not_finite"),
        (b"1,m,11,2,3", "out_of_range"),
        (b"1,\xff,1,2,3", "bad_utf8"),
        (b"soon,m,1,2,3", "bad_time"),
        (None, "tombstone"),
    ],
)
def test_bad_csv_is_rejected_with_its_reason(line: bytes | None, reason: str) -> None:
    """One bad line spoils no other."""
    samples, rejects = _csv().decode(_records(b"1,m,1,2,3", line, b"2,m,1,2,3"))
    assert [(r.reason, r.offset) for r in rejects] == [(reason, 101)]
    assert samples.offsets.tolist() == [100, 102]


def test_float32_takes_packed_rows() -> None:
    """Several rows of one record become several samples of one offset."""
    fields = _fields(time=None, key="__key__")
    rows = struct.pack("<6f", 1, 2, 3, 4, 5, 6)
    samples, rejects = Float32Decoder(fields).decode(_records(rows, rows[:12], b"", b"abc", rows[:8], rows))
    assert [(r.reason, r.offset) for r in rejects] == [("unparsable", 102), ("unparsable", 103), ("unparsable", 104)]
    assert samples.offsets.tolist() == [100, 100, 101, 105, 105]
    assert samples.x[1].tolist() == [4.0, 5.0]
    assert samples.keys[0] == "key"
    assert samples.times_s[0] == 1.0


def test_float32_with_a_bad_row_is_rejected_whole() -> None:
    """A record is learned whole or not at all."""
    rows = struct.pack("<6f", 1, 2, 3, float("nan"), 5, 6)
    samples, rejects = Float32Decoder(_fields(time=None, key=None)).decode(_records(rows))
    assert [r.reason for r in rejects] == ["not_finite"]
    assert len(samples) == 0


def test_labels_and_weights_are_taken_beside_the_numbers() -> None:
    """A class is text, whatever JSON has it as; the weight is a number of at least 0."""
    fields = _fields(targets=(), label="y", weight=Field("w", min=0.0))
    values = [_json(y=label, w=0.5) for label in ("red", 3, 3.0, True)]
    samples, rejects = JsonDecoder(fields).decode(_records(*values, _json(y=None, w=1.0), _json(y="red", w=-1.0)))
    assert samples.labels is not None
    assert samples.weights is not None
    assert samples.labels.tolist() == ["red", "3", "3", "true"]
    assert samples.weights.tolist() == [0.5] * 4
    assert samples.y.shape == (4, 0)
    assert [reject.reason for reject in rejects] == ["wrong_type", "out_of_range"]

    lines = [b"1.5,2,red,1,60,m1", b"1.5,2,,1,60,m1"]
    csv = CsvDecoder(fields, ["a", "b", "y", "w", "t", "k"])
    samples, rejects = csv.decode(_records(*lines))
    assert samples.labels is not None
    assert samples.labels.tolist() == ["red"]
    assert [reject.reason for reject in rejects] == ["missing_field"]

    packed = _fields(targets=(), label="y", time=None, key=None)
    rows = [struct.pack("<3f", 1, 2, 4), struct.pack("<3f", 1, 2, 0.5)]
    samples, rejects = Float32Decoder(packed).decode(_records(*rows))
    assert samples.labels is not None
    assert samples.labels.tolist() == ["4"]
    assert "y is not a whole number" in rejects[0].detail


def test_a_label_that_is_not_listed_is_rejected() -> None:
    """As one that is longer than any name of a class should be."""
    fields = _fields(targets=(), label="y", labels=frozenset({"red", "blue"}))
    samples, rejects = JsonDecoder(fields).decode(_records(_json(y="red"), _json(y="green")))
    assert len(samples) == 1
    assert [(reject.reason, "green" in reject.detail) for reject in rejects] == [("unknown_label", True)]
    fields = _fields(targets=(), label="y", max_bytes=10_000)
    _, rejects = JsonDecoder(fields).decode(_records(_json(y="x" * 257)))
    assert [reject.reason for reject in rejects] == ["wrong_type"]


@pytest.mark.parametrize("beside", [[], [b"junk"]])
def test_of_a_key_that_stands_twice_the_last_counts_and_each_is_checked(beside: list[bytes]) -> None:
    """As in JavaScript and Python, whether records are decoded together or one by one."""
    twice = b'{"a": 1, "a": 2, ' + _json()[len(b'{"a": 1.5, ') :]
    samples, rejects = JsonDecoder(_fields()).decode(_records(twice, *beside))
    assert (samples.x[:, 0].tolist(), len(rejects)) == ([2.0], len(beside))
    _, rejects = JsonDecoder(_fields()).decode(_records(b'{"a": "1", ' + _json()[1:], *beside))
    assert rejects[0].reason == "wrong_type"


def test_an_event_time_may_be_ahead_of_the_records_own_by_so_much() -> None:
    """Where the record has one; behind it, any time is as good as another."""
    decoder = JsonDecoder(_fields(max_ahead_s=100.0))
    values = [_json(t=t) for t in (0.0, 1100.0, 1101.0, -1e9)]
    stamps = [1_000_000] * 4
    samples, rejects = decoder.decode(Records(PARTITION, range(4), values, [None] * 4, stamps, Position(4)))
    assert samples.offsets.tolist() == [0, 1, 3]
    assert [(reject.offset, reject.reason) for reject in rejects] == [(2, "ahead_of_time")]
    assert "101 s ahead" in rejects[0].detail
    for none in (0, -1):
        samples, _ = decoder.decode(Records(PARTITION, range(4), values, [None] * 4, [none] * 4, Position(4)))
        assert len(samples) == 4


def test_a_records_own_time_must_be_of_this_world() -> None:
    """Any producer can set it to anything; an export could not write it down."""
    fields = _fields(time=None)
    records = Records(PARTITION, range(4), [_json()] * 4, [None] * 4, [2**63 - 1, -(2**63), -1, 1500], Position(4))
    samples, rejects = JsonDecoder(fields).decode(records)
    assert samples.times_s.tolist() == [-0.001, 1.5]
    assert [reject.reason for reject in rejects] == ["bad_time", "bad_time"]


@pytest.mark.parametrize("key", ["k", "__key__"])
def test_a_key_is_bounded(key: str) -> None:
    """It stays in memory and in every checkpoint."""
    records = Records(PARTITION, [0], [_json(k="x" * 1025)], [b"x" * 1025], [0], Position(1))
    _, rejects = JsonDecoder(_fields(key=key, max_bytes=5000)).decode(records)
    assert [reject.reason for reject in rejects] == ["oversized"]


_JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.sampled_from([10**400, 1e39, -11])
    ),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abykt"), inner, max_size=3),
    max_leaves=4,
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.dictionaries(st.sampled_from("abykt"), _JSON, max_size=3), max_size=6),
    cuts=st.lists(st.integers(0, 60), min_size=6, max_size=6),
)
def test_the_verdict_on_a_record_does_not_depend_on_its_neighbours(
    changes: list[dict[str, Any]], cuts: list[int]
) -> None:
    """Decoded together or alone: the same sample, or the same reject."""
    decoder = JsonDecoder(_fields())
    values: list[bytes | None] = [_json()]
    for change, cut in zip(changes, cuts, strict=False):
        value = _json(**change)
        values.append(value if cut > 30 else value[:-cut] if cut > 20 else value)
    samples, rejects = decoder.decode(_records(*values))
    together = {reject.offset: (reject.reason, reject.detail) for reject in rejects}
    together |= dict(zip(samples.offsets.tolist(), samples.x.tolist(), strict=True))
    for i, value in enumerate(values):
        alone, rejected = decoder.decode(_records(value))
        expected = (rejected[0].reason, rejected[0].detail) if rejected else alone.x[0].tolist()
        assert together[100 + i] == expected
