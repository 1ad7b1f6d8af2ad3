"""Records that only bring a truth, next to whole ones and questions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.core.types import Position, Records, Samples, TopicPartition
from learnd.wiring.stream import make_decoder
from tests.support.helpers import settings

CSV: dict[str, Any] = {"kind": "csv", "columns": ["id", "a", "b", "y", "when"], "time": "when"}


def _decoded(tmp_path: Path, values: list[bytes], *, topic: str = "t", **sections: Any) -> tuple[Samples, list[str]]:
    chosen = settings(tmp_path, **{"features": ["a", "b"], "truth": {"id": "id"}, **sections})
    count = len(values)
    run = Records(
        TopicPartition(topic, 0), range(count), values, [None] * count, [1_800_000_000_000] * count, Position(count)
    )
    samples, rejects = make_decoder(chosen).decode(run)
    return samples, [f"{reject.offset} {reject.reason}" for reject in rejects]


def test_json_truths_stand_among_records_in_order(tmp_path: Path) -> None:
    """A record that lacks some of the features is none, and one without its identifier cannot be matched."""
    samples, rejects = _decoded(
        tmp_path,
        [
            b'{"id": 1, "a": 1, "b": 2}',
            b'{"id": "x", "y": 3}',
            b'{"id": 3, "a": 1, "y": 3}',
            b'{"y": 3}',
            b'{"id": 5, "a": 1, "b": 2, "y": 4}',
            b'{"id": 6, "y": true}',
            b'{"id": 7}',
        ],
    )
    assert samples.ids is not None and samples.has_target is not None
    assert samples.ids.tolist() == ["1", "x", "5"]
    assert samples.has_target.tolist() == [False, True, True]
    assert np.isnan(samples.x).all(axis=1).tolist() == [False, True, False]
    assert samples.y[samples.has_target, 0].tolist() == [3.0, 4.0]
    assert rejects == ["2 missing_field", "3 missing_field", "5 wrong_type", "6 missing_field"]


@pytest.mark.parametrize("missing", [None, "reject"])
def test_csv_truths_have_empty_cells(missing: str | None, tmp_path: Path) -> None:
    """Whether empty features are accepted or not. Without an event time of its own, a truth has that of its record."""
    values = [b"1,1.5,2.5,,2026-01-01", b"1,,,7,", b",1,1,1,2026-01-01"]
    samples, rejects = _decoded(
        tmp_path, values, decode=CSV, features={"a": {"missing": missing}, "b": {"missing": missing}}
    )
    assert samples.ids is not None and samples.has_target is not None
    assert samples.ids.tolist() == ["1", "1"]
    assert samples.has_target.tolist() == [False, True]
    assert np.isnan(samples.x).all(axis=1).tolist() == [False, True]
    assert rejects == ["2 missing_field"]


def test_a_topic_of_truths_holds_nothing_else(tmp_path: Path) -> None:
    """Features there are ignored. Each truth has an event time, which tells how far the topic has come."""
    sections: dict[str, Any] = {
        "source": {"kind": "kafka", "bootstrap_servers": ["localhost:1"], "topics": ["t", "lab"]},
        "truth": {"id": "id", "topic": "lab"},
        "decode": {"kind": "json", "time": "when", "time_numbers": "any"},
    }
    values = [b'{"id": 1, "a": 1, "b": 2, "y": 3, "when": 5}', b'{"id": 1, "y": 3}']
    samples, rejects = _decoded(tmp_path, values, topic="lab", **sections)
    assert samples.y.tolist() == [[3.0]]
    assert samples.times_s.tolist() == [5.0]
    assert np.isnan(samples.x).all()
    assert rejects == ["1 missing_field"]
    samples, rejects = _decoded(tmp_path, values, topic="t", **sections)
    assert samples.x.tolist() == [[1.0, 2.0]]
    assert rejects == ["1 missing_field"]


def test_labels_are_truths_too(tmp_path: Path) -> None:
    samples, rejects = _decoded(
        tmp_path, [b'{"id": 1, "a": 1, "b": 2}', b'{"id": 1, "y": "high"}'], task={"kind": "classification"}
    )
    assert samples.labels is not None
    assert samples.labels.tolist() == [None, "high"]
    assert rejects == []
