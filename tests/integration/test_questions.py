"""The questions that people come with; each test is the answer: one configuration, and what it does."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from learnd.checkpoint.reading import read_arrays
from learnd.config.loader import loads
from learnd.core.errors import ConfigError
from learnd.models import from_bytes, to_bytes
from learnd.models.stored.slots import assign_slots, slots_of
from learnd.runtime.loop import Pipeline, run
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import ROOT, SAVED_MODEL, Daemon, config_text, run_cli
from tests.unit.test_loop import NoExports

pytestmark = pytest.mark.usefixtures("shared_traces")

EXAMPLE = ROOT / "tests" / "example"


@pytest.fixture(autouse=True)
def _example_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in [name for name in sys.modules if name.startswith("wear_model")]:
        del sys.modules[name]


def stream(folder: Path, *, classes: int = 0, count: int = 600, seed: int = 0) -> Path:
    """Readings a, b, c, d with their wear, or with one of so many classes."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 4))
    number = random.integers(0, max(classes, 1), count)
    if classes:
        x += np.eye(max(classes, 4))[number][:, :4] * 3
    wear = wear_of(x)
    rows = [
        {**dict(zip("abcd", values, strict=True)), "wear": y, "kind": f"kind-{n}"}
        for values, y, n in zip(x.tolist(), wear.tolist(), number.tolist(), strict=True)
    ]
    path = folder / "readings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def wear_of(x: Any) -> Any:
    """The truth that is to be learned."""
    return x[:, 0] - 2 * x[:, 1] + 0.5 * x[:, 1] * x[:, 2]


def configuration(folder: Path, readings: Path, **sections: Any) -> str:
    return config_text(
        folder / "data",
        **{
            "source": {"kind": "file", "path": str(readings)},
            "features": ["a", "b", "c", "d"],
            "target": "wear",
            "averaging": {"kind": "none"},
            "export": SAVED_MODEL,
            **sections,
        },
    )


def learned(text: str) -> Pipeline:
    """`learnd run`, here and to the stream's end."""
    pipeline = make_pipeline(loads(text))
    pipeline.publishing.exporter = NoExports()  # type: ignore[assignment]
    run(pipeline, stopping=lambda: False)
    return pipeline


def losses(pipeline: Pipeline) -> Any:
    ring = pipeline.evaluator.state()["ring"][0]
    return ring[: pipeline.progress.samples]


def plain(outputs: int = 1, activation: str | None = None) -> Any:
    """A model that somebody trained once."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((4,)),
            layers.Dense(8, activation="tanh", name="body"),
            layers.Dense(6, activation="tanh", name="neck"),
            layers.Dense(outputs, activation=activation, name="answer"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    x = np.random.default_rng(9).normal(size=(64, 4)).astype("float32")
    model.fit(x, np.repeat(x[:, :1], outputs, axis=1), epochs=2, verbose=0)
    return model


def test_load_a_saved_model_and_train_it_further(tmp_path: Path) -> None:
    """`model: {load: folder}`. Its architecture is unknown; it learns through its signature, and is exported again."""
    model = plain()
    model.export(tmp_path / "exported", verbose=False)
    x = np.random.default_rng(1).normal(size=(20, 4)).astype("float32")
    optimizer = {"kind": "adam", "learning_rate": 0.01}
    text = configuration(
        tmp_path, stream(tmp_path), model={"load": str(tmp_path / "exported")}, learning={"optimizer": optimizer}
    )
    pipeline = make_pipeline(loads(text))
    before = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"]
    np.testing.assert_allclose(before, model(x), rtol=1e-5, atol=1e-6)
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with Daemon(config) as daemon:
        daemon.finish()
    served = tf.saved_model.load(str(tmp_path / "data" / "exports" / "latest" / "saved_model"))
    after = served.signatures["serving_default"](inputs=tf.constant(x))["prediction"].numpy()
    wear = wear_of(x)[:, None]
    assert np.square(after - wear).mean() < 0.5 * np.square(before - wear).mean()


def test_restore_a_subclassed_model_with_its_optimizer(tmp_path: Path) -> None:
    """`model: {load: file.keras, code: [wear_model]}`: its class is your code; the optimizer goes on."""
    make = __import__("wear_model").make
    model = make((4,), 1)
    model.compile(keras.optimizers.Adam(0.002), loss="mse")
    x = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    model.save(tmp_path / "wear.keras")
    sections = {"model": {"load": str(tmp_path / "wear.keras"), "code": ["wear_model"]}}
    pipeline = make_pipeline(loads(configuration(tmp_path, stream(tmp_path), **sections)))
    slots = {name: v.numpy() for name, v in pipeline.saving.checkpoints._live.items() if name.startswith("optimizer/")}
    wanted = slots_of(model.optimizer, model.trainable_variables)
    assert int(slots["optimizer/iteration"]) == int(wanted["iteration"]) == 4
    momenta = [value for name, value in wanted.items() if name.endswith("momentum")]
    found = [value for name, value in slots.items() if name.endswith("momentum")]
    assert len(found) == len(momenta) == 6
    assert all(np.array_equal(a, b) for a, b in zip(found, momenta, strict=True))
    optimizer = pipeline.model.learner._chunk._update_rows.optimizer  # type: ignore[attr-defined]
    assert float(optimizer.learning_rate) == pytest.approx(0.002), "the file's optimizer, not the default one"


def test_use_a_model_subclass_of_mine_with_its_own_layers_and_loss(tmp_path: Path) -> None:
    """`model: {factory: wear_model:make}`, with the package on the path as users have it; a restart goes on."""
    config = tmp_path / "config.yaml"
    readings = stream(tmp_path)
    model = {"factory": "wear_model:make", "arguments": {"pairs": 6}}
    sections: dict[str, Any] = {"model": model, "learning": {"optimizer": {"kind": "adam", "learning_rate": 0.01}}}
    config.write_text(configuration(tmp_path, readings, **sections))
    refused = run_cli("validate", "--load", str(config))
    assert refused.returncode == 78
    assert "model.factory: wear_model cannot be imported" in refused.stderr
    environ = {"PYTHONPATH": str(EXAMPLE)}
    with Daemon(config, "--max-records", "350", environ=environ) as daemon:
        daemon.finish()
    with Daemon(config, environ=environ) as daemon:
        daemon.finish()
        assert daemon.events("finished")[-1]["model_samples"] == 600
        assert daemon.events("export_published")
    arrays, state = read_arrays(tmp_path / "data" / "checkpoints")
    assert any(name.endswith("interactions/left") for name in arrays)
    ring = state["evaluator"]["ring"][0][:600]
    assert ring[-150:].mean() < 0.7 * ring[:150].mean()
    # The loss that it was compiled with is the one that counts: linear far out, so never as large as a square.
    whole = learned(configuration(tmp_path / "again", readings, **sections))
    np.testing.assert_allclose(losses(whole), ring, rtol=1e-3, atol=1e-5)


def test_load_old_hdf5_weights_into_my_architecture(tmp_path: Path, old_keras_files: Path) -> None:
    """`model: {architecture: model.json, load: weights.h5}`, as Keras 2 wrote them; or a `factory` in its place."""
    old = old_keras_files
    with np.load(old / "plain.npz") as arrays:
        x, expected = arrays["inputs"], arrays["outputs"]
    model = {"architecture": str(old / "plain.json"), "load": str(old / "plain_old_weights.h5")}
    text = configuration(
        tmp_path,
        stream(tmp_path, classes=3),
        model=model,
        target="kind",
        task={"kind": "classification", "classes": ["kind-0", "kind-1", "kind-2"]},
        learning={"mode": "micro_batch"},  # it has batch normalisation
    )
    pipeline = make_pipeline(loads(text))
    answers = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["probabilities"]
    np.testing.assert_allclose(answers, expected, rtol=1e-4, atol=1e-6)


def test_replace_the_output_layer_because_there_are_more_classes_now(tmp_path: Path) -> None:
    """`head: {}`: the body keeps its weights, the new end has as many outputs as there are classes."""
    model = plain(3, "softmax")
    model.save(tmp_path / "three.keras")
    sections = {"target": "kind", "learning": {"optimizer": {"kind": "adam", "learning_rate": 0.02}}}
    five = {"kind": "classification", "classes": [f"kind-{i}" for i in range(5)]}
    readings = stream(tmp_path, classes=5)
    wrong = configuration(tmp_path, readings, model={"load": str(tmp_path / "three.keras")}, task=five, **sections)
    with pytest.raises(ConfigError, match=r"the model has 3 outputs, the task needs 5; add `head: \{\}`"):
        make_pipeline(loads(wrong))
    text = configuration(
        tmp_path / "new", readings, model={"load": str(tmp_path / "three.keras"), "head": {}}, task=five, **sections
    )
    pipeline = make_pipeline(loads(text))
    arrays = {name: v.numpy() for name, v in pipeline.saving.checkpoints._live.items()}
    np.testing.assert_array_equal(arrays["model/body/kernel"], model.get_layer("body").kernel.numpy())
    assert arrays["model/head/kernel"].shape == (6, 5)
    pipeline = learned(text)
    assert losses(pipeline)[-150:].mean() < 0.8 * losses(pipeline)[:150].mean()


def test_let_the_model_grow_when_a_new_class_appears(tmp_path: Path) -> None:
    """`classes: dynamic`: nothing has to be stopped; the old classes keep what they learned."""
    model = plain(3, "softmax")
    model.save(tmp_path / "three.keras")
    task = {"kind": "classification", "classes": "dynamic", "known": ["kind-0", "kind-1", "kind-2"]}
    text = configuration(
        tmp_path, stream(tmp_path, classes=4), model={"load": str(tmp_path / "three.keras")}, task=task, target="kind"
    )
    pipeline = make_pipeline(loads(text))
    kernel = {name: v.numpy() for name, v in pipeline.saving.checkpoints._live.items()}["model/answer/kernel"]
    np.testing.assert_array_equal(kernel[:, :3], model.get_layer("answer").kernel.numpy())
    assert pipeline.model.classes() == ("kind-0", "kind-1", "kind-2")
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with Daemon(config) as daemon:
        daemon.finish()
        (event,) = daemon.events("class_added")
        assert (event["label"], event["number"]) == ("kind-3", 3)
    newest = max((tmp_path / "data" / "exports").glob("[0-9]*"))
    manifest = json.loads((newest / "learnd.json").read_text())
    assert manifest["classes"] == ["kind-0", "kind-1", "kind-2", "kind-3"]
    assert manifest["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": [None, 4]}]
    _, state = read_arrays(tmp_path / "data" / "checkpoints")
    assert state["transforms"]["labels"]["names"] == manifest["classes"]


def test_freeze_the_backbone_and_train_only_the_last_layers_with_a_low_learning_rate(tmp_path: Path) -> None:
    """`freeze: {all_but_last: 2}` and a rate per layer group: the neck learns at a tenth of the rate of the end."""
    model = plain()
    model.save(tmp_path / "plain.keras")
    text = configuration(
        tmp_path,
        stream(tmp_path),
        model={"load": str(tmp_path / "plain.keras"), "freeze": {"all_but_last": 2}},
        learning={"optimizer": {"kind": "sgd", "learning_rate": 0.001}, "layer_rates": {"neck": 0.1}},
    )
    pipeline = learned(text)
    arrays, _ = read_arrays(tmp_path / "data" / "checkpoints")
    for name in ("kernel", "bias"):
        np.testing.assert_array_equal(arrays[f"model/body/{name}"], getattr(model.get_layer("body"), name).numpy())
        assert (arrays[f"model/neck/{name}"] != getattr(model.get_layer("neck"), name).numpy()).any()
        assert (arrays[f"model/answer/{name}"] != getattr(model.get_layer("answer"), name).numpy()).any()
    assert not any("body" in name for name in arrays if name.startswith(("optimizer/", "averager/")))
    assert pipeline.progress.samples == 600


def test_serialise_the_model_to_bytes_send_it_and_train_on(tmp_path: Path) -> None:
    """`to_bytes` and `from_bytes` carry the optimizer along; a file of such bytes is something to `load`."""
    model = plain()
    data = to_bytes(model)
    received = from_bytes(data)
    optimizer = keras.optimizers.deserialize(received.optimizer)
    optimizer.build(received.model.trainable_variables)
    assert assign_slots(optimizer, received.model.trainable_variables, received.slots) == []
    x = np.random.default_rng(1).normal(size=(20, 4)).astype("float32")
    np.testing.assert_array_equal(received.model(x), model(x))
    (tmp_path / "model.bytes").write_bytes(data)
    text = configuration(tmp_path, stream(tmp_path), model={"load": str(tmp_path / "model.bytes")})
    pipeline = learned(text)
    arrays, _ = read_arrays(tmp_path / "data" / "checkpoints")
    assert int(arrays["optimizer/iteration"]) == int(received.slots["iteration"]) + 600
    assert losses(pipeline)[-150:].mean() < losses(pipeline)[:150].mean()


def test_keep_learning_batch_by_batch_with_gradient_tape_and_a_decaying_learning_rate(tmp_path: Path) -> None:
    """`mode: micro_batch` and a schedule: the loop is compiled; the rate falls with every step."""
    schedule = {"kind": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}
    learning = {"mode": "micro_batch", "batch_size": 10, "optimizer": {"kind": "sgd", "learning_rate": schedule}}
    sections = {"model": {"kind": "mlp", "hidden": [8]}, "learning": learning}
    readings = stream(tmp_path)
    learned(configuration(tmp_path, readings, **sections))
    more = stream(tmp_path, count=1000)
    pipeline = learned(configuration(tmp_path, more, **sections))
    optimizer = pipeline.model.learner._chunk._update_rows.optimizer  # type: ignore[attr-defined]
    assert int(optimizer.iterations) == 100
    assert float(optimizer.learning_rate) == pytest.approx(0.1 * 0.5**10, rel=1e-4)


def test_the_model_of_the_documents_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed there, word for word, learns."""
    text = (ROOT / "daemon" / "docs" / "models.md").read_text(encoding="utf-8")
    code = text.partition("```python\n# my_package.py")[2].partition("```")[0]
    (tmp_path / "my_package.py").write_text(f"# my_package.py{code}")
    monkeypatch.syspath_prepend(str(tmp_path))
    optimizer = {"kind": "adam", "learning_rate": 0.01}
    model = {"factory": "my_package:make"}
    pipeline = learned(configuration(tmp_path, stream(tmp_path), model=model, learning={"optimizer": optimizer}))
    assert losses(pipeline)[-150:].mean() < 0.5 * losses(pipeline)[:150].mean()


def test_forecast_several_steps_ahead_of_two_machines(tmp_path: Path) -> None:
    """`task: {kind: forecast, horizon: 3}`: each prediction names its readings by how far ahead they are."""
    rows = []
    for i in range(400):
        for machine in ("m1", "m2"):
            level = np.sin(i / 5) + (machine == "m2") * 10
            rows.append({"t": 60.0 * i, "k": machine, "a": level, "b": -level})
    path = tmp_path / "waves.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    predictions = tmp_path / "predictions.jsonl"
    text = configuration(
        tmp_path,
        path,
        features=["a", "b"],
        target=None,
        decode={"kind": "json", "time": "t", "time_numbers": "any", "key": "k"},
        task={"kind": "forecast", "window": 8, "horizon": 3},
        model={"kind": "tcn", "filters": 8},
        learning={"optimizer": {"kind": "adam", "learning_rate": 0.005}},
        predictions={"path": str(predictions)},
    )
    pipeline = learned(text)
    assert pipeline.progress.samples == 2 * (400 - 8 - 3 + 1)
    last = json.loads(predictions.read_text().splitlines()[-1])
    assert list(last["prediction"]) == ["a+1", "b+1", "a+2", "b+2", "a+3", "b+3"]
    assert last["truth"]["a+3"] == pytest.approx(rows[-1]["a"], abs=1e-5)
    assert losses(pipeline)[-100:].mean() < 0.2


def test_a_binary_model_with_one_sigmoid_goes_on(tmp_path: Path) -> None:
    """Two classes, one output: it is exported as two probabilities; predictions go by their labels."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="answer")(inputs))
    model.save(tmp_path / "binary.keras")
    predictions = tmp_path / "predictions.jsonl"
    text = configuration(
        tmp_path,
        stream(tmp_path, classes=2),
        target="kind",
        task={"kind": "classification", "classes": ["kind-0", "kind-1"]},
        model={"load": str(tmp_path / "binary.keras")},
        learning={"optimizer": {"kind": "adam", "learning_rate": 0.05}},
        predictions={"path": str(predictions)},
    )
    pipeline = make_pipeline(loads(text))
    x = np.random.default_rng(1).normal(size=(20, 4)).astype("float32")
    answers = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["probabilities"]
    np.testing.assert_allclose(answers[:, 1:], model(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, rtol=1e-5)
    learned(text)
    lines = [json.loads(line) for line in predictions.read_text().splitlines()][-100:]
    assert np.mean([line["prediction"] == line["truth"] for line in lines]) > 0.9
    assert all(0.5 <= line["probability"] <= 1.0 for line in lines)


def test_samples_of_no_weight_teach_nothing(tmp_path: Path) -> None:
    """`learning: {sample_weight: field}`."""
    rows = [{"a": 1.0 * i, "b": 1.0, "c": 0.0, "d": 0.0, "wear": 5.0 * i, "trust": 0.0} for i in range(50)]
    path = tmp_path / "readings.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = {"kind": "mlp", "hidden": [4]}
    text = configuration(tmp_path, path, model=model, learning={"sample_weight": "trust", "compile": False})
    start = {name: v.numpy() for name, v in make_pipeline(loads(text)).saving.checkpoints._live.items()}
    learned(text)
    arrays, _ = read_arrays(tmp_path / "data" / "checkpoints")
    for name in ("model/dense_0/kernel", "model/output/kernel"):
        np.testing.assert_array_equal(arrays[name], start[name])
    assert int(arrays["learned"]) == 50


def test_a_loaded_recurrent_model_runs_on_an_edge_device(tmp_path: Path) -> None:
    """Its loop over time is written out for TensorFlow Lite."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 4))
    hidden = keras.layers.LSTM(5, name="memory")(inputs)
    keras.Model(inputs, keras.layers.Dense(1, name="answer")(hidden)).save(tmp_path / "memory.keras")
    config = tmp_path / "config.yaml"
    config.write_text(
        configuration(
            tmp_path,
            stream(tmp_path, count=60),
            model={"load": str(tmp_path / "memory.keras")},
            task={"kind": "regression", "window": 6},
            learning={"compile": False},
            export={"formats": ["saved_model", "tflite"]},
        )
    )
    with Daemon(config) as daemon:
        daemon.finish()
        assert daemon.events("export_published"), daemon.log()
