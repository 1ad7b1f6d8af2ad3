"""Forecasts that are delivered when their window is full, and evaluated when their truth comes."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.checkpoint.state_codec import encode
from learnd.core.types import Batch, Samples
from learnd.learners.answers import AnswerBook
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import MemorySource
from learnd.transforms.windows import Windows
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, readings, same_arrays, settings

pytestmark = pytest.mark.usefixtures("shared_traces")
WINDOW, HORIZON = 3, 2


def _windows(book: AnswerBook | None) -> Windows:
    return Windows(
        window=WINDOW,
        features=1,
        targets=0,
        horizon=HORIZON,
        max_gap_s=10.0,
        drop_duplicates=True,
        max_keys=5,
        answers=book,
    )


def _readings(count: int, *, times_s: Any = None, keys: Any = None) -> Samples:
    x = np.arange(float(count))[:, None]
    return make_samples(x.astype(np.float32), np.empty((count, 0), np.float32), times_s=times_s, keys=keys)


def _batch(samples: Samples) -> Batch:
    return Batch(samples, (), {}, len(samples), 0)


def test_each_full_window_is_answered_and_evaluated_a_horizon_later() -> None:
    """The sample that evaluates an answer has its window, and the readings after it as targets."""
    book = AnswerBook(HORIZON, size=100)
    samples = _windows(book)(_batch(_readings(8))).samples
    known = np.array(samples.has_target)
    assert samples.answers is not None and samples.repeated is not None
    assert samples.offsets[~known].tolist() == [2, 3, 4, 5, 6, 7]
    assert samples.offsets[known].tolist() == [4, 5, 6, 7]
    assert samples.repeated.tolist() == (~known).tolist()
    windows = {int(number): x for number, x in zip(samples.answers[~known], samples.x[~known], strict=True)}
    for number, x, y in zip(samples.answers[known], samples.x[known], samples.y[known], strict=True):
        np.testing.assert_array_equal(windows[int(number)], x)
        assert y.tolist() == [x[-1, 0] + 1.0, x[-1, 0] + 2.0]
    assert len(book) == 6  # the learner empties it: four are evaluated, two wait


def test_a_state_stays_as_it_was_while_the_stream_goes_on() -> None:
    """It is written by another thread, later."""
    windows = _windows(AnswerBook(HORIZON, size=100))
    windows(_batch(_readings(5)))
    state = windows.state()
    before = encode(state)
    windows(_batch(_readings(9).take(slice(5, 9))))
    assert encode(state) == before


def test_an_answer_before_a_gap_is_given_up() -> None:
    """Its truth never comes, so nothing is kept of it."""
    book = AnswerBook(HORIZON, size=100)
    times_s = [0, 1, 2, 3, 100, 101, 102]
    samples = _windows(book)(_batch(_readings(7, times_s=times_s))).samples
    assert samples.offsets.tolist() == [2, 3, 6]
    assert not np.any(samples.has_target)
    assert len(book) == 1


@hypothesis_settings(max_examples=25, deadline=None, derandomize=True)
@given(
    keys=st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    gaps=st.lists(st.sampled_from([0.0, 1.0, 50.0]), min_size=30, max_size=30),
    cuts=st.lists(st.integers(0, 30), max_size=5),
)
def test_answers_do_not_depend_on_how_the_stream_is_cut(keys: list[str], gaps: list[float], cuts: list[int]) -> None:
    """Neither the rows and their numbers, nor what is kept, nor the state."""
    count = len(keys)
    samples = _readings(count, times_s=np.cumsum(gaps[:count]), keys=keys)
    book, other = AnswerBook(HORIZON, size=100), AnswerBook(HORIZON, size=100)
    whole, part = _windows(book), _windows(other)
    expected = whole(_batch(samples)).samples
    bounds = [0, *sorted(min(cut, count) for cut in cuts), count]
    rows = []
    for first, last in itertools.pairwise(bounds):
        rows.append(part(_batch(samples.take(slice(first, last)))).samples)
        state = part.state()
        part = _windows(other)
        part.restore(state)
    joined = [row for row in rows if len(row)]
    if joined:
        result = Samples.concat(joined)
        np.testing.assert_array_equal(result.x, expected.x)
        assert result.answers is not None and expected.answers is not None
        assert result.answers.tolist() == expected.answers.tolist()
    assert encode(whole.state()) == encode(part.state())
    assert encode(book.state()) == encode(other.state())


def _learned(folder: Path, values: list[bytes], size: int | None = None, **predictions: Any) -> Pipeline:
    text = settings(
        folder,
        target=None,
        features=["a", "b"],
        decode={"kind": "json", "time": "t", "time_numbers": "any"},
        task={"kind": "forecast", "window": 4, "horizon": 2},
        learning={"mode": "per_sample", "compile": False},
        predictions={"path": str(folder / "predictions.jsonl"), **predictions},
    )
    pipeline = make_pipeline(text, source=MemorySource(values))
    if size is not None:
        pipeline.reader.pace = lambda samples, duration_s: None  # type: ignore[method-assign]
        pipeline.reader.batch_records = size
    run(pipeline, stopping=lambda: False)
    return pipeline


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_a_forecast_is_delivered_before_its_truth_and_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    """Its evaluation has the same prediction and interval. Alarms are those of a run that delivers with the truth."""
    values = readings(40)
    pipeline = _learned(tmp_path / "at_once", values)
    lines = _lines(tmp_path / "at_once")
    answers = {f"memory/0/{line['offset']}": line for line in lines if line["truth"] is None}
    evaluated = [line for line in lines if line["truth"] is not None]
    assert [line["offset"] for line in answers.values()] == list(range(3, 40))
    assert [line["offset"] for line in evaluated] == list(range(5, 40))
    for line in evaluated:
        answer = answers[line["answers"]]
        assert answer["offset"] == line["offset"] - 2
        for name in ("prediction", "lower", "upper", "model_samples", "key"):
            assert line[name] == answer[name], name
    assert all(line["anomaly_probability"] is not None for line in lines if line["offset"] >= 5)
    other = _learned(tmp_path / "with_truth", values, forecasts="with_truth")
    arrays, others = ({n: v.numpy() for n, v in p.saving.checkpoints._live.items()} for p in (pipeline, other))
    assert same_arrays(arrays, others) == []
    for head in ("level", "onset", "distance", "health"):  # the last one, of the losses, has those of the answers
        assert encode(pipeline.alarming.state()[head]) == encode(other.alarming.state()[head])
    assert [line["truth"] for line in evaluated] == [line["truth"] for line in _lines(tmp_path / "with_truth")]
    small = _learned(tmp_path / "small", values, size=3)
    assert _lines(tmp_path / "small") == lines
    assert pipeline.book is not None and small.book is not None
    assert encode(small.book.state()) == encode(pipeline.book.state())
    assert len(pipeline.book) == 2
