"""Rules of features: what is a fault, what becomes of it, how a sensor gets back in; cutting does not matter."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.checkpoint import state_codec
from learnd.checkpoint.reading import read_arrays
from learnd.core.types import Batch, Position, Records
from learnd.runtime.loop import run
from learnd.sources.memory import Item, MemorySource
from learnd.transforms.rules import Rule, Rules
from learnd.wiring.pipeline import make_pipeline
from learnd.wiring.stream import make_transforms
from tests.support.helpers import PARTITION, make_samples, readings, settings, transformed, until
from tests.unit.test_loop import NoExports

pytestmark = pytest.mark.usefixtures("shared_traces")

NEVER = 10**9


def _rules(*rules: Rule, **options: Any) -> Rules:
    return Rules(rules, **{"drop_duplicates": False, "max_keys": 10, **options})


def _rule(**options: Any) -> Rule:
    return Rule("a", 0, **{"recover_after": NEVER, **options})


def _batch(
    readings: list[float], *, keys: list[str] | None = None, times: list[float] | None = None, first: int = 0
) -> Batch:
    """Samples with the features a (the readings) and b (their offset), from records whose values tell both."""
    count = len(readings)
    offsets = range(first, first + count)
    values = [f"{offset}:{reading}".encode() for offset, reading in zip(offsets, readings, strict=True)]
    block = Records(PARTITION, offsets, values, [b"key"] * count, [7] * count, Position(first + count))
    x = np.array([readings, offsets], np.float32).T.reshape(count, 2)
    rows = make_samples(x, x[:, :1], first=first, times_s=times, keys=keys)
    return Batch(rows, (), {PARTITION: block.next}, count, 0, records=[block])


def _judged(rules: Rules, readings: list[float], **options: Any) -> tuple[list[float], list[str]]:
    """What is learned of feature a, and the reasons of the rejects."""
    batch = transformed(rules, _batch(readings, **options))
    return batch.samples.x[:, 0].tolist(), [reject.reason for reject in batch.rejects]


def test_a_stuck_sensor_is_a_fault_from_the_nth_equal_reading_on() -> None:
    """Until it moves again."""
    readings = [1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0]
    assert _judged(_rules(_rule(stuck_after=3)), readings) == ([1, 2, 2, 3, 3], ["stuck", "stuck"])


def test_a_jump_is_a_fault_against_the_last_good_reading() -> None:
    """However long it lasts, where nothing makes it consistent; the good ones around it stay."""
    readings = [1.0, 2.0, 9.0, -9.0, 3.0, 3000.0, 9000.0, 2.5]
    learned, reasons = _judged(_rules(_rule(max_change=1.5)), readings)
    assert learned == [1, 2, 3, 2.5]
    assert reasons == ["sudden_change"] * 4


def test_a_new_level_is_taken_for_real_after_consistent_readings() -> None:
    """The last of them is learned; what came before it is not."""
    readings = [1.0] * 5 + [50.0, 50.5, 50.0, 50.5, 50.0]
    learned, reasons = _judged(_rules(_rule(max_change=1.0, recover_after=4)), readings)
    assert learned == [1, 1, 1, 1, 1, 50.5, 50]
    assert reasons == ["sudden_change"] * 3


def test_readings_that_do_not_agree_are_no_new_level() -> None:
    """Scale times 1000 makes the noise larger too."""
    readings = [1.0] * 5 + [5000.0, 9000.0, 5000.0, 9000.0] * 5 + [1.0]
    assert _judged(_rules(_rule(max_change=1.0, recover_after=3)), readings)[0] == [1] * 6


def test_a_broken_first_reading_is_overruled_by_two() -> None:
    """A level counts no more than it was held."""
    learned, _ = _judged(_rules(_rule(max_change=1.0, recover_after=100)), [900.0, 1.0, 1.5, 1.0])
    assert learned == [900, 1.5, 1]


def test_a_sensor_that_stood_still_may_go_on_elsewhere_at_once() -> None:
    """One reading is lost, not a hundred: where it was stuck says nothing."""
    readings = [1.0, 1.5, *[2.0] * 50, 30.0, 30.5, 31.0]
    learned, reasons = _judged(_rules(_rule(max_change=1.0, stuck_after=5, recover_after=100)), readings)
    assert learned == [1, 1.5, 2, 2, 2, 2, 30.5, 31]
    assert reasons == ["stuck"] * 46 + ["sudden_change"]


@pytest.mark.parametrize(("on_fault", "stands_in"), [("hold", 3.0), ("mean", 2.0)])
def test_another_value_can_stand_in(on_fault: Any, stands_in: float) -> None:
    """The sample is learned, the reading is counted, and what stood in is no good reading of its own."""
    rules = _rules(_rule(min=0.0, max=10.0, on_fault=on_fault))
    original = _batch([1.0, 2.0, 3.0, 99.0, 99.0, 4.0])
    batch = transformed(rules, original)
    assert batch.samples.x[:, 0].tolist() == [1, 2, 3, stands_in, stands_in, 4]
    assert batch.samples.x[:, 1].tolist() == [0, 1, 2, 3, 4, 5]
    assert (batch.rejects, batch.replaced) == ((), {"out_of_range": 2})
    assert original.samples.x[3, 0] == 99.0, "what flows is not written to"


def test_without_a_good_reading_nothing_can_stand_in() -> None:
    """The sample is rejected."""
    assert _judged(_rules(_rule(max=10.0, on_fault="hold")), [99.0, 1.0, 99.0]) == ([1, 1], ["out_of_range"])


def test_a_bound_is_compared_as_the_reading_is_stored() -> None:
    """0.1 as float32 is above 0.1 as float64."""
    assert _judged(_rules(_rule(min=0.1, max=0.1, on_fault="hold")), [0.1])[1] == []


def test_keys_and_features_are_judged_apart() -> None:
    """One broken feature rejects the sample, and still the other's readings count."""
    rules = _rules(_rule(max_change=1.0), Rule("b", 1, max_change=1.5, recover_after=NEVER))
    batch = transformed(rules, _batch([1.0, 50.0, 1.0, 50.0, 1.0], keys=["m", "n", "m", "n", "m"]))
    # b is the offset: 0, 2, 4 for m, always further than 1.5 from the one before.
    assert [(r.offset, r.detail.split()[0]) for r in batch.rejects] == [(2, "b"), (3, "b"), (4, "b")]
    assert batch.samples.offsets.tolist() == [0, 1]


def test_a_reject_is_the_record_as_it_came() -> None:
    """Value, key, time and the fault in words."""
    batch = transformed(_rules(_rule(max_change=1.0)), _batch([1.0, 50.0, 1.0]))
    (reject,) = batch.rejects
    assert (reject.offset, reject.value, reject.key, reject.timestamp_ms) == (1, b"1:50.0", b"key", 7)
    assert reject.detail == "a is 50, the last good one 1, max_change is 1"


def test_a_late_reading_is_judged_and_changes_nothing() -> None:
    """A record that was sent twice is no sensor that stands still."""
    rules = _rules(_rule(stuck_after=2, max_change=5.0), drop_duplicates=True)
    learned, reasons = _judged(rules, [1.0, 2.0, 90.0, 3.0], times=[0, 1, 1, 2])
    assert (learned, reasons) == ([1, 2, 3], ["sudden_change"])
    assert _judged(rules, [4.0], times=[2.0], first=4)[1] == []
    assert _judged(rules, [4.0], times=[3.0], first=5)[1] == []


def test_too_many_keys_are_counted_and_left_out() -> None:
    """Memory is bounded; the keys that came first go on."""
    batch = transformed(_rules(_rule(max=9.0), max_keys=1), _batch([1.0, 2.0, 3.0], keys=["m", "n", "m"]))
    assert (batch.samples.offsets.tolist(), batch.skipped) == ([0, 2], {"too_many_keys": 1})


@hypothesis_settings(max_examples=80, deadline=None)
@given(
    readings=st.lists(st.sampled_from([1.0, 1.0, 1.5, 2.0, 40.0, 41.0, 4000.0, -5.0]), min_size=1, max_size=60),
    keys=st.lists(st.sampled_from("abc"), min_size=60, max_size=60),
    steps=st.lists(st.sampled_from([0.0, 1.0, 1.0, -2.0]), min_size=60, max_size=60),
    cuts=st.lists(st.integers(1, 59), max_size=6),
    on_fault=st.sampled_from(["reject", "hold", "mean"]),
    drop=st.booleans(),
)
def test_rules_do_not_depend_on_how_the_stream_is_cut(
    readings: list[float], keys: list[str], steps: list[float], cuts: list[int], on_fault: Any, drop: bool
) -> None:
    """Samples, rejects, counts and the state are the same for any cutting, with a save and a restore at every cut."""

    def make() -> Rules:
        first = Rule("a", 0, min=0.0, max_change=3.0, stuck_after=3, recover_after=4, on_fault=on_fault)
        return _rules(first, Rule("b", 1, max_change=2.0, recover_after=2), drop_duplicates=drop, max_keys=2)

    count = len(readings)
    times = np.cumsum(steps[:count]).tolist()
    whole = make()
    expected = whole(_batch(readings, keys=keys[:count], times=times))
    bounds = [0, *sorted({cut for cut in cuts if cut < count}), count]
    state = make().state()
    parts: list[Batch] = []
    for start, end in itertools.pairwise(bounds):
        part = make()
        part.restore(state_codec.decode(state_codec.encode(state)))
        piece = _batch(readings[start:end], keys=keys[start:end], times=times[start:end], first=start)
        parts.append(part(piece))
        state = part.state()
    assert np.concatenate([p.samples.x for p in parts]).tolist() == expected.samples.x.tolist()
    assert sum((p.rejects for p in parts), ()) == expected.rejects
    for counts in ("skipped", "replaced"):
        assert sum(sum(getattr(p, counts).values()) for p in parts) == sum(getattr(expected, counts).values())
    assert state_codec.encode(state) == state_codec.encode(whole.state())


def test_a_rule_that_is_new_begins_anew_beside_those_that_were_there() -> None:
    """What is known of a feature is found by its name."""
    before = _rules(Rule("a", 0, max_change=1.0), Rule("b", 1, max_change=1.0))
    before(_batch([5.0, 5.0]))
    after = _rules(Rule("c", 0, max_change=1.0), Rule("b", 1, max_change=1.0))
    after.restore(before.state())
    state = after.state()
    assert state["features"] == ["c", "b"]
    assert np.isnan(state["sensors"][0, 0, 0])
    assert state["sensors"][0, 1, 0] == 1.0


def test_rules_may_come_and_go_between_two_runs(tmp_path: Path) -> None:
    """A checkpoint without rules starts them fresh, and one with rules is read without them."""
    values = [json.dumps({"a": 1.0 + i % 7, "b": i, "c": 0, "y": 1}).encode() for i in range(40)]
    features: dict[str, Any] = {"a": {"max_change": 10, "stuck_after": 3}, "b": None, "c": None}
    for records, given_features in ((20, list("abc")), (40, features), (40, list("abc"))):
        text = settings(tmp_path, features=given_features, model={"kind": "linear"})
        pipeline = make_pipeline(text, source=MemorySource(values[:records]))
        pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
        run(pipeline, stopping=lambda: False)
        assert pipeline.progress.samples == records
        state = read_arrays(tmp_path / "checkpoints")[1]
        assert ("rules" in state["transforms"]) is (given_features is features)


def test_without_rules_nothing_is_kept_and_nothing_runs(tmp_path: Path) -> None:
    """Ranges alone are the decoder's; samples carry no records."""
    plain = settings(tmp_path, features={"a": {"min": 0, "max": 9}, "b": None, "c": None})
    assert "rules" not in make_transforms(plain, None).state()
    pipeline = make_pipeline(plain, source=MemorySource(readings(3)))
    assert pipeline.open()
    try:
        batch = until(lambda: pipeline.reader.next(0.1), what="the batch")
        assert batch.records == ()
    finally:
        pipeline.close()


def test_rules_work_in_the_pipeline_and_their_rejects_are_dead_letters(tmp_path: Path) -> None:
    """Through windows and micro-batches, in the order of the stream, with reasons that the metrics know."""
    rows: list[dict[str, Any]] = [{"a": float(i % 5), "b": 1.0 + i % 3, "c": 0.1 * i, "y": i % 5} for i in range(60)]
    rows[20]["a"] = rows[41]["a"] = 4000.0
    rows[30]["b"] = -7.0
    rows[31]["a"] = "broken"
    for i in range(50, 60):
        rows[i]["c"] = 5.0
    letters = tmp_path / "letters.jsonl"
    text = settings(
        tmp_path / "data",
        features={
            "a": {"max_change": 10},
            "b": {"min": 0, "on_fault": "hold"},
            "c": {"stuck_after": 4, "max_change": 50},
        },
        task={"kind": "regression", "window": 2},
        learning={"mode": "micro_batch", "batch_size": 4, "compile": False},
        dead_letter={"path": str(letters)},
    )
    values = [json.dumps(row).encode() for row in rows]
    pipeline = make_pipeline(text, source=MemorySource([Item(v, key=b"k%d" % i) for i, v in enumerate(values)]))
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    run(pipeline, stopping=lambda: False)
    lines = [json.loads(line) for line in letters.read_text().splitlines()]
    prefix = "__connect.errors."
    told = [
        (int(line["headers"][f"{prefix}offset"]), line["headers"][f"{prefix}exception.class.name"]) for line in lines
    ]
    # c reached 5.0 at 50 by itself: 50, 51 and 52 are the first three.
    stuck = [(i, "stuck") for i in range(53, 60)]
    assert told == [(20, "sudden_change"), (31, "wrong_type"), (41, "sudden_change"), *stuck]
    assert [line["value"].encode() for line in lines] == [values[offset] for offset, _ in told]
    assert [line["key"] for line in lines] == [f"k{offset}" for offset, _ in told]
    value = pipeline.metrics.registry.get_sample_value
    assert value("learnd_records_rejected_total", {"reason": "stuck"}) == 7
    assert value("learnd_readings_replaced_total", {"reason": "out_of_range"}) == 1
    assert pipeline.progress.records == 60
    state = read_arrays(tmp_path / "data" / "checkpoints")[1]["transforms"]["rules"]
    assert state["features"] == ["a", "b", "c"]
