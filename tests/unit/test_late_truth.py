"""Truths that come later than their records: in the whole pipeline, however it is cut and killed."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint.state_codec import encode
from learnd.core.types import State
from learnd.runtime.loop import Pipeline, run
from learnd.sources.memory import Crash, MemorySource, ScriptedCrash
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, readings, same_arrays, settings

pytestmark = pytest.mark.usefixtures("shared_traces")
DELAYS = (1, 3, 17, 2, 40, 5)
"""Places after which truths follow their records; they overtake each other."""


def _records(count: int) -> list[dict[str, Any]]:
    return [{**json.loads(value), "id": i} for i, value in enumerate(readings(count))]


def _late(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return questions, each followed some places later by a record with its truth only."""
    placed: list[tuple[float, dict[str, Any]]] = []
    for i, record in enumerate(records):
        placed.append((i, {name: value for name, value in record.items() if name != "y"}))
        placed.append((i + DELAYS[i % len(DELAYS)] + 0.5, {"id": record["id"], "k": record["k"], "y": record["y"]}))
    return [record for _, record in sorted(placed, key=lambda pair: pair[0])]


def _bytes(records: list[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def _pipeline(folder: Path, script: list[Any], *, mode: str = "per_sample", **sections: Any) -> Pipeline:
    learning: dict[str, Any] = {"mode": mode, "compile": False}
    if mode == "micro_batch":
        learning["batch_size"] = 4
    text = settings(
        folder,
        **{
            "decode": {"kind": "json", "time": "t", "time_numbers": "any", "key": "k"},
            "truth": {"id": "id"},
            "learning": learning,
            "averaging": {"kind": "none"} if mode == "auto" else {"kind": "window", "size": 4, "every_samples": 10},
            "predictions": {"path": str(folder / "predictions.jsonl")},
            "checkpoint": {"every_seconds": None, "every_samples": 1000},
            **sections,
        },
    )
    return make_pipeline(text, source=MemorySource(script))


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def _learned(folder: Path, script: list[Any], **options: Any) -> tuple[Pipeline, list[dict[str, Any]]]:
    pipeline = _pipeline(folder, script, **options)
    run(pipeline, stopping=lambda: False)
    return pipeline, _lines(folder)


def _state(pipeline: Pipeline) -> tuple[dict[str, Any], dict[str, State]]:
    arrays = {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}
    parts = ("transforms", "learner", "intervals", "evaluator", "answers")
    return arrays, {name: pipeline._stateful()[name].state() for name in parts}


def _differences(one: Pipeline, other: Pipeline) -> list[str]:
    arrays, state = _state(one)
    other_arrays, other_state = _state(other)
    return [*same_arrays(arrays, other_arrays), *(n for n in state if encode(state[n]) != encode(other_state[n]))]


@pytest.mark.parametrize("mode", ["per_sample", "micro_batch", "auto"])
def test_a_record_is_learned_when_its_truth_comes_with_the_answer_that_it_had(mode: str, tmp_path: Path) -> None:
    """The same samples are learned, in the order of the truths, and each is evaluated by the first answer."""
    stream = _late(_records(60))
    pipeline, lines = _learned(tmp_path / "late", _bytes(stream), mode=mode)
    in_order = [record for record in stream if "y" in record]
    features = {record["id"]: record for record in stream if "a" in record}
    other, _ = _learned(
        tmp_path / "whole", _bytes([{**features[t["id"]], **t} for t in in_order]), mode=mode, alarms={"enabled": False}
    )
    if mode != "auto":  # a mixture's weights follow the predictions made when learning, and the scales when answering
        assert same_arrays(_state(pipeline)[0], _state(other)[0]) == []
    assert pipeline.progress.samples == 60
    assert dict(pipeline.status.truths) == {"matched": 60}
    answers = {f"memory/0/{line['offset']}": line for line in lines if line["answers"] is None}
    evaluated = [line for line in lines if line["answers"] is not None]
    assert len(answers) == len(evaluated) == 60
    assert all(line["truth"] is None and line["score"] is None for line in answers.values())
    for line in evaluated:
        answer = answers[line["answers"]]
        assert line["prediction"] == answer["prediction"]
        assert (line["lower"], line["upper"]) == (answer["lower"], answer["upper"])
        assert (line["model_samples"], line["key"], line["time_s"]) == (
            answer["model_samples"],
            answer["key"],
            answer["time_s"],
        )
        assert line["truth"] is not None and line["score"] is not None


def test_the_score_is_that_of_the_answer(tmp_path: Path) -> None:
    """Not that of the prediction just before learning: the loss is a square of the answer's error, at one scale."""
    _, lines = _learned(
        tmp_path, _bytes(_late(_records(60))), scaling={"target": "none"}, decode={"kind": "json", "key": "k"}
    )
    evaluated = [line for line in lines if line["answers"] is not None]
    for line in evaluated:
        np.testing.assert_allclose(line["score"], (line["truth"]["y"] - line["prediction"]["y"]) ** 2, rtol=1e-3)


@pytest.mark.parametrize("mode", ["per_sample", "micro_batch"])
def test_kills_lose_nothing_and_learn_nothing_twice_to_the_last_bit(mode: str, tmp_path: Path) -> None:
    """Whatever waits is in the checkpoint: questions, truths, answers. The lines are the same too."""
    stream: list[Any] = _bytes(_late(_records(60)))
    whole, lines = _learned(tmp_path / "whole", stream, mode=mode)
    script = list(stream)
    for place in (101, 62, 7):
        script.insert(place, Crash())
    source, folder = MemorySource(script), tmp_path / "killed"
    crashes = 0
    while True:
        saves = {"every_seconds": None, "every_samples": 12}
        pipeline = _pipeline(folder, stream, mode=mode, checkpoint=saves)
        pipeline.reader._source = source
        pipeline.reader.batch_records = 3
        try:
            run(pipeline, stopping=lambda: False)
            break
        except ScriptedCrash:
            crashes += 1
    assert crashes == 3
    assert _differences(pipeline, whole) == []
    assert _lines(folder) == lines


def test_the_state_does_not_depend_on_how_the_stream_is_cut(tmp_path: Path) -> None:
    """Also where a record and its truth are in one batch, or in two; with limits that drop some."""
    stream: list[Any] = _bytes(_late(_records(60)))
    truth = {"id": "id", "within_s": 900.0, "max_pending": 8}
    whole, lines = _learned(tmp_path / "whole", stream, truth=truth)
    assert whole.status.truths["evicted"] > 0 and whole.status.truths["expired"] > 0
    for size in (1, 2, 7):
        pipeline = _pipeline(tmp_path / str(size), stream, truth=truth)
        pipeline.reader.pace = lambda samples, duration_s: None  # type: ignore[method-assign]
        pipeline.reader.batch_records = size
        run(pipeline, stopping=lambda: False)
        assert _differences(pipeline, whole) == []
        assert _lines(tmp_path / str(size)) == lines


def test_records_with_their_truth_and_later_truths_mix(tmp_path: Path) -> None:
    """A whole record is learned at once. One that repeats its features with the truth is not learned twice."""
    a, b, c, d = _records(4)
    question = {name: value for name, value in b.items() if name != "y"}
    early = {name: value for name, value in c.items() if name in ("id", "k", "y")}
    stream = [a, question, b, b, {**b, "y": 99.0}, early, {name: c[name] for name in c if name != "y"}, d]
    pipeline, lines = _learned(tmp_path, _bytes(stream))
    assert pipeline.progress.samples == 4
    assert dict(pipeline.status.truths) == {"matched": 2, "duplicate": 1, "corrected": 1}
    assert [line["offset"] for line in lines] == [0, 1, 2, 6, 7]
    assert [line["truth"] and line["truth"]["y"] for line in lines] == [a["y"], None, b["y"], c["y"], d["y"]]


def test_a_record_that_lacks_one_feature_is_rejected_and_is_no_truth(tmp_path: Path) -> None:
    """Else a wrong name in the configuration would turn all records into truths of nothing."""
    record = {name: value for name, value in _records(1)[0].items() if name != "b"}
    malformed = {"id": 7, "k": "m", "y": "high"}
    pipeline, _ = _learned(tmp_path, _bytes([record, malformed, {"k": "m", "y": 1.0}]))
    assert dict(pipeline.status.rejected) == {"missing_field": 2, "wrong_type": 1}


def test_truths_are_found_by_event_time_without_an_identifier(tmp_path: Path) -> None:
    """The truth has the event time of the record."""
    records = _records(10)
    stream: list[dict[str, Any]] = []
    for now, before in itertools.zip_longest(records, [None, *records]):
        if now is not None:
            stream.append({name: now[name] for name in ("t", "k", "a", "b", "c")})
        if before is not None:
            stream.append({name: before[name] for name in ("t", "k", "y")})
    pipeline, _ = _learned(tmp_path, _bytes(stream), truth={})
    assert dict(pipeline.status.truths) == {"matched": 10}


def test_labels_that_come_late(tmp_path: Path) -> None:
    """Classes are numbered when they come; a class beyond the limit leaves nothing behind."""
    records = [{**record, "y": ("low", "high", "odd")[i % 3]} for i, record in enumerate(_records(30))]
    task = {"kind": "classification", "max_classes": 2}
    pipeline, lines = _learned(tmp_path, _bytes(_late(records)), task=task)
    assert dict(pipeline.status.truths) == {"matched": 30}
    assert dict(pipeline.status.skipped) == {"too_many_classes": 10}
    assert pipeline.progress.samples == 20
    assert {line["truth"] for line in lines if line["answers"] is not None} == {"low", "high"}


def test_windows_are_those_of_the_record(tmp_path: Path) -> None:
    """A truth is no reading: it neither fills a window nor breaks one."""
    stream = _late([{**record, "k": "m"} for record in _records(40)])
    pipeline, lines = _learned(tmp_path, _bytes(stream), task={"kind": "regression", "window": 5})
    assert dict(pipeline.status.truths) == {"matched": 36, "unmatched": 4}
    assert pipeline.progress.samples == 36 == sum(line["answers"] is not None for line in lines)


@pytest.mark.parametrize(("mode", "average"), [("per_sample", 1), ("auto", 2)])
def test_averaged_weights_answer_although_live_ones_are_chosen_for_exports(
    mode: str, average: int, tmp_path: Path
) -> None:
    """With ``serve: averaged``; the numbers are those of the candidates for an export."""
    predictions = {"path": str(tmp_path / "predictions.jsonl"), "serve": "averaged"}
    pipeline, _ = _learned(tmp_path, _bytes(_records(60)), mode=mode, predictions=predictions)
    variables = pipeline.saving.checkpoints._live
    (name,) = [name for name in variables if name.endswith("standing/choice")]
    x = np.ones((1, 3), np.float32)
    samples = make_samples(x, x[:, :1], has_target=np.zeros(1, np.bool_), slots=np.zeros(1, np.int32))
    answers = []
    for choice in (0, average):
        variables[name].assign(choice)
        answers.append(pipeline.model.learner.learn(samples))
    np.testing.assert_array_equal(answers[0].averaged_predictions, answers[1].averaged_predictions)
    assert abs(answers[0].averaged_predictions - answers[0].predictions).max() > 0.0
