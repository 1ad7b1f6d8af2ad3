"""TensorFlow Lite files: four precisions, training on the device, and the ways in which a converter deceives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.core.errors import FormatUnavailableError, VerificationError
from learnd.export.formats.tflite import DynamicRangeFormat, TFLiteReader
from learnd.export.formats.tflite_int8 import Int8Format
from learnd.export.formats.tflite_training import TrainingFormat
from learnd.export.verify import largest_difference, spread_of
from tests.support.exports import NO_EXPORT, candidate_of, in_plain_python, learned, rows
from tests.support.helpers import readings

pytestmark = pytest.mark.usefixtures("shared_traces")

ALL = ["tflite", "tflite_float16", "tflite_dynamic", "tflite_int8", "tflite_training"]

DEVICE = """
sys.modules["tensorflow"] = None
import json
from pathlib import Path
import numpy as np
from ai_edge_litert.interpreter import Interpreter

folder, data = map(Path, sys.argv[1:])
arrays = np.load(data)
x, y = arrays["x"], arrays["y"]
said = {"predictions": {}}
for path in sorted(folder.glob("*.tflite")):
    interpreter = Interpreter(model_path=str(path))
    name = "infer" if path.name == "model_training.tflite" else "serving_default"
    run = interpreter.get_signature_runner(name)
    said["predictions"][path.name] = [float(run(inputs=row[None])["prediction"][0, 0]) for row in x]
path = str(folder / "model_training.tflite")
interpreter = Interpreter(model_path=path)
train, get = interpreter.get_signature_runner("train"), interpreter.get_signature_runner("get")
said["losses"] = [float(train(x=a[None], y=b[None])["loss"]) for a, b in zip(x, y)]
state = {name: np.copy(value) for name, value in get().items()}
straight = [float(train(x=a[None], y=b[None])["loss"]) for a, b in zip(x, y)]
other = Interpreter(model_path=path)
other.get_signature_runner("set")(**state)
train = other.get_signature_runner("train")
said["restored"] = straight == [float(train(x=a[None], y=b[None])["loss"]) for a, b in zip(x, y)]
print(json.dumps(said))
"""


def test_a_device_runs_every_precision_and_trains_on(tmp_path: Path) -> None:
    """With the interpreter alone: no TensorFlow, no Keras, none of us. What `get` gave, another `set` goes on from."""
    sections = {"model": {"kind": "mlp", "hidden": [40, 40]}, "export": {"formats": ALL}}
    pipeline = learned(tmp_path, records=600, **sections)
    x, y = rows(150)
    y += 20.0
    np.savez(tmp_path / "data.npz", x=x, y=y)
    said = json.loads(in_plain_python(DEVICE, tmp_path / "exports" / "latest", tmp_path / "data.npz"))
    sizes = {path.stem: path.stat().st_size for path in (tmp_path / "exports" / "latest").glob("*.tflite")}
    assert max(sizes[f"model_{name}"] for name in ("float16", "dynamic", "int8")) < sizes["model"]
    wanted = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"][:, 0]
    allowed = {"": 1e-4, "_training": 1e-4, "_float16": 0.01, "_dynamic": 0.05, "_int8": 0.2}
    assert sorted(said["predictions"]) == sorted(f"model{name}.tflite" for name in allowed)
    for name, tolerance in allowed.items():
        errors = np.array(said["predictions"][f"model{name}.tflite"]) - wanted
        assert np.sqrt(np.square(errors).mean()) < tolerance * wanted.std(), name
    assert np.mean(said["losses"][-30:]) < np.mean(said["losses"][:30]) / 4
    assert said["restored"]


@pytest.mark.parametrize(
    "kind", ["relu", "gru", *(pytest.param(k, marks=pytest.mark.slow) for k in ("lstm", "conv1d", "tcn"))]
)
def test_training_on_the_device_is_the_daemons_own_update(kind: str, tmp_path: Path) -> None:
    """Built-in operators alone take the same steps as the update does in TensorFlow, its optimizer included."""
    window = None if kind == "relu" else 8
    model: dict[str, Any] = {"kind": kind} if window else {"kind": "mlp", "hidden": [8], "activation": "relu"}
    task = {"kind": "regression", **({"window": window} if window else {})}
    learning = {"mode": "micro_batch", "batch_size": 4, "optimizer": {"kind": "adam", "learning_rate": 0.01}}
    pipeline = learned(tmp_path, model=model, task=task, learning=learning, export=NO_EXPORT)
    x, y = rows(40, window=window)
    candidate = candidate_of(pipeline, x, unroll=True)
    target = tmp_path / "model.tflite"
    TrainingFormat().write(candidate, target)
    train = TFLiteReader(target).interpreter.get_signature_runner("train")
    theirs, ours = [], []
    for i in range(0, 40, 4):
        theirs.append(float(train(x=x[i : i + 4], y=y[i : i + 4])["loss"]))
        ours.append(float(tf.reduce_mean(candidate.learn(x[i : i + 4], y[i : i + 4], observe=False))))
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
    assert len(set(ours)) == 10


@pytest.mark.parametrize("row", ["not a number", "fits exactly"])
def test_a_row_without_a_gradient_does_not_end_learning_on_the_device(row: str, tmp_path: Path) -> None:
    """Clipping divides by the gradients' norm, which is 0 then; the optimizer's slots must stay finite."""
    learned(tmp_path, export={"formats": ["tflite_training"]})
    interpreter = Interpreter(model_path=str(tmp_path / "exports" / "latest" / "model_training.tflite"))
    train, get, infer = map(interpreter.get_signature_runner, ("train", "get", "infer"))
    x, y = rows(100)
    x[0, 0] = np.nan if row == "not a number" else x[0, 0]
    train(x=x[:1], y=infer(inputs=x[:1])["prediction"] if row == "fits exactly" else y[:1])
    assert all(np.isfinite(value).all() for value in get().values())
    losses = [float(train(x=a[None], y=b[None] + 30.0)["loss"]) for a, b in zip(x[1:], y[1:], strict=True)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_an_anomaly_has_a_score_in_int8_too(tmp_path: Path) -> None:
    """Far beyond all that the file was fitted to."""
    sections = {"model": {"kind": "autoencoder"}, "task": {"kind": "reconstruction"}, "target": None}
    pipeline = learned(tmp_path, records=600, export=NO_EXPORT, **sections)
    candidate = candidate_of(pipeline, pipeline.probe.x(), unroll=True)
    Int8Format().write(candidate, tmp_path / "model.tflite")
    usual, _ = rows(30)
    strange = usual * 10.0
    score = Int8Format().reader(tmp_path / "model.tflite")
    wanted = pipeline.model.averaged.predict(strange, pipeline.model.averaged.weights())["score"]
    assert score(strange)["score"].min() > 5.0 * score(usual)["score"].max()
    np.testing.assert_allclose(score(strange)["score"], wanted, rtol=0.3)


ALIKE = """
import keras

def make(input_shape, outputs):
    hidden = [keras.layers.Dense(6, activation="tanh", name=name) for name in ("h-a", "h_a", "H_a")]
    return keras.Sequential([keras.Input(input_shape), *hidden, keras.layers.Dense(outputs)])
"""


@pytest.mark.parametrize("scale", [1e-6, 1e7])
def test_float16_is_as_exact_for_a_target_of_any_size(scale: float, tmp_path: Path) -> None:
    """The converter multiplies the scale of a single target into the last matrix, where float16 has no such numbers."""
    script = [json.dumps({**value, "y": scale * value["y"]}).encode() for value in map(json.loads, readings(300))]
    pipeline = learned(tmp_path, script=script, model={"kind": "mlp", "hidden": [32]}, export={"formats": ALL[1:2]})
    x, _ = rows(30)
    answers = TFLiteReader(tmp_path / "exports" / "latest" / "model_float16.tflite")(x)["prediction"]
    wanted = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"]
    assert np.sqrt(np.square(answers - wanted).mean()) < 0.001 * wanted.std()


def test_layers_whose_names_differ_in_a_sign_alone_stay_apart_on_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get` gives every variable, and `set` brings each back to its own."""
    (tmp_path / "alike.py").write_text(ALIKE)
    monkeypatch.syspath_prepend(tmp_path)
    learned(tmp_path, model={"factory": "alike:make"}, export={"formats": ["tflite_training"]})
    interpreter = Interpreter(str(tmp_path / "exports" / "latest" / "model_training.tflite"))
    infer, get, put = map(interpreter.get_signature_runner, ("infer", "get", "set"))
    x, _ = rows(1)
    before = np.copy(infer(inputs=x)["prediction"])
    state = {name: np.copy(value) for name, value in get().items()}
    assert len([name for name in state if name.startswith("model_") and "kernel" in name]) == 4
    put(**state)
    np.testing.assert_array_equal(infer(inputs=x)["prediction"], before)


def test_a_missing_operator_is_named_and_the_rest_is_published(tmp_path: Path, capfd: Any) -> None:
    """Dropout draws at random, for which devices have nothing: the manifest and the log say so."""
    sections = {
        "model": {"kind": "mlp", "hidden": [8], "dropout": 0.1},
        "export": {"formats": ["tflite", "tflite_training"]},
    }
    learned(tmp_path, **sections)
    folder = tmp_path / "exports" / "latest"
    manifest = json.loads((folder / "learnd.json").read_text())
    reason = manifest["unavailable"]["tflite_training"]
    assert "no built-in operator StatelessRandom" in reason
    assert (folder / "model.tflite").exists()
    assert not (folder / "model_training.tflite").exists()
    said = capfd.readouterr().err
    assert "formats_unavailable" in said and reason in said


def test_a_file_in_which_nothing_was_quantised_is_found_out(tmp_path: Path) -> None:
    """The converter leaves small tensors alone, and says nothing: 8 units are too few, 40 are enough."""
    for units, quantised in ((8, False), (40, True)):
        model = {"kind": "mlp", "hidden": [units, units]}
        pipeline = learned(tmp_path / str(units), model=model, export=NO_EXPORT)
        candidate = candidate_of(pipeline, rows(20)[0], unroll=True)
        target = tmp_path / "model.tflite"
        DynamicRangeFormat().write(candidate, target)
        if quantised:
            assert np.int8 in DynamicRangeFormat().reader(target).dtypes()
        else:
            with pytest.raises(FormatUnavailableError, match="1024"):
                DynamicRangeFormat().reader(target)


def test_a_file_without_its_weights_is_found_out(tmp_path: Path) -> None:
    """Converting a bare concrete function writes such a file without an error; verification refuses it."""
    pipeline = learned(tmp_path, export=NO_EXPORT)
    network = pipeline.model.averaged._network
    serve = tf.function(lambda inputs: dict(network.call(inputs)), autograph=False)
    function = serve.get_concrete_function(tf.TensorSpec((1, 3), tf.float32, name="inputs"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    x, _ = rows(20)
    wanted = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())
    interpreter = Interpreter(model_path=str(tmp_path / "model.tflite"))
    interpreter.allocate_tensors()
    (given,), (answered,) = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for row in x:
        interpreter.set_tensor(given["index"], row[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(answered["index"]))
    got = {"prediction": np.concatenate(answers)}
    with pytest.raises(VerificationError, match=r"not finite|differs"):
        largest_difference("tflite", got, wanted, spread_of(wanted), tolerance=1e-4)
