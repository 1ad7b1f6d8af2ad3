"""Missing readings: a null or an empty cell costs no record, in the daemon and in its exports."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd import load_export
from learnd.config.loader import from_values
from learnd.core.errors import ConfigError
from learnd.core.types import Position, Records, TopicPartition
from learnd.decoders.csv import CsvDecoder
from learnd.decoders.fields import Fields, fields_from
from learnd.decoders.json import JsonDecoder
from learnd.export.formats import EXPORTERS
from tests.support.exports import candidate_of, learned
from tests.support.helpers import readings, settings
from tests.support.learning import LearnerOfRows

FORMATS = ("saved_model", "tflite", "tflite_float16", "tflite_int8", "keras", "onnx")


def _fields(**features: Any) -> Fields:
    chosen = settings(Path("unused"), features={"a": {}, "b": {}, **features})
    return fields_from(chosen.features, ["y"], chosen.decode, fills_gaps=chosen.fills_gaps)


def _records(*values: bytes) -> Records:
    count = len(values)
    return Records(TopicPartition("t", 0), range(count), list(values), [None] * count, [0] * count, Position(count))


def test_a_null_stays_missing_and_an_absent_field_is_rejected() -> None:
    """An absent field may be a wrong name, which must not pass in silence; nor must a record without any reading."""
    lines = [
        '{"a": null, "b": 1, "y": 2}',
        '{"b": 1, "y": 2}',
        '{"a": null, "b": null, "y": 2}',
        '{"a": 3, "b": 4, "y": 5}',
    ]
    samples, rejects = JsonDecoder(_fields()).decode(_records(*(line.encode() for line in lines)))
    np.testing.assert_array_equal(samples.x, [[math.nan, 1.0], [3.0, 4.0]])
    assert [(reject.offset, reject.reason) for reject in rejects] == [(1, "missing_field"), (2, "missing_field")]


def test_a_configured_mean_admits_absent_fields_and_reject_rejects_nulls() -> None:
    value = b'{"b": 1, "y": 2}'
    samples, _ = JsonDecoder(_fields(a={"missing": "mean"})).decode(_records(value))
    np.testing.assert_array_equal(samples.x, [[math.nan, 1.0]])
    samples, rejects = JsonDecoder(_fields(a={"missing": "reject"})).decode(_records(b'{"a": null, "b": 1, "y": 2}'))
    assert len(samples) == 0 and len(rejects) == 1


def test_an_empty_cell_stays_missing() -> None:
    samples, rejects = CsvDecoder(_fields(), ["a", "b", "y"], ",").decode(_records(b"1,,2", b",3,4", b",,5", b"1,2,"))
    np.testing.assert_array_equal(samples.x, [[1.0, math.nan], [math.nan, 3.0], [1.0, 2.0]])
    assert [reject.offset for reject in rejects] == [2]  # no feature
    assert samples.has_target is not None and samples.has_target.tolist() == [True, True, False]


@pytest.mark.parametrize(
    "sections",
    [
        {"task": {"kind": "reconstruction"}, "target": None},
        {"task": {"kind": "forecast", "window": 3}, "target": None},
        {"scaling": {"inputs": "none"}},
    ],
)
def test_where_the_mean_cannot_stand_in_a_null_is_rejected(sections: dict[str, Any]) -> None:
    """Where readings are predicted themselves, or reach the model as they are."""
    values = {
        "source": {"kind": "simulator"},
        "features": ["a", "b"],
        "target": "y",
        "model": {"kind": "mlp"},
        **sections,
    }
    values = {key: value for key, value in values.items() if value is not None}
    chosen = from_values(values)
    fields = fields_from(chosen.features, [], chosen.decode, fills_gaps=chosen.fills_gaps)
    assert not any(field.has_gaps for field in fields.features)
    with pytest.raises(ConfigError, match="missing"):
        from_values({**values, "features": {"a": {"missing": "mean"}, "b": {}}})


def test_missing_readings_cost_little() -> None:
    """With 5 % of all cells empty, all rows are learned; the error over the rows with all cells hardly grows."""
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 4))
    y = x @ [1.0, -2.0, 0.5, 1.5] + 0.1 * random.normal(size=6000)
    gaps = random.random(x.shape) < 0.05
    learner = LearnerOfRows(features=4)
    whole = np.abs(learner.predictions(x, y) - y)
    learner.reset()
    partly = np.abs(learner.predictions(np.where(gaps, np.nan, x), y) - y)
    assert np.isfinite(partly).all()
    full = ~gaps.any(axis=1) & (np.arange(6000) > 3000)
    assert partly[full].mean() < 2.5 * whole[full].mean()
    assert partly[~full & (np.arange(6000) > 3000)].mean() < 1.5  # about what the missing reading explains


def test_an_indicator_tells_the_model_what_is_missing() -> None:
    """Here a reading is missing where a machine stands, so its absence says more than any reading."""
    random = np.random.default_rng(0)
    x, stands = random.normal(size=(4000, 2)), random.random(4000) < 0.1
    y = np.where(stands, -3.0, x[:, 0]) + 0.1 * random.normal(size=4000)
    x[stands, 0] = np.nan

    def error(**options: Any) -> float:
        learner = LearnerOfRows(features={"a": options, "b": {}}, learning={"optimizer": {"kind": "adam"}})
        errors = np.abs(learner.predictions(x, y) - y)
        assert learner.learning.network.core_inputs(x[:1]).shape == (1, 3 if options else 2)
        return float(errors[stands][-100:].mean())

    assert error(indicator=True) < 0.5 < 2.0 < error()


def test_an_indicator_needs_missing_readings() -> None:
    values = {"source": {"kind": "simulator"}, "target": "y", "model": {"kind": "mlp"}}
    for options in ({"indicator": True, "missing": 0.0}, {"indicator": True, "missing": "reject"}):
        with pytest.raises(ConfigError, match="missing: mean"):
            from_values({**values, "features": {"a": options, "b": {}}})
    plain = from_values({**values, "features": ["a", "b"]}).fingerprint()
    marked = from_values({**values, "features": {"a": {"indicator": True}, "b": {}}}).fingerprint()
    assert "indicators" not in plain and marked["indicators"] == ["a"]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model with an indicator of a feature whose absence matters."""
    script = readings(400)
    for i in range(0, 400, 4):
        values = json.loads(script[i])
        script[i] = json.dumps({**values, "b": None, "y": values["y"] + 100.0}).encode()
    features = {"a": {}, "b": {"indicator": True}, "c": {}}
    return learned(tmp_path_factory.mktemp("marked"), script=script, features=features, export={"formats": []})


@pytest.mark.parametrize("name", FORMATS)
def test_the_indicator_is_inside_every_export(name: str, marked: Any, tmp_path: Path) -> None:
    """A row with NaN is answered as in the daemon, and not as one with the mean."""
    implementation = EXPORTERS[name].load()()
    candidate = candidate_of(marked, marked.probe.x(), unroll=implementation.unroll)
    implementation.write(candidate, tmp_path / implementation.file_name)
    answer = implementation.reader(tmp_path / implementation.file_name)
    averaged = marked.model.averaged
    rows = marked.probe.x()[:8].copy()
    rows[:, 1] = averaged._network.inputs_scaler.shift.numpy()[1]
    of_mean = answer(rows)["prediction"]
    rows[:, 1] = np.nan
    expected = averaged.predict(rows, averaged.weights())["prediction"]
    spread = marked.model.averaged._network.target_scaler.spread.numpy()[0]
    tolerance = 0.2 if name == "tflite_int8" else 0.01
    np.testing.assert_allclose(answer(rows)["prediction"], expected, atol=tolerance * spread)
    assert np.abs(answer(rows)["prediction"] - of_mean).mean() > 0.1 * spread


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    script = readings(300)
    for i in range(0, 300, 7):
        script[i] = json.dumps({**json.loads(script[i]), "b": None}).encode()
    folder = tmp_path_factory.mktemp("data")
    return folder, learned(folder, script=script, export={"formats": ["saved_model"]}, dead_letter=None)


def test_records_with_gaps_are_learned_and_the_manifest_says_how(pipeline: Any) -> None:
    folder, made = pipeline
    assert made.progress.samples == 300
    assert not np.isnan(made.probe.x()).any()
    manifest = json.loads((folder / "exports" / "latest" / "learnd.json").read_text())
    assert [feature["missing"] for feature in manifest["features"]] == ["mean"] * 3


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_takes_a_missing_reading_for_the_mean(name: str, pipeline: Any, tmp_path: Path) -> None:
    """Every format answers a row with NaN as one with the feature's mean."""
    _, made = pipeline
    implementation = EXPORTERS[name].load()()
    candidate = candidate_of(made, made.probe.x(), unroll=implementation.unroll)
    implementation.write(candidate, tmp_path / implementation.file_name)
    answer = implementation.reader(tmp_path / implementation.file_name)
    rows = made.probe.x()[:8].copy()
    mean = rows.copy()
    mean[:, 1] = made.model.averaged._network.inputs_scaler.shift.numpy()[1]
    rows[:, 1] = np.nan
    tolerance = 0.2 if name == "tflite_int8" else 0.02
    np.testing.assert_allclose(answer(rows)["prediction"], answer(mean)["prediction"], atol=tolerance)


def test_the_python_api_passes_missing_readings_on(pipeline: Any) -> None:
    folder, _ = pipeline
    export = load_export(folder / "exports" / "latest")
    answers = export.predict([{"a": 5.0, "b": None, "c": -1.0}, {"a": 5.0, "c": -1.0}])["prediction"]
    assert np.isfinite(answers).all() and answers[0] == answers[1]
