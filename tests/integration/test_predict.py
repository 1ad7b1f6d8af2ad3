"""``learnd predict EXPORT < records.jsonl``: any format of an export answers on the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from learnd.export.formats import READERS
from tests.support.exports import learned, rows
from tests.support.helpers import readings, run_cli, run_forked

pytestmark = pytest.mark.usefixtures("shared_traces")


def _predict(
    folder: Path, lines: str, *options: str, code: int = 0, installed: bool = False
) -> tuple[list[dict[str, Any]], str]:
    command = ["predict", str(folder), *options]
    done = run_cli(*command, lines=lines) if installed else run_forked(*command, lines=lines)
    assert done.returncode == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a model that was exported in every format that can be run."""
    folder = tmp_path_factory.mktemp("data")
    formats = sorted(READERS)
    learned(folder, model={"kind": "mlp", "hidden": [40, 40]}, export={"formats": formats})
    return folder


@pytest.fixture(scope="module")
def wanted(data_dir: Path) -> list[float]:
    """What the SavedModel says of ten readings, by TensorFlow itself."""
    x = np.array([[json.loads(line)[name] for name in "abc"] for line in readings(10, seed=5)], np.float32)
    model = tf.saved_model.load(str(data_dir / "exports" / "latest" / "saved_model"))
    answer = model.signatures["serving_default"](inputs=tf.constant(x))["prediction"]
    return [float(value) for value in answer[:, 0]]


@pytest.mark.parametrize("format", sorted(READERS))
def test_every_format_answers_by_its_own_runtime(format: str, data_dir: Path, wanted: list[float]) -> None:
    """In the order of the lines, by the names of the targets, as near as the format is."""
    lines = b"\n".join(readings(10, seed=5)).decode()
    answers, _ = _predict(data_dir / "exports" / "latest", lines, "--format", format)
    assert [answer["line"] for answer in answers] == list(range(1, 11))
    assert all(answer.keys() == {"line", "prediction", "lower", "upper"} for answer in answers)
    got = [answer["prediction"]["y"] for answer in answers]
    tolerance = {"tflite_int8": 0.2, "tflite_dynamic": 0.05, "tflite_float16": 0.01}.get(format, 1e-4)
    assert np.sqrt(np.mean(np.square(np.subtract(got, wanted)))) < tolerance * np.std(wanted)


def test_a_damaged_file_is_named(data_dir: Path, tmp_path: Path) -> None:
    """Whatever its runtime raises: the message says which, and how to see what else is amiss."""
    copy = Path(shutil.copytree(data_dir / "exports" / "latest", tmp_path / "copy", symlinks=True))
    (copy / "model.onnx").unlink()
    (copy / "model.tflite").write_bytes(b"no model")
    for format in ("onnx", "tflite"):
        _, said = _predict(copy, "", "--format", format, code=66)
        assert f"{format} cannot be loaded: " in said
        assert "--verify" in said
        assert "Traceback" not in said


def test_windows_are_gathered_by_key_and_a_bad_line_loses_nothing_else(tmp_path: Path) -> None:
    """Nothing is said of a key's first readings; what is no record is named with its line, and the status tells."""
    learned(tmp_path, task={"kind": "forecast", "window": 3}, target=None, model={"kind": "gru", "units": 4})
    lines = [line.decode() for line in readings(12, seed=5)]  # of three machines in turn
    lines[4] = '{"a": 1.0, "b": "high", "c": 0.0, "k": "m1"}'
    answers, said = _predict(tmp_path / "exports" / "latest", "\n".join([*lines, "", " "]), "--key", "k", code=65)
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("line")] == ["line 5"]
    assert [(answer["line"], answer["key"]) for answer in answers] == [
        (7, "m0"),
        (9, "m2"),
        (10, "m0"),
        (11, "m1"),
        (12, "m2"),
    ]
    assert sorted(answers[0]["prediction"]) == ["a", "b", "c"]


def test_classes_go_by_their_names(tmp_path: Path) -> None:
    """The most probable one, and the probability of each."""
    script = [
        json.dumps({"a": i % 2, "b": 0.0, "c": 1.0, "y": "uv"[i % 2], "k": "m", "t": i}).encode() for i in range(300)
    ]
    learned(tmp_path, script=script, task={"kind": "classification"})
    (answer,), _ = _predict(tmp_path / "exports" / "latest", '{"a": 1.0, "b": 0.0, "c": 1.0}', installed=True)
    assert answer["class"] == "v"
    assert sorted(answer["probabilities"]) == ["u", "v"]


def test_what_is_no_export_or_format_is_said(data_dir: Path, tmp_path: Path) -> None:
    """With what there is instead."""
    assert "is not an export" in _predict(tmp_path, "", code=64)[1]
    assert "it has keras, onnx" in _predict(data_dir / "exports" / "latest", "", "--format", "hdf5", code=64)[1]


def test_tensorflow_serving_finds_warm_up_requests_and_clients_an_example(data_dir: Path) -> None:
    """Each request, replayed as Serving would, is answered; the example is one that its REST interface takes."""
    folder = data_dir / "exports" / "latest"
    signatures = tf.saved_model.load(str(folder)).signatures
    asked = []
    for record in tf.data.TFRecordDataset(str(folder / "assets.extra" / "tf_serving_warmup_requests")):
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        tensors = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = signatures[request.model_spec.signature_name](**tensors)["prediction"]
        assert np.isfinite(answer).all()
        asked.append((request.model_spec.signature_name, answer.shape[0]))
    assert asked == [("serving_default", 1), ("records", 1), ("serving_default", 32), ("records", 32)]
    body = json.loads((folder / "example_request.json").read_text())
    columns = {name: tf.constant(values, tf.float32) for name, values in body["inputs"].items()}
    assert signatures[body["signature_name"]](**columns)["prediction"].shape == (1, 1)
    assert rows(1)[0].shape[1] == len(columns)
