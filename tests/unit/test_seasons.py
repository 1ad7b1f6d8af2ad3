"""Seasonal inputs: made from times, turned into sine and cosine in the model and in every export of it."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import learnd
from learnd.config.loader import loads
from learnd.core.errors import ConfigError
from learnd.core.seasons import DAY_S, WEEK_S
from learnd.core.types import Position, Records, Samples
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import describe
from learnd.wiring.stream import make_decoder
from tests.support.exports import learned
from tests.support.helpers import PARTITION, config_text, run_forked, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

FEATURES: dict[str, Any] = {"hour": {"season": "day"}, "a": None, "shift": {"season": 28_800, "time": "began"}}
START_S = 1_764_201_600.0
"""Thursday 2025-11-27, 00:00 UTC."""


def _records(count: int, *, every_s: float = 600.0) -> list[bytes]:
    """Return records whose target y depends on the time of day, and hardly on a; their class is day or night."""
    random = np.random.default_rng(0)
    lines = []
    for i in range(count):
        time_s = START_S + i * every_s
        wave = math.sin(2 * math.pi * time_s / DAY_S)
        a = float(random.normal())
        y = 10.0 * wave + 0.1 * a
        line = {
            "t": time_s,
            "began": time_s - 100.0,
            "a": a,
            "y": y,
            "light": "day" if wave > 0 else "night",
            "r": y + a,
        }
        lines.append(json.dumps(line).encode())
    return lines


def _decoded(sections: dict[str, Any], values: list[bytes]) -> tuple[Samples, list[str]]:
    decoder = make_decoder(settings(Path("unused"), **sections))
    samples, rejects = decoder.decode(
        Records(PARTITION, range(len(values)), values, [None] * len(values), [0] * len(values), Position(9))
    )
    return samples, [f"{reject.reason}: {reject.detail}" for reject in rejects]


JSON = {"kind": "json", "time": "t", "time_numbers": "any"}


def test_seasonal_columns_come_last_and_hold_the_seconds_since_their_period_began() -> None:
    """Of the record's time, or of a field: a number or ISO 8601. A week begins on Monday, 00:00 UTC."""
    features = {"weekday": {"season": "week"}, **FEATURES}
    records = [{"a": 1.0, "y": 2.0, "t": START_S + 90_000.0, "began": "1970-01-01T09:00:00Z"}]
    samples, rejects = _decoded({"features": features, "decode": JSON}, [json.dumps(r).encode() for r in records])
    assert not rejects
    # a, weekday (Friday, an hour after midnight), hour, shift
    assert samples.x.tolist() == [[1.0, 4 * DAY_S + 3600.0, 3600.0, 3600.0]]
    assert samples.y.tolist() == [[2.0]]
    chosen = settings(Path("unused"), features=features, decode=JSON)
    assert chosen.feature_names == ("a", "weekday", "hour", "shift")
    assert chosen.reading_names == ("a",)


def test_csv_cells_hold_times_too() -> None:
    decode = {"kind": "csv", "columns": ["began", "a", "y", "t"], "time": "t", "time_numbers": "any", "time_unit": "ms"}
    samples, rejects = _decoded(
        {"features": FEATURES, "decode": decode}, [b"3600000,1,2,1000", b"2025-11-27T08:00:01+00:00,3,4,2000"]
    )
    assert not rejects
    assert samples.x.tolist() == [[1.0, 1.0, 3600.0], [3.0, 2.0, 1.0]]


def test_a_bad_time_of_a_season_rejects_its_record_alone() -> None:
    good = {"a": 1.0, "y": 2.0, "t": 5.0, "began": 6.0}
    lines = [json.dumps(record).encode() for record in (good, {**good, "began": "soon"}, {**good, "t": 7.0})]
    samples, rejects = _decoded({"features": FEATURES, "decode": JSON}, lines)
    assert samples.x[:, 1].tolist() == [5.0, 7.0]
    assert [reject.split(" is ")[0] for reject in rejects] == ["bad_time: began: 'soon'"]


OF_RECORD: dict[str, Any] = {"a": None, "h": {"season": "day"}}
OF_FIELD: dict[str, Any] = {"a": None, "h": {"season": "day", "time": "s"}}
RECONSTRUCTION: dict[str, Any] = {"task": {"kind": "reconstruction"}, "model": {"kind": "autoencoder"}}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"features": {"a": {"time": "t"}}}, "no effect without season"),
        ({"features": {"a": None, "h": {"season": "day", "min": 0}}}, "a seasonal input is none"),
        ({"features": {"h": {"season": "day"}}}, "are all seasonal"),
        ({"features": {"a": None, "h": {"season": "day", "time": "a"}}}, "only one role"),
        ({"features": {"a": None, "h": {"season": "month"}}}, "season"),
        ({"features": OF_RECORD, "source": {"kind": "file", "path": "x.jsonl"}}, "needs the time of each record"),
        ({"features": OF_FIELD, "decode": {"kind": "float32"}}, "no named fields"),
        ({"features": OF_RECORD, "target": None, **RECONSTRUCTION}, "predict the time"),
    ],
)  # fmt: skip
def test_what_a_season_cannot_be_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        loads(config_text(Path("unused"), **sections))


def test_another_period_needs_another_checkpoint() -> None:
    def fingerprint(**options: Any) -> Any:
        return settings(Path("unused"), features={"a": None, "h": options}, decode=JSON).fingerprint()

    assert fingerprint(season="day") != fingerprint(season="week")
    assert fingerprint(season="week") == fingerprint(season=WEEK_S)


@pytest.mark.parametrize(
    ("decode", "time"),
    [
        ({}, "t"),
        ({"time_zone": "Europe/Berlin"}, None),
        ({"time_format": "%d.%m.%Y %H:%M"}, None),
        ({"time_of_day": "c"}, None),
    ],
)
def test_a_manifest_names_only_times_that_its_readers_know(decode: dict[str, Any], time: str | None) -> None:
    """ISO 8601 in UTC, and numbers. A reader would take another time for one of those, and an hour for another one."""
    options = settings(Path("unused"), features={"a": None, "h": {"season": "day"}}, decode={**JSON, **decode})
    (season,) = [feature["season"] for feature in describe(options)["features"] if feature["season"]]  # type: ignore[attr-defined]
    assert season["time"] == time


FORECAST: dict[str, Any] = {"task": {"kind": "forecast", "window": 2, "horizon": 2}, "target": None}
TASKS: dict[str, dict[str, Any]] = {
    "regression": {},
    "classification": {"target": "light", "task": {"kind": "classification"}},
    "forecast": {"features": {"hour": {"season": "day"}, "y": None, "r": None}, **FORECAST},
}


FORMATS = {
    "regression": ["tflite", "keras", "tflite_int8", "tflite_training", "onnx"],
    "classification": ["tflite", "keras"],
    "forecast": ["tflite", "keras"],
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(task, marks=pytest.mark.slow if task == "classification" else ()) for task in TASKS],
)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Pipeline]:
    """A model of each task with its exports; each file was compared with the live model before."""
    folder, task = tmp_path_factory.mktemp(request.param), request.param
    options = {"features": FEATURES, "decode": JSON, "model": {"kind": "mlp", "hidden": [40, 40]}, **TASKS[task]}
    export = {"formats": ["saved_model", *FORMATS[task]]}
    return task, folder / "exports" / "latest", learned(folder, script=_records(1500), export=export, **options)


def test_every_format_has_the_seasons_inside(exported: tuple[str, Path, Pipeline]) -> None:
    """All of them could be written, and answered as the live model does."""
    task, latest, pipeline = exported
    manifest = json.loads((latest / "learnd.json").read_text())
    assert manifest["unavailable"] == {}
    assert set(FORMATS[task]) <= set(manifest["formats"])
    hour = next(feature for feature in manifest["features"] if feature["name"] == "hour")
    assert hour["season"] == {"period_s": DAY_S, "origin_s": 0.0, "time": "t", "time_unit": "s"}
    assert "modulo 86400" in (latest / "MODEL_CARD.md").read_text()
    assert pipeline.publishing.last is not None
    assert pipeline.publishing.last.losses is not None, "the export cannot be evaluated on later samples"
    names = [feature["name"] for feature in manifest["features"]]
    assert names == (["y", "r", "hour"] if task == "forecast" else ["a", "hour", "shift"])


def test_the_model_has_learned_the_time_of_day(exported: tuple[str, Path, Pipeline]) -> None:
    """Much better than knowing only the other feature."""
    task, _, pipeline = exported
    recent = pipeline.evaluator.quality().recent
    if task == "classification":
        assert recent.measures["accuracy"] > 0.9
    elif task == "regression":
        assert recent.measures["mae"] < 2.0  # without the time of day: 6.5
    else:
        assert recent.errors.live_skill > 0.0


@pytest.mark.parametrize(
    "exported", ["regression", pytest.param("classification", marks=pytest.mark.slow)], indirect=True
)
def test_the_command_line_and_the_api_make_the_input_from_the_time(exported: tuple[str, Path, Pipeline]) -> None:
    """As the SavedModel answers the seconds of the day, in every format that can be run."""
    task, latest, _ = exported
    output = "probabilities" if task == "classification" else "prediction"
    record = {"a": 0.5, "t": START_S + 30_000.0, "began": START_S + 29_000.0}
    row = np.array([[0.5, 30_000.0, 200.0]], np.float32)
    serve = tf.saved_model.load(str(latest / "saved_model")).signatures["serving_default"]
    expected = serve(inputs=tf.constant(row))[output].numpy()
    for name in ["saved_model", *(name for name in FORMATS[task] if name != "tflite_int8")]:
        answer = learnd.load_export(latest, format=name).predict([record])[output]
        np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-3)
    done = run_forked("predict", str(latest), lines=json.dumps(record))
    answer = json.loads(done.stdout)[output]
    assert list(answer.values()) == pytest.approx(expected[0].tolist(), rel=1e-4)


def test_the_default_learner_takes_seasons_too(tmp_path: Path) -> None:
    """A forecast by `mode: auto`, whose last-value expert must not take the time for a reading."""
    options = settings(
        tmp_path,
        features={"h": {"season": "day"}, "a": None},
        target=None,
        decode=JSON,
        averaging=None,
        task={"kind": "forecast", "window": 3, "horizon": 2},
        model={"kind": "linear"},
        learning={"mode": "auto", "compile": False},
    )
    result = learnd.run(options, [json.loads(line) for line in _records(120)])
    assert result.predictions[-1]["prediction"].keys() == {"a+1", "a+2"}
    assert result.samples == 116


def test_the_column_is_exact_enough_in_float32() -> None:
    """Time of day to 1e-3 of an hour throughout a week; a time since 1970 would be off by a minute."""
    seconds = np.arange(0.0, WEEK_S, 61.7)
    angle = 2 * np.pi / DAY_S
    narrow = np.sin(seconds.astype(np.float32) * np.float32(angle))
    assert np.abs(narrow - np.sin(seconds * angle)).max() < 2 * np.pi / 24e3
