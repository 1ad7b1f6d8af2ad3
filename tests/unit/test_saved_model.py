"""A SavedModel serves, learns, saves and restores with TensorFlow alone, and learns as the daemon does."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.support.exports import in_plain_python, learned, rows
from tests.support.helpers import make_samples

pytestmark = pytest.mark.usefixtures("shared_traces")


def relative(y: Any, z: Any) -> Any:
    """A user's loss, which has no value where the target is 0."""
    return tf.reduce_mean(tf.square((z - y) / y), axis=-1)


LEARNS = """
import json
import numpy as np
import tensorflow as tf

folder, state, data = sys.argv[1:]
arrays = np.load(data)
x, y = tf.constant(arrays["x"]), tf.constant(arrays["y"])

def load():
    loaded = tf.saved_model.load(folder)
    return loaded, loaded.signatures

def weights(signatures):
    return {name: tensor.numpy().tobytes().hex() for name, tensor in signatures["weights"]().items()}

kept, model = load()
columns = {name: x[:, i] for i, name in enumerate("abc")}
by_rows, by_name = model["serving_default"](inputs=x), model["records"](**columns)
assert np.array_equal(by_rows["prediction"], by_name["prediction"])
losses = [float(model["learn"](x=x, y=y)["loss"]) for _ in range(100)]
assert model["save"](path=tf.constant(state))["path"].numpy().decode() == state
for _ in range(10):
    model["learn"](x=x, y=y)
straight = weights(model)
model["restore"](path=tf.constant(state))
for _ in range(10):
    model["learn"](x=x, y=y)
again = weights(model)
other_kept, other = load()
other["restore"](path=tf.constant(state))
for _ in range(10):
    other["learn"](x=x, y=y)
print(json.dumps({
    "losses": losses,
    "restored": again == straight,
    "restored_elsewhere": weights(other) == straight,
    "moved": weights(load()[1]) != straight,
    "names": tf.train.load_checkpoint(state).get_variable_to_shape_map().keys().__len__() == len(straight),
    "prediction": np.asarray(by_rows["prediction"]).tolist(),
}))
"""


def test_a_loss_that_has_no_value_at_zero_is_no_reason_to_fail(tmp_path: Path) -> None:
    """An export is tried with targets that the model would give itself."""
    learned(tmp_path, learning={"loss": f"{__name__}:relative"}, scaling={"target": "none"})


def test_it_learns_saves_and_restores_in_a_program_without_keras(tmp_path: Path) -> None:
    """100 steps lower the loss; restored here or elsewhere and continued, every variable is equal to the last bit."""
    pipeline = learned(tmp_path, learning={"optimizer": {"kind": "adam", "learning_rate": 0.01}})
    x, y = rows(32)
    y += 30.0  # something new to learn
    np.savez(tmp_path / "data.npz", x=x, y=y)
    folder = tmp_path / "exports" / "latest" / "saved_model"
    said = json.loads(in_plain_python(LEARNS, folder, tmp_path / "state", tmp_path / "data.npz"))
    assert said["losses"][-1] < said["losses"][0] / 10
    assert (said["restored"], said["restored_elsewhere"], said["moved"], said["names"]) == (True, True, True, True)
    wanted = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"]
    np.testing.assert_allclose(said["prediction"], wanted, rtol=1e-5)


KINDS: dict[str, dict[str, Any]] = {
    "adam": {},
    "momentum and passes": {
        "learning": {"optimizer": {"kind": "sgd", "learning_rate": 0.01, "momentum": 0.9}, "passes": 2}
    },
    "dropout": {"model": {"kind": "mlp", "hidden": [8], "dropout": 0.2}},
    "window": {"model": {"kind": "gru", "units": 4}, "task": {"kind": "regression", "window": 6}},
    "no target": {"model": {"kind": "autoencoder"}, "task": {"kind": "reconstruction"}, "target": None},
    "rates": {"learning": {"layer_rates": {"dense_0": 0.1}, "optimizer": {"kind": "adamw", "weight_decay": 0.1}}},
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_goes_on_as_the_daemon_does(kind: str, tmp_path: Path) -> None:
    """Slots, moments, seeds and counts are all inside: twenty further samples leave the same variables in both."""
    pipeline = learned(tmp_path, averaging={"kind": "none"}, **KINDS[kind])
    window = 6 if kind == "window" else None
    x, y = rows(20, window=window)
    if kind == "no target":
        y = y[:, :0]
    loaded = tf.saved_model.load(str(tmp_path / "exports" / "latest" / "saved_model"))
    learn = loaded.signatures["learn"]
    losses = [float(learn(x=a[None], **({"y": b[None]} if len(b) else {}))["loss"]) for a, b in zip(x, y, strict=True)]
    result = pipeline.model.learner.learn(make_samples(x, y))
    np.testing.assert_allclose(losses, result.losses, rtol=2e-4, atol=1e-6)
    theirs = loaded.signatures["weights"]()
    ours = pipeline.saving.checkpoints._live
    assert len(theirs) >= 10
    for name, tensor in theirs.items():
        np.testing.assert_allclose(tensor, ours[name].numpy(), rtol=2e-4, atol=1e-6, err_msg=name)


def test_a_class_that_the_export_does_not_know_is_refused(tmp_path: Path) -> None:
    """Its outputs have a fixed shape; only the daemon finds room for a new class, and then exports anew."""
    random = np.random.default_rng(0)
    script = [
        json.dumps({"a": i % 2 + a, "b": 0.0, "c": 1.0, "y": "xy"[i % 2], "k": "m", "t": i}).encode()
        for i, a in enumerate(random.normal(size=200))
    ]
    learned(tmp_path, script=script, task={"kind": "classification", "classes": "dynamic", "max_classes": 4})
    loaded = tf.saved_model.load(str(tmp_path / "exports" / "latest" / "saved_model"))
    serve, learn = loaded.signatures["serving_default"], loaded.signatures["learn"]
    x = tf.constant([[1.0, 0.0, 1.0]])
    before = serve(inputs=x)["probabilities"]
    assert before.shape == (1, 2)
    for unknown in (2.0, -1.0, 0.5):
        with pytest.raises(tf.errors.InvalidArgumentError, match="it has 2 classes"):
            learn(x=x, y=tf.constant([[unknown]]))
    assert np.array_equal(serve(inputs=x)["probabilities"], before)
    learn(x=x, y=tf.constant([[1.0]]))
    assert float(serve(inputs=x)["probabilities"][0, 1]) > float(before[0, 1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SavedModel of a small regression, for tests that only load it."""
    data_dir = tmp_path_factory.mktemp("exported")
    learned(data_dir)
    return data_dir / "exports" / "latest" / "saved_model"


@pytest.mark.parametrize("harm", ["a row of x is nan", "x is infinite", "y is nan", "no rows"])
def test_what_would_spoil_the_model_for_good_is_refused(harm: str, exported: Path) -> None:
    """The decoders keep such numbers from the daemon; a caller of the signature has none. Not one variable changes."""
    signatures = (loaded := tf.saved_model.load(str(exported))).signatures
    x, y = rows(3)
    if harm == "no rows":
        x, y = x[:0], y[:0]
    else:
        if harm.startswith("a row"):
            x[1] = np.nan
        else:
            (x if harm.startswith("x") else y)[1, 0] = np.nan if harm.endswith("nan") else np.inf
    before = {name: tensor.numpy().tobytes() for name, tensor in signatures["weights"]().items()}
    with pytest.raises(tf.errors.InvalidArgumentError, match="no row" if harm == "no rows" else "not finite"):
        signatures["learn"](x=x, y=y)
    assert {name: tensor.numpy().tobytes() for name, tensor in signatures["weights"]().items()} == before
    assert loaded is not None


def test_a_missing_reading_is_learned_as_the_mean(exported: Path) -> None:
    """As in the daemon: the answer is that for the mean, and the missing reading does not enter the scale."""
    x, y = rows(8)
    scales = json.loads((exported.parent / "learnd.json").read_text())["scaling"]["inputs"]
    losses, centres = [], []
    for value in (scales["mean"][1], np.nan):
        signatures = (loaded := tf.saved_model.load(str(exported))).signatures
        x[:, 1] = value
        losses.append(float(signatures["learn"](x=x, y=y)["loss"]))
        centres.append(signatures["weights"]()["model/inputs/shift"].numpy()[1])
        assert loaded is not None
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert centres[1] == np.float32(scales["mean"][1])


def test_features_of_any_name_have_an_input(tmp_path: Path) -> None:
    """A signature's inputs must be plain words; which feature each stands for is in the manifest."""
    names = ["temp °C", "temp_.C", "1st", "temp_.c"]  # TensorFlow's own arguments tell no case
    script = [json.dumps({**dict.fromkeys(names, float(i)), "y": i, "k": "m", "t": i}).encode() for i in range(50)]
    learned(tmp_path, script=script, features=names)
    folder = tmp_path / "exports" / "latest"
    records = tf.saved_model.load(str(folder / "saved_model")).signatures["records"]
    inputs = {entry["name"]: entry["input"] for entry in json.loads((folder / "learnd.json").read_text())["features"]}
    assert sorted(inputs) == sorted(names)
    assert len({name.lower() for name in inputs.values()}) == len(names)
    answer = records(**{name: tf.zeros((3,)) for name in inputs.values()})
    assert answer["prediction"].shape == (3, 1)
