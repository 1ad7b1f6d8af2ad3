"""`import learnd` in a notebook: configurations, runs over records in memory or a file, and exports."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import learnd
from learnd.api.exported import ExportedModel
from learnd.api.records import as_values
from learnd.checkpoint.reading import read_arrays
from learnd.config.settings import Settings
from learnd.runtime.data_dir_lock import DataDirLock
from tests.support.documents import blocks
from tests.support.helpers import readings, same_arrays

HEAVY = ("tensorflow", "keras", "kafka", "numpy", "structlog")
BASE: dict[str, Any] = {
    "name": "test",
    "source": {"kind": "simulator"},
    "features": ["a", "b", "c"],
    "target": "y",
    "model": {"kind": "linear"},
    "learning": {"compile": False},
    "averaging": {"kind": "window", "size": 4, "every_samples": 10},
    "export": {"formats": []},
}
"""Without XLA, as it starts in a second rather than three."""


def _settings(data_dir: Path, **sections: Any) -> Settings:
    return learnd.from_dict({**BASE, "data_dir": data_dir, **sections})


def _dicts(count: int) -> list[dict[str, Any]]:
    return [json.loads(reading) for reading in readings(count)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[learnd.RunResult, Path]:
    """One run over 120 records, with an export, and its ``data_dir``."""
    data_dir = tmp_path_factory.mktemp("whole")
    settings = _settings(data_dir, export={"formats": ["saved_model"]})
    return learnd.run(settings, _dicts(120)), data_dir


def test_importing_learnd_and_loading_a_configuration_imports_no_heavy_library(tmp_path: Path) -> None:
    """A notebook starts at once, and so does every command."""
    (tmp_path / "a.yaml").write_text(json.dumps(BASE))
    code = f"""
import sys, learnd
print([m for m in ({HEAVY} + ("pydantic", "yaml")) if m in sys.modules])
learnd.load("a.yaml"); learnd.run
print([m for m in {HEAVY} if m in sys.modules])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["[]", "[]"], done.stderr


def test_every_public_name_exists_and_has_a_docstring() -> None:
    """`__all__` lists the API, `dir` shows it, and any other name is an ordinary AttributeError."""
    for name in learnd.__all__:
        assert getattr(learnd, name).__doc__, name
    assert set(learnd.__all__) <= set(dir(learnd))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        learnd.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_a_run_returns_predictions_scores_state_and_weights(whole: tuple[learnd.RunResult, Path]) -> None:
    """One prediction per sample, made before it was learned; averaged weights as arrays."""
    result, data_dir = whole
    assert (result.records, result.samples, result.updates) == (120, 120, 120)
    assert result.state == learnd.ModelState(120, 120, 120, {("records", 0): 120})
    assert (result.rejected, result.skipped, result.classes) == ({}, {}, ())
    assert [line["offset"] for line in result.predictions] == list(range(120))
    assert result.predictions[7]["truth"]["y"] == pytest.approx(_dicts(120)[7]["y"], rel=1e-6)
    assert result.scores.samples == 120
    assert result.scores.mean_loss > 0.0
    assert result.weights["model/output/kernel"].shape == (3, 1)
    assert result.export == (data_dir / "exports" / "latest").resolve()
    assert "samples=120" in repr(result)


def test_several_runs_equal_one_run_bit_for_bit(whole: tuple[learnd.RunResult, Path], tmp_path: Path) -> None:
    """The second run takes the next records; samples add up, and every array of the checkpoint is the same."""
    once, data_dir = whole
    settings, records = _settings(tmp_path), _dicts(120)
    first = learnd.run(settings, records[:50])
    second = learnd.run(settings, iter(records[50:]))
    assert (first.state.samples, second.samples, second.state.samples) == (50, 70, 120)
    assert second.state == once.state
    assert first.predictions + second.predictions == once.predictions
    assert same_arrays(second.weights, once.weights) == []
    assert same_arrays(read_arrays(tmp_path / "checkpoints")[0], read_arrays(data_dir / "checkpoints")[0]) == []


def test_bytes_and_text_are_read_by_the_configured_decoder(tmp_path: Path) -> None:
    """JSON here; and predictions also go to the configured sink."""
    path = tmp_path / "predictions.jsonl"
    settings = _settings(tmp_path / "data", predictions={"path": str(path)})
    values = readings(20)
    result = learnd.run(settings, [*values[:10], *(value.decode() for value in values[10:])])
    assert result.samples == 20
    assert [json.loads(line) for line in path.read_text().splitlines()] == result.predictions


def test_dicts_need_no_json_decoder_and_may_hold_numpy_values(tmp_path: Path) -> None:
    """Settings for a CSV file serve for a table in memory, with its event times and its missing values."""
    settings = _settings(
        tmp_path,
        source={"kind": "file", "path": "no-such-file.csv"},
        decode={"kind": "csv", "time": "t", "time_numbers": "any"},
        features={"a": None, "b": {"missing": 5.0}, "c": {"missing": "reject"}},
    )
    moment = np.datetime64("2026-01-31T00:00:00").item()
    row = {"a": np.float32(1.0), "b": np.nan, "c": np.int64(3), "y": np.float64(2.0), "t": moment, "note": "ignored"}
    result = learnd.run(settings, [row, {**row, "a": np.inf}, {**row, "c": None}], temporary=True)
    assert (result.samples, result.rejected) == (1, {"not_finite": 1, "wrong_type": 1})
    assert result.predictions[0]["time_s"] == 1769817600.0


def test_a_file_is_learned_to_its_end_and_later_from_where_it_ended(tmp_path: Path) -> None:
    """The configured source, as by ``learnd run``."""
    path = tmp_path / "readings.jsonl"
    lines = readings(60)
    path.write_bytes(b"\n".join(lines[:40]) + b"\n")
    settings = _settings(tmp_path / "data", source={"kind": "file", "path": str(path)})
    assert learnd.run(settings, collect=False).predictions == []
    with path.open("ab") as file:
        file.write(b"\n".join(lines[40:]) + b"\n")
    result = learnd.run(settings, max_records=15)
    assert [line["offset"] for line in result.predictions] == list(range(40, 55))
    assert result.state.positions == {("readings.jsonl", 0): 55}


def test_a_run_stops_after_max_records_or_when_asked(tmp_path: Path) -> None:
    """Of an endless iterator, exactly that many records are taken; a stop keeps what was learned."""
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        values = readings(100)
        while True:
            taken.append(1)
            yield values[len(taken) % 100]

    result = learnd.run(_settings(tmp_path), endless(), max_records=30)
    # The first record is looked at before the run, and is one of the 30.
    assert (result.records, len(taken)) == (30, 30)
    polls = iter([False] * 3)
    stopped = learnd.run(_settings(tmp_path), endless(), stopping=lambda: next(polls, True))
    assert stopped.state.records == 30 + stopped.records
    again = learnd.run(_settings(tmp_path), [])
    assert again.state == stopped.state


def test_a_temporary_run_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither state, nor sinks, nor compiler options in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)
    settings = _settings(
        Path("data"),
        predictions={"path": "predictions.jsonl"},
        dead_letter={"path": "rejects.jsonl"},
        export={"formats": ["saved_model"]},
    )
    result = learnd.run(settings, [*readings(10), b"no record"], temporary=True)
    assert (result.samples, result.rejected, result.export) == (10, {"unparsable": 1}, None)
    assert list(tmp_path.iterdir()) == []
    assert {"XLA_FLAGS", "TF_CPP_MIN_LOG_LEVEL"} & os.environ.keys() == set()


def test_two_runs_do_not_share_a_data_dir(tmp_path: Path) -> None:
    """The lock is that of ``learnd run``."""
    with DataDirLock(tmp_path), pytest.raises(learnd.DataDirLockedError, match="in use by process"):
        learnd.run(_settings(tmp_path), readings(1))


def test_wrong_settings_name_the_key() -> None:
    """Every problem at once; a dict has no lines."""
    with pytest.raises(learnd.ConfigError) as caught:
        learnd.from_dict({**BASE, "modle": {}, "http": {"port": -1}})
    assert sorted(problem.path for problem in caught.value.problems) == ["http.port", "modle"]
    assert not any(str(problem).startswith(":") or problem.line for problem in caught.value.problems)
    with pytest.raises(learnd.ConfigError, match=r"<configuration>:2: modle"):
        learnd.loads("name: x\nmodle: {}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "the stream has no end"),
        ({"max_records": 0}, "max_records: is 0"),
        ({"records": {"a": 1.0}}, "is of type dict, but must be an iterable of records"),
        ({"records": b"{}"}, "is of type bytes, but must be"),
        ({"records": [{"a": 1.0}, b"{}"]}, r"records\[1\]: is of type bytes, but the first one is a mapping"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Nothing is learned."""
    with pytest.raises(learnd.UsageError, match=message):
        learnd.run(_settings(tmp_path), **arguments)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([b"{}", {"a": 1.0}], r"records\[1\]: is of type dict, but the first one is not"),
        ([{"a": object()}], r"records\[0\]: cannot be written as JSON: a value of type object is neither"),
    ],
)
def test_a_record_that_cannot_be_converted_is_named(records: list[Any], message: str, tmp_path: Path) -> None:
    """When it is reached."""
    values, _ = as_values(records, _settings(tmp_path))
    with pytest.raises(learnd.UsageError, match=message):
        list(values)


def test_an_export_answers_as_the_averaged_weights_do(whole: tuple[learnd.RunResult, Path]) -> None:
    """Rows as dicts or as an array, by every alias of its folder."""
    result, data_dir = whole
    assert result.export is not None
    model = learnd.load_export(result.export)
    assert (model.format, model.features, model.predicts) == ("saved_model", ("a", "b", "c"), ("y",))
    assert (model.classes, model.window, model.manifest["samples"]) == ((), None, 120)
    rows = _dicts(5)
    answer = model.predict(rows)["prediction"]
    assert (answer.shape, answer.dtype) == ((5, 1), np.float32)
    table = [[row[name] for name in "abc"] for row in rows]
    latest = learnd.load_export(str(data_dir / "exports" / "latest"), format="saved_model")
    np.testing.assert_array_equal(latest.predict(np.array(table))["prediction"], answer)
    with pytest.raises(learnd.UsageError, match="has no format 'onnx' that can be run; it has saved_model"):
        learnd.load_export(result.export, format="onnx")
    with pytest.raises(learnd.UsageError, match="is not an export"):
        learnd.load_export(data_dir)


def _model(*, window: int | None = None, missing: float | None = None) -> ExportedModel:
    """Answers with the sum of each row."""
    features = [{"name": "a", "missing": None}, {"name": "b", "missing": missing}]
    manifest = {"features": features, "predicts": ["y"], "classes": [], "window": window}
    return ExportedModel(Path("x"), "fake", manifest, lambda x: {"prediction": x.reshape(len(x), -1).sum(axis=1)})


def test_missing_values_are_replaced_as_the_export_says() -> None:
    """None, NaN and an absent field alike; the caller's array is not changed."""
    model = _model(missing=10.0)
    assert model.predict([{"a": 1.0}, {"a": 1.0, "b": None}, {"b": 2.0, "a": 1}])["prediction"].tolist() == [11, 11, 3]
    table = np.array([[1.0, np.nan]], np.float32)
    assert model.predict(table)["prediction"].tolist() == [11]
    assert np.isnan(table[0, 1])
    window = _model(window=2, missing=10.0)
    assert window.predict([[[1.0, np.nan], [1.0, 1.0]]])["prediction"].tolist() == [13]


@pytest.mark.parametrize(
    ("rows", "window", "message"),
    [
        ([{"a": 1.0, "b": 2.0}, {"a": 1.0}], None, r"rows\[1\]: b is missing or not finite"),
        ([[np.inf, 1.0]], None, r"rows\[0\]: a is missing or not finite"),
        ([{"a": "high", "b": 2.0}], None, r"rows\[0\]: a is 'high', which is not a number"),
        ({"a": 1.0, "b": 2.0}, None, "is of type dict, but must be a sequence"),
        ([[1.0]], None, r"have the shape \(1, 1\), but this model takes \(n, 2\), where the last axis is a, b"),
        ([[1.0], [1.0, 2.0]], None, "are not an array of numbers"),
        ([{"a": 1.0, "b": 2.0}], 3, r"pass an array of shape \(n, 3, 2\)"),
        ([[1.0, 2.0]], 3, r"this model takes \(n, 3, 2\)"),
    ],
)
def test_rows_that_a_model_cannot_take_are_named(rows: Any, window: int | None, message: str) -> None:
    """An error, rather than an answer that means nothing."""
    with pytest.raises(learnd.UsageError, match=message):
        _model(window=window).predict(rows)


def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as in a notebook, with a small ``boiler.yaml``."""
    monkeypatch.chdir(tmp_path)
    head = "ts,inlet,outlet,flow,power"
    rows = [f"{1_700_000_000 + 60 * i},{40 + i % 7},{60 + i % 5},5.0,{20.0 + i % 5 - i % 7}" for i in range(300)]
    Path("boiler.csv").write_text("\n".join([head, *rows]) + "\n")
    boiler = {
        "data_dir": "data/boiler",
        "source": {"kind": "file", "path": "boiler.csv"},
        "decode": {"kind": "csv", "time": "ts"},
        "features": ["inlet", "outlet", "flow"],
        "target": "power",
        "model": {"kind": "linear"},
        "learning": {"compile": False},
        "export": {"formats": ["saved_model"]},
    }
    Path("boiler.yaml").write_text(json.dumps(boiler))
    space: dict[str, Any] = {}
    for example in blocks("daemon/docs/python-api.md", "python"):
        exec(compile(example.text, str(example), "exec"), space)
    assert space["result"].state.samples == 202
    assert np.isfinite(space["power"]).all()
    assert space["power"].shape == (1, 1)
