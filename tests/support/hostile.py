"""Records that somebody broken, or hostile, might send: a corpus with verdicts, and mutations of it."""

import base64
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from learnd.sources.memory import Item

FLOAT32_MAX = 3.4e38
LATE_MS = 1_700_000_000_000
"""The records' own time: event times lie before it."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What one decoder meets.

    Attributes
    ----------
    sections : the configuration that reads it
    good : records that must be learned
    bad : records that must be rejected, by the name of the case; the reason and the record
    huge : the same, but of a size that a test wants only a few of
    """

    sections: Mapping[str, Any]
    good: list[Item]
    bad: dict[str, tuple[str, Item]]
    huge: dict[str, tuple[str, Item]] = field(default_factory=dict)


def json_corpus(good: int) -> Corpus:
    """A regression with time, key and sample weight."""
    random = np.random.default_rng(1)

    def item(**changes: Any) -> Item:
        return Item(json.dumps({**_numbers(random), **changes}).encode(), b"k", LATE_MS)

    def text(old: str, new: bytes) -> Item:
        values = {**_numbers(random), old: "HERE"}
        return Item(json.dumps(values).encode().replace(b'"HERE"', new), b"k", LATE_MS)

    def raw(value: bytes | None) -> Item:
        return Item(value, None, LATE_MS)

    nested, digits = 100_000, b"9" * 5000
    numbers = ("a", "b", "y", "w")
    bad = {
        "tombstone": ("tombstone", raw(None)),
        "tombstone with a key": ("tombstone", Item(None, b"\xff", LATE_MS)),
        "nothing": ("unparsable", raw(b"")),
        "zero bytes": ("unparsable", raw(b"\x00" * 99)),
        "byte order mark": ("unparsable", raw(b"\xef\xbb\xbf" + (item().value or b""))),
        "UTF-16": ("bad_utf8", raw((item().value or b"").decode().encode("utf-16"))),
        "two objects": ("unparsable", raw((item().value or b"") * 2)),
        "an array": ("wrong_type", raw(b"[1, 2]")),
        "a number": ("wrong_type", raw(b"17")),
        "null": ("wrong_type", raw(b"null")),
        "half a record": ("unparsable", raw((item().value or b"")[:30])),
        "5000 digits as a key": ("wrong_type", text("k", digits)),
        "5000 digits as a time": ("wrong_type", text("t", digits)),
        "400 digits as a time": ("bad_time", text("t", b"9" * 400)),
        "a surrogate as a key": ("unparsable", text("k", b'"\\ud800"')),
        "a surrogate as a time": ("unparsable", text("t", b'"\\udfff"')),
        "a surrogate elsewhere": ("unparsable", text("z", b'"\\ud800"')),
        "bad UTF-8 as a key": ("bad_utf8", text("k", b'"\xed\xa0\x80"')),
        "bad UTF-8 elsewhere": ("bad_utf8", text("z", b'"\xff"')),
        "a long key": ("oversized", item(k="x" * 2000)),
        "NaN as a time": ("unparsable", text("t", b"NaN")),
        "1e400 as a time": ("wrong_type", text("t", b"1e400")),
        "1e300 as a time": ("bad_time", text("t", b"1e300")),
        "no time of this world": ("bad_time", item(t="2026-02-30")),
        "a time far ahead": ("ahead_of_time", item(t=LATE_MS / 1000 + 1e6)),
        "a time far ahead as text": ("ahead_of_time", item(t="2999-01-01T00:00:00Z")),
        "true as a time": ("wrong_type", item(t=True)),
        "null as a key": ("wrong_type", item(k=None)),
        "an object as a key": ("wrong_type", item(k={"a": 1})),
        "a negative weight": ("out_of_range", item(w=-1)),
        "a weight of 3e38": ("out_of_range", item(w=FLOAT32_MAX)),
        "a twice, first as text": ("wrong_type", raw(b'{"a": "x", ' + (item().value or b"")[1:])),
    }
    for name in numbers:
        bad |= {
            f"NaN as {name}": ("not_finite", text(name, b"NaN")),
            f"Infinity as {name}": ("not_finite", text(name, b"-Infinity")),
            f"1e400 as {name}": ("not_finite", text(name, b"1e400")),
            f"1e39 as {name}": ("not_finite", text(name, b"1e39")),
            f"5000 digits as {name}": ("wrong_type", text(name, digits)),
            f"text as {name}": ("wrong_type", text(name, b'"1"')),
            f"null as {name}": ("wrong_type", text(name, b"null")),
            f"true as {name}": ("wrong_type", text(name, b"true")),
            f"an array as {name}": ("wrong_type", text(name, b"[1]")),
            f"no {name}": ("missing_field", raw(json.dumps({**_numbers(random), name: 0}).encode())),
        }
        bad[f"no {name}"] = ("missing_field", raw(_without(item(), name)))
    huge = {
        "10 MB": ("oversized", item(z="x" * 10_000_000)),
        "nested arrays as a": ("wrong_type", text("a", b"[" * nested + b"]" * nested)),
        "nested arrays elsewhere": ("unparsable", text("z", b"[" * nested + b"]" * nested)),
        "nested objects elsewhere": ("unparsable", text("z", b'{"a":' * nested + b"1" + b"}" * nested)),
        "nested and cut": ("wrong_type", raw(b"[" * nested)),
    }
    sections = {
        "decode": {"kind": "json", "time": "t", "time_numbers": "any", "key": "k", "missing_target": "reject"},
        "learning": {"sample_weight": "w"},
        "features": {"a": {"missing": "reject"}, "b": {"missing": "reject"}},
    }
    rows = [item() for _ in range(good)]
    extreme = [item(**{n: v}) for n in ("a", "y") for v in (FLOAT32_MAX, -FLOAT32_MAX, 1e-45)]
    others = [
        item(w=0),
        item(w=1e6),
        raw(b'{"a": 1, ' + (item().value or b"")[1:]),
        item(k="\x00"),
        item(k="\U0001f600"),
        item(t="0001-01-01"),
        text("k", b"9" * 400),
    ]
    return Corpus(sections, _spread(rows, extreme + others), bad, huge)


def csv_corpus(good: int) -> Corpus:
    """A classification with time, key and sample weight."""
    random = np.random.default_rng(2)

    def item(**changes: Any) -> Item:
        values = {**_numbers(random), "y": "hot", **changes}
        return Item(",".join(str(values[name]) for name in "tkabyw").encode("utf-8", "surrogatepass"), b"k", LATE_MS)

    def raw(value: bytes | None) -> Item:
        return Item(value, None, LATE_MS)

    whole = item().value or b""
    bad = {
        "tombstone": ("tombstone", raw(None)),
        "nothing": ("unparsable", raw(b"")),
        "a cell too few": ("unparsable", raw(whole.rpartition(b",")[0])),
        "a cell too many": ("unparsable", raw(whole + b",1")),
        "two lines": ("unparsable", raw(whole + b"\n" + whole)),
        "an open quote": ("unparsable", raw(b'"' + whole)),
        "a line break behind quotes": ("unparsable", item(k='"m"\r')),
        "zero bytes": ("unparsable", raw(b"\x00" * 99)),
        "bad UTF-8": ("bad_utf8", raw(whole + b"\xff")),
        "a surrogate": ("bad_utf8", item(k="\ud800")),
        "UTF-16": ("bad_utf8", raw(whole.decode().encode("utf-16"))),
        "NaN as a time": ("bad_time", item(t="nan")),
        "1e400 as a time": ("bad_time", item(t="1e400")),
        "5000 digits as a time": ("bad_time", item(t="9" * 5000)),
        "only Python's number as a time": ("bad_time", item(t="1_000")),
        "a time far ahead": ("ahead_of_time", item(t="2999-01-01")),
        "no time": ("bad_time", item(t="")),
        "a long key": ("oversized", item(k="x" * 2000)),
        "a long label": ("wrong_type", item(y="x" * 300)),
        "no label": ("missing_field", item(y=" ")),
        "a negative weight": ("out_of_range", item(w=-0.1)),
        "a weight of 3e38": ("out_of_range", item(w=FLOAT32_MAX)),
        "a sixth of a megabyte in quotes": ("oversized", item(k='"' + "x" * 170_000 + '"')),
    }
    for name in ("a", "b", "w"):
        bad |= {
            f"NaN as {name}": ("not_finite", item(**{name: "nan"})),
            f"Infinity as {name}": ("not_finite", item(**{name: "-inf"})),
            f"1e400 as {name}": ("not_finite", item(**{name: "1e400"})),
            f"5000 digits as {name}": ("not_finite", item(**{name: "9" * 5000})),
            f"only Python's number as {name}": ("wrong_type", item(**{name: "1_0"})),
            f"hexadecimal as {name}": ("wrong_type", item(**{name: "0x10"})),
            f"text as {name}": ("wrong_type", item(**{name: "x"})),
            f"nothing as {name}": ("missing_field", item(**{name: ""})),
        }
    huge = {
        "10 MB": ("oversized", raw(whole + b" " * 10_000_000)),
        "half a million cells": ("unparsable", raw(b"," * 500_000)),
    }
    sections = {
        "decode": {
            "kind": "csv",
            "columns": list("tkabyw"),
            "time": "t",
            "time_numbers": "any",
            "key": "k",
            "missing_target": "reject",
        },
        "task": {"kind": "classification", "max_classes": 4},
        "learning": {"sample_weight": "w"},
        "features": {"a": {"missing": "reject"}, "b": {"missing": "reject"}},
    }
    rows = [item(y=("hot", "cold")[i % 2]) for i in range(good)]
    others = [item(a=FLOAT32_MAX), item(b=-FLOAT32_MAX), item(w=0), item(w=1e6), item(y="\x00"), item(k="")]
    others += [item(y=f"class {i}") for i in range(9)]
    return Corpus(sections, _spread(rows, others), bad, huge)


def float32_corpus(good: int) -> Corpus:
    """A classification with sample weight and the record's own key and time."""
    random = np.random.default_rng(3)
    nan, inf = float("nan"), float("inf")

    def row(*changes: tuple[int, float]) -> bytes:
        numbers = _numbers(random)
        values = [numbers["a"], numbers["b"], numbers["w"], float(random.integers(2))]
        for position, value in changes:
            values[position] = value
        return struct.pack("<4f", *values)

    def item(*changes: tuple[int, float], **options: Any) -> Item:
        return Item(row(*changes), **{"key": b"k", "timestamp_ms": LATE_MS, **options})

    bad = {
        "tombstone": ("tombstone", Item(None, b"k", LATE_MS)),
        "nothing": ("unparsable", Item(b"", b"k", LATE_MS)),
        "half a row": ("unparsable", Item(row()[:8], b"k", LATE_MS)),
        "a row and a half": ("unparsable", Item(row() + row()[:6], b"k", LATE_MS)),
        "one bad row of three": ("not_finite", Item(row() + row((1, nan)) + row(), b"k", LATE_MS)),
        "a class between": ("unparsable", item((3, 0.5))),
        "NaN as a class": ("unparsable", item((3, nan))),
        "Infinity as a class": ("unparsable", item((3, inf))),
        "minus Infinity as a class": ("unparsable", item((3, -inf))),
        "a negative weight": ("out_of_range", item((2, -1.0))),
        "a weight of 3e38": ("out_of_range", item((2, FLOAT32_MAX))),
        "a long key": ("oversized", item(key=b"x" * 5000)),
        "a time beyond all years": ("bad_time", item(timestamp_ms=2**63 - 1)),
        "a time before all years": ("bad_time", item(timestamp_ms=-(2**63))),
    }
    for position, name in enumerate("abw"):
        for value in (nan, inf, -inf):
            bad[f"{value} as {name}"] = ("not_finite", item((position, value)))
    huge = {
        "10 MB": ("oversized", Item(row() * 650_000, b"k", LATE_MS)),
        "a key of 10 MB": ("oversized", item(key=b"k" * 10_000_000)),
    }
    sections = {
        "decode": {"kind": "float32", "key": "__key__"},
        "task": {"kind": "classification", "max_classes": 4},
        "learning": {"sample_weight": "w"},
        "features": {"a": {"missing": "reject"}, "b": {"missing": "reject"}},
    }
    rows = [item() for _ in range(good)]
    others = [
        item((0, FLOAT32_MAX)),
        item((1, -FLOAT32_MAX)),
        item((0, 1e-45)),
        item((2, 0.0)),
        item((2, 1e6)),
        item((3, -FLOAT32_MAX)),
        item((3, -0.0)),
        item(key=b"\xff\xed\xa0\x80"),
        item(key=None),
        item(timestamp_ms=-1),
    ]
    return Corpus(sections, _spread(rows, others), bad, huge)


CORPORA = {"json": json_corpus, "csv": csv_corpus, "float32": float32_corpus}


def _numbers(random: Any) -> dict[str, Any]:
    a, b = random.normal(5.0, 3.0), random.normal(100.0, 10.0)
    values = {"a": a, "b": b, "y": 2.0 * a - 0.1 * b, "w": random.uniform(0.5, 2.0)}
    return {"t": float(random.integers(10**9)), "k": "m", **{name: round(v, 3) for name, v in values.items()}}


def _without(item: Item, name: str) -> bytes:
    values = json.loads(item.value or b"{}")
    return json.dumps({key: value for key, value in values.items() if key != name}).encode()


def _spread(rows: list[Item], others: list[Item]) -> list[Item]:
    """*others* at even distances among *rows*, the first one soon."""
    step = len(rows) // (len(others) + 1)
    for i, other in enumerate(others):
        rows.insert(3 + i * step, other)
    return rows


def mutations(corpus: Corpus, *, seed: int) -> Iterator[Item]:
    """Records of *corpus* with bytes changed, cut, doubled and mixed, without end; some may be good ones still."""
    random = np.random.default_rng(seed)
    stock = [*corpus.good[:50], *(item for _, item in corpus.bad.values())]
    small = [item for item in stock if len(item.value or b"") < 1000]
    while True:
        # Drawn in bulk: numpy takes microseconds for each single number.
        picks = random.integers(len(small), size=(1000, 2)).tolist()
        kinds, places = random.integers(7, size=1000).tolist(), random.random((1000, 3)).tolist()
        for (first, second), kind, (one, two, three) in zip(picks, kinds, places, strict=True):
            item, other = small[first], small[second].value or b""
            value = item.value or b"x"
            start, end = sorted((int(one * len(value)), int(two * len(value))))
            byte = bytes([int(three * 256)])
            mutated = (
                value[:start] + byte + value[start + 1 :],
                value[:start] + byte + value[start:],
                value[:start] + value[end:],
                value[:start] + value[start:end] * 2 + value[end:],
                value[:start] + other[int(three * len(other)) :],
                other[: int(three * len(other))] + value[start:],
                bytes([value[start] ^ (1 << int(three * 8))]).join([value[:start], value[start + 1 :]]),
            )[kind]
            yield Item(mutated, item.key, item.timestamp_ms)


def letter(line: Mapping[str, Any]) -> tuple[int, str, bytes | None, bytes | None]:
    """Offset, reason, key and value of one line of a dead-letter file."""
    headers = line["headers"]
    key, value = (
        base64.b64decode(line[f"{name}_base64"])
        if f"{name}_base64" in line
        else (None if line[name] is None else line[name].encode())
        for name in ("key", "value")
    )
    prefix = "__connect.errors."
    return int(headers[f"{prefix}offset"]), headers[f"{prefix}exception.class.name"], key, value
