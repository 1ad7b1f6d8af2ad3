"""What every decoder owes: each record becomes samples or a reject, and nothing raises."""

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.reasons import RejectReason
from learnd.core.types import Position, Records, TopicPartition
from learnd.decoders.csv import CsvDecoder
from learnd.decoders.fields import Field, Fields
from learnd.decoders.float32 import Float32Decoder
from learnd.decoders.json import JsonDecoder

FIELDS = Fields((Field("a", min=-100, max=100), Field("b")), (Field("y"),), None, "s", None, 64)
Case = tuple[Callable[[], Any], Callable[[float, float, float], bytes]]
CASES: dict[str, Case] = {
    "json": (lambda: JsonDecoder(FIELDS), lambda a, b, y: json.dumps({"a": a, "b": b, "y": y}).encode()),
    "csv": (lambda: CsvDecoder(FIELDS, ["a", "b", "y"]), lambda a, b, y: f"{a},{b},{y}".encode()),
    "float32": (lambda: Float32Decoder(FIELDS), lambda a, b, y: struct.pack("<3f", a, b, y)),
}


def _records(values: list[bytes | None]) -> Records:
    count = len(values)
    return Records(TopicPartition("t", 0), range(count), values, [None] * count, [1500] * count, Position(count))


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_good_records_become_samples(case: Case) -> None:
    """float64, features and targets apart, in order; time and key from the record where no field has them."""
    make, write = case
    samples, rejects = make().decode(_records([write(1.0, 2.5, -3.0), write(4.0, 5.0, 6.0)]))
    assert not rejects
    assert samples.x.tolist() == [[1.0, 2.5], [4.0, 5.0]]
    assert samples.y.tolist() == [[-3.0], [6.0]]
    assert samples.x.dtype == samples.y.dtype == np.float64
    assert samples.times_s.tolist() == [1.5, 1.5]
    assert samples.keys.tolist() == ["t/0", "t/0"]


def test_nothing_becomes_nothing(case: Case) -> None:
    """An empty run has the shapes of a full one."""
    samples, rejects = case[0]().decode(_records([]))
    assert (samples.x.shape, samples.y.shape, list(rejects)) == ((0, 2), (0, 1), [])


def test_the_fields_of_a_record_can_be_shown(case: Case) -> None:
    """By name, as they are in it; nothing of what cannot be parsed, and nothing raises."""
    make, write = case
    fields = make().fields_of(write(1.0, 2.5, -3.0))
    assert {name: float(str(value)) for name, value in fields.items()} == {"a": 1.0, "b": 2.5, "y": -3.0}
    for junk in (b"", b"\xff", b"{", b"[1]", b'"'):
        assert set(make().fields_of(junk)) <= {"a", "b", "y"}


@pytest.mark.parametrize("kind", CASES)
@hypothesis_settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_record_becomes_samples_or_a_reject(kind: str, data: st.DataObject) -> None:
    """Whatever the bytes. Good ones are not touched by bad neighbours, and what is accepted is finite and in range."""
    make, write = CASES[kind]
    good = write(1.0, 2.0, 3.0)
    junk = st.one_of(st.none(), st.binary(max_size=80), st.just(write(500.0, 0.0, 0.0)))
    values = data.draw(st.lists(st.one_of(st.just(good), junk), max_size=10))
    samples, rejects = make().decode(_records(values))
    told = sorted({*samples.offsets.tolist()} | {reject.offset for reject in rejects})
    assert told == list(range(len(values)))
    assert not {*samples.offsets.tolist()} & {reject.offset for reject in rejects}
    assert all(i in samples.offsets for i, value in enumerate(values) if value == good)
    assert all(reject.reason in RejectReason and reject.detail for reject in rejects)
    assert np.isfinite(samples.x).all()
    assert (np.abs(samples.x[:, 0]) <= 100).all()
