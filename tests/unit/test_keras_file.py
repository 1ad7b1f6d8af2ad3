"""A ``.keras`` export is an ordinary Keras model: it needs nothing of ours, and goes on with its optimizer."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from learnd.core.errors import FormatUnavailableError
from learnd.export.formats.keras_file import Hdf5Format, KerasFormat, optimizer_pairs
from learnd.learners.settings import OPTIMIZERS
from tests.support.exports import NO_EXPORT, candidate_of, in_plain_python, learned, rows

pytestmark = pytest.mark.usefixtures("shared_traces")

GOES_ON = """
del sys.modules["keras"]
import json
import keras
import numpy as np

path, data = sys.argv[1:]
arrays = np.load(data)
model = keras.models.load_model(path)
before = {"prediction": np.asarray(model(arrays["x"])["prediction"]).tolist()}
steps = int(model.optimizer.iterations)
losses = [float(model.train_on_batch(arrays["x"], {"prediction": arrays["y"]})) for _ in range(100)]
print(json.dumps({**before, "steps": steps, "losses": losses}))
"""
EXPORT = {"formats": ["saved_model", "keras", "hdf5"]}


def test_it_goes_on_learning_where_there_is_keras_and_no_learnd(tmp_path: Path) -> None:
    """It answers alike, knows its optimizer's steps, and learns something new."""
    pipeline = learned(tmp_path, export=EXPORT, learning={"optimizer": {"kind": "adam", "learning_rate": 0.01}})
    x, y = rows(32)
    np.savez(tmp_path / "data.npz", x=x, y=y + 30.0)
    folder = tmp_path / "exports" / "latest"
    said = json.loads(in_plain_python(GOES_ON, folder / "model.keras", tmp_path / "data.npz"))
    wanted = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"]
    np.testing.assert_allclose(said["prediction"], wanted, rtol=1e-4)
    assert said["steps"] == pipeline.progress.updates
    assert said["losses"][-1] < said["losses"][0] / 4


KINDS: dict[str, dict[str, Any]] = {
    "mlp": {"model": {"kind": "mlp", "hidden": [8]}, "task": {"kind": "regression"}},
    "lstm": {"model": {"kind": "lstm", "units": 4}, "task": {"kind": "regression", "window": 7}},
    "gru": {"model": {"kind": "gru", "units": 4}, "task": {"kind": "regression", "window": 7}},
    "conv1d": {"model": {"kind": "conv1d"}, "task": {"kind": "regression", "window": 7}},
    "tcn": {"model": {"kind": "tcn"}, "task": {"kind": "regression", "window": 9}},
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in ("mlp", "tcn") else pytest.mark.slow) for kind in KINDS]
)
def test_every_built_in_model_is_made_of_keras_own_layers(kind: str, tmp_path: Path) -> None:
    """One step of Keras' own training from the file leaves the weights that the daemon's update leaves."""
    learning = {"mode": "micro_batch", "batch_size": 4, "optimizer": {"kind": "adam", "learning_rate": 0.01}}
    pipeline = learned(tmp_path, learning=learning, export=NO_EXPORT, **KINDS[kind])
    x, y = rows(4, window=KINDS[kind]["task"].get("window"))
    candidate = candidate_of(pipeline, x, unroll=False)
    KerasFormat().write(candidate, tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    homes = {type(layer).__module__.partition(".")[0] for layer in model._flatten_layers()}
    assert homes == {"keras"}
    model.train_on_batch(x, {"prediction": y})
    candidate.learn(x, y, observe=False)
    for ours, theirs in zip(candidate.network.trainable_variables, model.trainable_variables, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-5, err_msg=ours.path)


@pytest.mark.parametrize("kind", ["adam", "adafactor"])
def test_layers_that_are_frozen_for_a_while_are_frozen_in_the_file(kind: str, tmp_path: Path) -> None:
    """The optimizer has slots for all of them already; those of what learns now come along."""
    optimizer = {"kind": kind, "learning_rate": 0.01}
    model = {"kind": "mlp", "hidden": [8, 8], "freeze": {"all_but_last": 1, "until_samples": 10_000}}
    pipeline = learned(tmp_path, learning={"optimizer": optimizer}, model=model, export=NO_EXPORT)
    x, y = rows(1)
    candidate = candidate_of(pipeline, x, unroll=False)
    for write in (KerasFormat(), Hdf5Format()):
        write.write(candidate, tmp_path / write.file_name)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_variables) == 2 < len(loaded.variables)
    assert int(loaded.optimizer.iterations) == 300
    loaded.train_on_batch(x, {"prediction": y})
    candidate.learn(x, y, observe=False)
    for ours, theirs in zip(candidate.network.trainable_variables, loaded.trainable_variables, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-5, err_msg=ours.path)


class ByName(keras.optimizers.SGD):
    """A user's own, that keeps its slots in no list."""

    def build(self, variables: Any) -> None:
        super().build(variables)
        self.slots = {v.path: self.add_variable_from_reference(v, name="slot") for v in variables}


@pytest.mark.parametrize("kind", [*OPTIMIZERS, ByName])
def test_slots_go_to_whom_they_belong_or_leave_the_format_out(kind: Any) -> None:
    """Of every optimizer of Keras', where only the last of three variables learns."""
    make = getattr(keras.optimizers, kind) if isinstance(kind, str) else kind
    variables = [keras.Variable(np.ones((3, 4), np.float32), name=f"v{i}") for i in range(3)]
    old, new = make(), make()
    old.build(variables)
    new.build(variables[2:])
    if kind is ByName:
        with pytest.raises(FormatUnavailableError, match=r"ByName does not list its slots.*freeze\.until_samples"):
            optimizer_pairs(new, old, variables[2:])
        return
    pairs = optimizer_pairs(new, old, variables[2:])
    assert {id(mine) for mine, _ in pairs} == {id(variable) for variable in new.variables}
    assert {theirs.name.partition("_")[0] for _, theirs in pairs} & {"v0", "v1"} == set()
    assert all(mine.name == theirs.name for mine, theirs in pairs if mine.name.startswith("v2"))


def test_an_autoencoder_goes_on_learning_from_the_file(tmp_path: Path) -> None:
    """Its score is an output without a loss; `fit` takes the reconstruction alone."""
    sections: dict[str, Any] = {"model": {"kind": "autoencoder"}, "task": {"kind": "reconstruction"}, "target": None}
    pipeline = learned(tmp_path, export=NO_EXPORT, **sections)
    x, _ = rows(64)
    KerasFormat().write(candidate_of(pipeline, x, unroll=False), tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    losses = model.fit(x + 10.0, {"reconstruction": x + 10.0}, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_weights_in_hdf5_fit_the_keras_file(tmp_path: Path) -> None:
    """They are the weights of the same model; alone they answer nothing, and say so."""
    learned(tmp_path, export=EXPORT)
    folder = tmp_path / "exports" / "latest"
    model = keras.models.load_model(folder / "model.keras")
    x, _ = rows(5)
    before = np.asarray(model(x)["prediction"])
    model.set_weights([weight * 0.0 for weight in model.get_weights()])
    model.load_weights(folder / "model.weights.h5")
    assert np.array_equal(before, model(x)["prediction"])
    with pytest.raises(Exception, match=r"only weights.*model\.keras"):
        Hdf5Format().reader(folder / "model.weights.h5")


def test_learnd_goes_on_with_its_own_keras_file(tmp_path: Path) -> None:
    """It answers what the export answered, and learns."""
    first = learned(tmp_path / "first", export=EXPORT)
    source = tmp_path / "first" / "exports" / "latest" / "model.keras"
    second = learned(tmp_path / "second", model={"load": str(source)}, records=1)
    x, _ = rows(20)
    wanted = first.model.averaged.predict(x, first.model.averaged.weights())["prediction"]
    answer = second.model.averaged.predict(x, second.model.averaged.weights())["prediction"]
    np.testing.assert_allclose(answer, wanted, atol=0.02 * wanted.std())


UNREGISTERED = """
import keras

class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

def make(input_shape, outputs):
    return keras.Sequential([keras.Input(input_shape), Doubled(), keras.layers.Dense(outputs)])
"""


def test_a_layer_that_keras_would_not_find_is_named_and_the_rest_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the way out."""
    (tmp_path / "unregistered.py").write_text(UNREGISTERED)
    monkeypatch.syspath_prepend(tmp_path)
    learned(tmp_path, model={"factory": "unregistered:make"}, export={"formats": ["saved_model", "keras"]})
    document = json.loads((tmp_path / "exports" / "latest" / "learnd.json").read_text())
    assert list(document["formats"]) == ["saved_model"]
    assert "no class Doubled" in document["unavailable"]["keras"]
    assert "register_keras_serializable" in document["unavailable"]["keras"]


def test_a_core_that_keras_cannot_build_again_is_named(tmp_path: Path) -> None:
    """A SavedModel is a graph, no architecture."""
    source = tmp_path / "plain"
    inputs = keras.Input((3,))
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).export(source, verbose=False)
    pipeline = learned(tmp_path / "second", model={"load": str(source)}, export=NO_EXPORT)
    with pytest.raises(FormatUnavailableError, match="Keras cannot rebuild the layer"):
        KerasFormat().write(candidate_of(pipeline, rows(5)[0], unroll=False), tmp_path / "model.keras")
