"""Models trained elsewhere: every format opens to what its library computed, and what is wrong is refused in words."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from learnd.core.errors import ConfigError
from learnd.models.stored.activation import output_activation
from learnd.models.stored.architecture import model_of_json_file
from learnd.models.stored.features import features_of
from learnd.models.stored.graph_layer import graph_layer_of
from learnd.models.stored.model import StoredModel
from learnd.models.stored.open import open_stored
from learnd.models.stored.serialized import from_bytes, to_bytes
from learnd.models.stored.slots import assign_slots, slots_of, unique_paths

ROOT = Path(__file__).resolve().parents[2]
OLD = ("plain", "windowed", "nested")
OLD_WITH_SLOTS = (".keras", ".h5")
OLD_WEIGHTS = (".weights.h5", "_old_weights.h5")
OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.01),
    "SGD with momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "Adam amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "AdamW": lambda: keras.optimizers.AdamW(0.01),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.01),
    "Nadam": lambda: keras.optimizers.Nadam(0.01),
    "Adafactor": lambda: keras.optimizers.Adafactor(0.01),
    "Muon": lambda: keras.optimizers.Muon(0.01),
}


class Doubled(keras.Model):
    """A user's own class; what it computes is in its code and not in the file."""

    def __init__(self, units: int, **options: Any) -> None:
        super().__init__(**options)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh")
        self.answer = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return 2.0 * self.answer(self.hidden(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@pytest.fixture(scope="module")
def old(old_keras_files: Path) -> Path:
    """Files that the real Keras 2 wrote."""
    return old_keras_files


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """The same Keras 3 model in every format that Keras 3 and TensorFlow write."""
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("new")
    model = small()
    x = np.random.default_rng(1).normal(size=(32, 4)).astype("float32")
    trained(model, x)
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    model.save_weights(folder / "model.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    model.export(folder / "exported", verbose=False)
    tf.saved_model.save(model, str(folder / "saved"))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "both"))
    tf.train.CheckpointManager(tf.train.Checkpoint(model), str(folder / "managed"), max_to_keep=2).save()
    slots = slots_of(model.optimizer, model.trainable_variables)
    return SimpleNamespace(folder=folder, model=model, x=x, outputs=model(x).numpy(), slots=slots)


def small() -> Any:
    """Some of everything, but recurrent layers, which take seconds to compile."""
    layers = keras.layers
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    hidden = layers.Dropout(0.1)(layers.BatchNormalization()(hidden))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.LayerNormalization()(hidden)))


def trained(model: Any, x: Any, optimizer: Any = None) -> None:
    """A few steps."""
    y = np.random.default_rng(2).random((len(x), model.output_shape[-1])).astype("float32")
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss="mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0)


def opened(path: Path, build: Callable[[], Any] | None = None, **options: Any) -> StoredModel:
    """The file as the daemon opens it."""
    settings = SimpleNamespace(**{"load": path, "code": [], "allow_lambda": [], **options})
    return open_stored(settings, architecture=build)


def refusal(path: Path, build: Callable[[], Any] | None = None, **options: Any) -> str:
    """What the operator reads."""
    with pytest.raises(ConfigError) as caught:
        opened(path, build, **options)
    return str(caught.value)


def assert_learns(model: Any, x: Any) -> None:
    """A few steps lower the loss and move every trainable weight."""
    y = np.random.default_rng(4).random((len(x), model.output_shape[-1])).astype("float32")
    before = [weight.numpy() for weight in model.trainable_variables]
    optimizer = keras.optimizers.SGD(0.05)
    losses = []
    for _ in range(5):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x, training=False) - y))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    moved = [not np.array_equal(a, b.numpy()) for a, b in zip(before, model.trainable_variables, strict=True)]
    assert before and all(moved)


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("suffix", [*OLD_WITH_SLOTS, *OLD_WEIGHTS, "_saved_model"])
def test_a_file_of_keras_2_computes_what_keras_2_computed(old: Path, name: str, suffix: str) -> None:
    """Outputs, and for some of them a step of learning."""
    answers = np.load(old / f"{name}.npz")
    architecture = old / f"{name}.json" if suffix in OLD_WEIGHTS else None
    stored = opened(old / f"{name}{suffix}", architecture=architecture)
    np.testing.assert_allclose(stored.model(answers["inputs"]), answers["outputs"], rtol=1e-5, atol=1e-6)
    assert output_activation(stored.model, stored.model.input_shape[1:]) == ("softmax" if name == "plain" else "linear")
    assert_learns(stored.model, answers["inputs"])


@pytest.mark.parametrize("name", OLD)
@pytest.mark.parametrize("suffix", OLD_WITH_SLOTS)
def test_adams_moments_come_along_from_keras_2(old: Path, name: str, suffix: str) -> None:
    """Each to its own weight, and the count of steps."""
    answers = np.load(old / f"{name}.npz")
    stored = opened(old / f"{name}{suffix}")
    assert stored.optimizer is not None and stored.optimizer["class_name"] == "Adam"
    assert stored.loss == "mse" and stored.notes == ()
    assert stored.slots["iteration"] == answers["iteration"]
    for index, path in enumerate(unique_paths(stored.model.trainable_variables)):
        for slot in ("momentum", "velocity"):
            np.testing.assert_array_equal(stored.slots[f"{path}/{slot}"], answers[f"{slot}_{index}"])


@pytest.mark.parametrize("name", ["sgd", "rmsprop", "adagrad", "scheduled", "older"])
@pytest.mark.parametrize("suffix", OLD_WITH_SLOTS)
def test_an_optimizer_of_keras_2_goes_on_where_it_stopped(old: Path, name: str, suffix: str) -> None:
    """Keras 3 gets to where Keras 2 got; the archive holds nothing of an optimizer of before 2.11, and says so."""
    stored, answers = opened(old / f"{name}{suffix}"), np.load(old / f"{name}.npz")
    if (name, suffix) == ("older", ".keras"):
        assert stored.slots == {} and "afresh" in stored.notes[0]
        return
    model, x = stored.model, answers["inputs"]
    optimizer = keras.optimizers.deserialize(dict(stored.optimizer or {}))
    optimizer.build(model.trainable_variables)
    assert assign_slots(optimizer, model.trainable_variables, stored.slots) == []
    for start in range(0, len(x), 8):
        rows = x[start : start + 8]
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(rows) - rows[:, :2]))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    np.testing.assert_allclose(model(x), answers["outputs"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5", "exported", "saved", "both"])
def test_a_file_of_keras_3_computes_what_it_computed(new: SimpleNamespace, name: str) -> None:
    """Every format; some want the architecture beside them."""
    stored = opened(new.folder / name, small)
    np.testing.assert_allclose(stored.model(new.x), new.outputs, rtol=1e-5, atol=1e-6)
    assert output_activation(stored.model, stored.model.input_shape[1:]) == "softmax"
    assert_learns(stored.model, new.x)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "both"])
def test_slots_come_along_from_keras_3(new: SimpleNamespace, name: str) -> None:
    """All of them, in the order of the weights; the paths may be numbered differently."""
    stored = opened(new.folder / name, small)
    optimizer = keras.optimizers.Adam()
    optimizer.build(stored.model.trainable_variables)
    assert assign_slots(optimizer, stored.model.trainable_variables, stored.slots) == []
    found = slots_of(optimizer, stored.model.trainable_variables)
    for ours, theirs in zip(found.values(), new.slots.values(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_managed_checkpoint_of_the_bare_model_opens(new: SimpleNamespace) -> None:
    """`CheckpointManager` numbers its files; the folder alone is refused with their names."""
    prefix = new.folder / "managed" / "ckpt-1"
    np.testing.assert_allclose(opened(prefix, small).model(new.x), new.outputs, rtol=1e-5, atol=1e-6)
    assert "ckpt-1" in refusal(new.folder / "managed", small)


def test_weights_with_a_keras_3_architecture_beside_them(new: SimpleNamespace) -> None:
    """`model.architecture` names what `to_json` wrote."""
    stored = opened(new.folder / "model.weights.h5", architecture=new.folder / "model.json")
    np.testing.assert_allclose(stored.model(new.x), new.outputs, rtol=1e-5, atol=1e-6)


def test_the_content_tells_the_format_and_not_the_name(new: SimpleNamespace, tmp_path: Path) -> None:
    """A file that was renamed opens all the same."""
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        (tmp_path / "renamed.bin").write_bytes((new.folder / name).read_bytes())
        np.testing.assert_allclose(opened(tmp_path / "renamed.bin", small).model(new.x), new.outputs, rtol=1e-5)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_slots_of_and_assign_slots_are_inverse(kind: str) -> None:
    """Also for optimizers whose variables Keras names oddly."""
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    model, other = small(), OPTIMIZERS[kind]()
    trained(model, x, OPTIMIZERS[kind]())
    variables = model.trainable_variables
    slots = slots_of(model.optimizer, variables)
    assert len(slots) == len(model.optimizer.variables) - 1
    other.build(variables)
    assert assign_slots(other, variables, slots) == []
    again = slots_of(other, variables)
    assert all(np.array_equal(again[name], slots[name]) for name in slots)
    name = next(iter(slots))
    assert assign_slots(other, variables, {k: v for k, v in slots.items() if k != name}) == [name]


def test_a_model_of_the_users_class_comes_with_its_slots(tmp_path: Path) -> None:
    """Named by `model.code`; without it, the error says so."""
    x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    model = Doubled(5)
    model.build((None, 4))
    model(x)
    model.compile(keras.optimizers.Adam(0.01), loss="mse")
    model.fit(x, x[:, :1], verbose=0)
    model.save(tmp_path / "own.keras")
    stored = opened(tmp_path / "own.keras", code=[f"{__name__}:Doubled"])
    np.testing.assert_allclose(stored.model(x), model(x), rtol=1e-6)
    assert len(stored.slots) == 9 and stored.notes == ()
    message = refusal(tmp_path / "own.keras")
    assert message.startswith("model.code") and "Doubled" in message
    assert_learns(stored.model, x)


@pytest.mark.parametrize("optimizer", [None, "SGD with momentum"])
def test_bytes_give_the_model_and_its_optimizer_back(new: SimpleNamespace, optimizer: str | None) -> None:
    """In memory, and as a file."""
    given = OPTIMIZERS[optimizer]() if optimizer else None
    if given is not None:
        given.build(new.model.trainable_variables)
        given.momentums[0].assign(tf.ones(given.momentums[0].shape))
    data = to_bytes(new.model, given)
    path = new.folder / "bytes"
    path.write_bytes(data)
    for stored in (from_bytes(data), opened(path)):
        np.testing.assert_allclose(stored.model(new.x), new.outputs, rtol=1e-5, atol=1e-6)
        assert stored.optimizer is not None and stored.optimizer["class_name"] == ("SGD" if given else "Adam")
        first = f"{unique_paths(stored.model.trainable_variables)[0]}/momentum"
        expected = np.ones((4, 6)) if given else next(v for k, v in new.slots.items() if k.endswith("/momentum"))
        np.testing.assert_array_equal(stored.slots[first], expected)


def in_tensorflow_lite(model: Any, x: Any, folder: Path) -> Any:
    """The first row's answer, by way of a SavedModel of raw variables, as the exporter writes it."""
    module, spec = tf.Module(), tf.TensorSpec((1, *x.shape[1:]), tf.float32, name="inputs")
    module.weights = [weight.value for weight in model.weights]
    module.serve = tf.function(lambda inputs: {"y": model(inputs)}, autograph=False, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "raw"), signatures={"serving_default": module.serve})
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder / "raw"), signature_keys=["serving_default"])
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    return interpreter.get_signature_runner("serving_default")(inputs=x[:1])["y"]


def test_a_stored_graph_is_saved_and_read_as_any_model_is(new: SimpleNamespace, tmp_path: Path) -> None:
    """By Keras, by TensorFlow, and as TensorFlow Lite; nothing of the graph's constants stays."""
    model = opened(new.folder / "exported").model
    for weight in model.trainable_variables:
        weight.assign(weight * 0.5)
    expected = model(new.x).numpy()
    np.testing.assert_allclose(from_bytes(to_bytes(model)).model(new.x), expected, rtol=1e-6)
    tf.saved_model.save(model, str(tmp_path / "again"))
    np.testing.assert_allclose(opened(tmp_path / "again").model(new.x), expected, rtol=1e-5)
    found = in_tensorflow_lite(model, new.x, tmp_path)
    np.testing.assert_allclose(found, model(new.x[:1]), rtol=1e-4, atol=1e-6)
    constants = [n for n in graph_layer_of(model).definition.node if n.op == "Const" and n.ByteSize() > 200]
    assert constants == []


def test_other_weights_stand_in_for_a_stored_graphs_own(new: SimpleNamespace) -> None:
    """`StatelessScope` replaces them, as the averaged weights do; the layer's own stay."""
    model = opened(new.folder / "saved").model
    zeros = [(weight, tf.zeros_like(weight.value)) for weight in model.trainable_variables]
    with keras.StatelessScope(state_mapping=zeros):
        replaced = model(new.x)
    np.testing.assert_allclose(replaced, np.full((32, 3), 1 / 3), rtol=1e-5)
    np.testing.assert_allclose(model(new.x), new.outputs, rtol=1e-5, atol=1e-6)


def test_a_stored_graphs_input_has_a_gradient(new: SimpleNamespace) -> None:
    """The same as that of the layers that it was made of."""
    model = opened(new.folder / "saved").model
    gradients = []
    for candidate in (model, new.model):
        x = tf.constant(new.x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(candidate(x)[:, 0])
        gradients.append(tape.gradient(total, x))
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def learned_in_xla(model: Any, x: Any, y: Any) -> list[float]:
    """Losses of one update per row, in one compiled loop: the recipe of `learnd.learners.chunk`."""
    optimizer = keras.optimizers.SGD(0.05)
    optimizer.build(model.trainable_variables)

    def step(i: Any, losses: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(tf.gather(x, i)[None]) - tf.gather(y, i)[None]))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return i + 1, losses + loss

    @tf.function(jit_compile=True, autograph=False)
    def epoch() -> Any:
        return tf.while_loop(lambda i, _: i < len(x), step, (tf.constant(0), tf.constant(0.0)))[1]

    return [float(epoch()) for _ in range(3)]


@pytest.mark.parametrize("name", ["plain", "windowed"])
def test_a_stored_graph_learns_in_the_compiled_loop(old: Path, name: str) -> None:
    """Loops over time included: XLA wants a bound for those, which the file does not have."""
    answers = np.load(old / f"{name}.npz")
    stored = opened(old / f"{name}_saved_model")
    y = np.random.default_rng(0).random(answers["outputs"].shape).astype("float32")
    losses = learned_in_xla(stored.model, answers["inputs"], y)
    assert losses[2] < losses[1] < losses[0]
    assert len(stored.notes) == 2


def test_features_end_before_the_last_dense_layer(new: SimpleNamespace) -> None:
    """With the weights that they need, and no other; a new head learns on them."""
    stored = opened(new.folder / "saved")
    features = features_of(stored, None)
    assert features.output_shape == (None, 6)
    assert len(features.weights) == len(stored.model.weights) - 2
    inside = keras.Model(new.model.inputs, new.model.layers[-1].input)
    np.testing.assert_allclose(features(new.x), inside(new.x), rtol=1e-4, atol=1e-6)
    assert_learns(keras.Sequential([keras.Input((4,)), features, keras.layers.Dense(1)]), new.x)


def test_features_end_where_they_are_told(new: SimpleNamespace) -> None:
    """By the end of an operation's name; an unknown one is refused with those that there are."""
    stored = opened(new.folder / "saved")
    relu = keras.Model(new.model.inputs, new.model.layers[1].output)
    named = features_of(stored.model, "Relu")
    np.testing.assert_allclose(named(new.x), relu(new.x), rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match=r"model.head.at: .*'nowhere'.*MatMul"):
        features_of(stored, "nowhere")


class Module(tf.Module):
    """No Keras at all."""

    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.ones((4, 2)), name="w")
        self.scale = tf.constant([2.0, 3.0])
        self.counter = tf.Variable(1.0, trainable=False, name="w")

    def both(self, x: Any, y: Any) -> Any:
        return {"sum": x + y}

    def two(self, x: Any) -> Any:
        return {"a": tf.matmul(x, self.w) * self.scale * self.counter, "b": tf.sigmoid(tf.matmul(x, self.w))}

    def whole(self, x: Any) -> Any:
        return {"a": tf.cast(x, tf.float32)[:, None]}


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel with several signatures."""
    folder = tmp_path_factory.mktemp("module")
    module, spec = Module(), tf.TensorSpec((None, 4), tf.float32)
    signatures = {
        "two": tf.function(module.two).get_concrete_function(x=spec),
        "both": tf.function(module.both).get_concrete_function(x=spec, y=spec),
        "whole": tf.function(module.whole).get_concrete_function(x=tf.TensorSpec((None,), tf.int32)),
        "one_row": tf.function(module.two).get_concrete_function(x=tf.TensorSpec((1, 4), tf.float32)),
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


def test_a_bare_module_learns(module: Path) -> None:
    """The chosen output of the chosen signature; a variable that was not trainable stays so."""
    stored = opened(module, signature="two", output="a")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(stored.model(x), [[8.0, 12.0]] * 2)
    assert len(stored.model.trainable_variables) == 1 and len(stored.model.weights) == 2
    assert output_activation(opened(module, signature="two", output="b").model, (4,)) == "sigmoid"
    assert_learns(stored.model, x)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"signature": "serving_default"}, ("model.signature", "both, one_row, two, whole")),
        ({"signature": "two"}, ("model.output", "a, b")),
        ({"signature": "two", "output": "c"}, ("model.output", "'c'", "a, b")),
        ({"signature": "both"}, ("2 inputs", "x, y")),
        ({"signature": "whole"}, ("int32", "float32")),
        ({"signature": "one_row", "output": "a"}, ("(1, 4)", "any number of rows")),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(
    module: Path, options: dict[str, str], words: tuple[str, ...]
) -> None:
    """With what there is."""
    message = refusal(module, **options)
    assert all(word in message for word in words), message


def test_weights_without_an_architecture_are_refused(new: SimpleNamespace) -> None:
    """With the three ways to give one."""
    for name in ("model.weights.h5", "both"):
        message = refusal(new.folder / name)
        assert all(word in message for word in ("model.architecture", "kind", "factory")), message


@pytest.mark.parametrize("name", ["model.weights.h5", "both"])
def test_weights_of_another_shape_are_refused(new: SimpleNamespace, name: str) -> None:
    """Naming the weight and both shapes."""

    def wider() -> Any:
        inputs = keras.Input((4,))
        return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(7)(inputs)))

    message = refusal(new.folder / name, wider)
    assert "(4, 6)" in message and "(4, 7)" in message and "absent" in message


def test_old_weights_of_another_shape_are_refused(old: Path, tmp_path: Path) -> None:
    """By layer, naming the weight and both shapes; a layer too many likewise."""

    def wider(*widths: int) -> Any:
        layers = [keras.layers.Dense(width) for width in widths]
        return keras.Sequential([keras.Input((4,)), *layers])

    message = refusal(old / "nested_old_weights.h5", lambda: wider(6, 5, 9))
    assert "answer/kernel:0 (5, 2)" in message and "(5, 9)" in message
    assert "encoder, middle, answer" in refusal(old / "nested_old_weights.h5", lambda: wider(6, 5))


def test_a_pickle_is_refused_by_its_content_and_by_its_name(tmp_path: Path, new: SimpleNamespace) -> None:
    """It is never read."""
    (tmp_path / "model.keras").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "model.pkl").write_bytes((new.folder / "model.keras").read_bytes())
    for name in ("model.keras", "model.pkl"):
        assert "pickle" in refusal(tmp_path / name)


def with_lambda() -> Any:
    """A Lambda layer inside a model inside a model."""
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: 2.0 * x, (4,), name="twice")])
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(1)(inner(inputs)))


def test_a_lambda_layer_is_refused_unless_it_is_named(tmp_path: Path) -> None:
    """At any depth; naming another one does not help."""
    model = with_lambda()
    path = tmp_path / "lambda.keras"
    model.save(path)
    for allowed in ([], ["other"]):
        message = refusal(path, allow_lambda=allowed)
        assert message.startswith("model.allow_lambda") and "twice" in message
    x = np.ones((2, 4), np.float32)
    np.testing.assert_allclose(opened(path, allow_lambda=["twice"]).model(x), model(x), rtol=1e-6)
    with pytest.raises(ConfigError, match="twice"):
        from_bytes(path.read_bytes())
    model.save(tmp_path / "lambda.h5")
    assert "twice" in refusal(tmp_path / "lambda.h5")


def test_an_archive_that_leaves_its_folder_is_refused(new: SimpleNamespace, tmp_path: Path) -> None:
    """Absolute or with two dots."""
    for index, member in enumerate(("../evil", "/etc/evil", "assets/../../evil")):
        path = tmp_path / f"{index}.keras"
        path.write_bytes((new.folder / "model.keras").read_bytes())
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(member, b"")
        assert "outside the archive" in refusal(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5", "exported", "both"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_refused(new: SimpleNamespace, tmp_path: Path, name: str, share: float) -> None:
    """As damaged or empty, and by its name."""
    source, target = new.folder / name, tmp_path / name
    if name == "exported":
        target.mkdir()
        source, target = source / "saved_model.pb", target / "saved_model.pb"
    if name == "both":
        source, target = new.folder / "both.index", tmp_path / "both.index"
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    assert name in refusal(tmp_path / name, small)


def test_what_is_no_model_is_refused(tmp_path: Path, new: SimpleNamespace) -> None:
    """Each with its own words."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("a")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = [1, 2]
    (tmp_path / "a.json").write_text(json.dumps([1]))
    assert "does not exist" in refusal(tmp_path / "nothing")
    assert "empty folder" in refusal(tmp_path / "empty")
    assert "saved_model.pb" in refusal(tmp_path / "full")
    assert "config.json" in refusal(tmp_path / "a.zip")
    assert "not one that Keras wrote" in refusal(tmp_path / "a.h5")
    assert "none of the formats" in refusal(tmp_path / "a.json")
    weights = new.folder / "model.weights.h5"
    assert refusal(weights, architecture=tmp_path / "a.json").startswith("model.architecture")
    assert refusal(weights, architecture=tmp_path / "b.json").startswith("model.architecture")
    assert refusal(new.folder / "model.keras", code=["no_such_module"]).startswith("model.code")


def test_a_model_of_several_inputs_or_outputs_is_refused(tmp_path: Path) -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    dense = keras.layers.Dense(2)
    models = {
        "2 inputs": keras.Model([a, b], dense(a + b)),
        "2 outputs": keras.Model(a, [dense(a), dense(2.0 * a)]),
    }
    for words, model in models.items():
        model.save(tmp_path / "model.keras")
        assert words in refusal(tmp_path / "model.keras")


def test_an_architecture_of_keras_2_is_built_layer_by_layer(old: Path) -> None:
    """What does not learn stays so, in a nested model too."""
    model = model_of_json_file(old / "nested.json", [], [])
    assert [v.name for v in model.trainable_variables] == ["kernel", "bias"] * 2
    assert len(model.weights) == 6
