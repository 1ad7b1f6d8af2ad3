"""Built-in models: their options appear as layers and penalties, and our own layers answer as Keras' do."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from pydantic import TypeAdapter

from learnd.models import MODELS
from learnd.models.core import CoreSpec
from learnd.models.layers import CausalConv
from learnd.models.rnn_cells import Gru, Lstm
from learnd.models.settings import AnyModel
from learnd.models.tcn import blocks_for, receptive_field

SPEC = CoreSpec((12, 3), 2, seed=5)
SMALL: dict[str, dict[str, Any]] = {
    "linear": {},
    "mlp": {"hidden": [6, 4]},
    "autoencoder": {"hidden": [6, 3]},
    "lstm": {"units": 4},
    "gru": {"units": 4},
    "conv1d": {"filters": [4, 5]},
    "tcn": {"filters": 4},
}
HIDDEN_LAYERS = {"mlp": 2, "autoencoder": 3, "lstm": 1, "gru": 1, "conv1d": 2, "tcn": 4}


def _make(kind: str, spec: CoreSpec = SPEC, **options: Any) -> Any:
    settings: Any = TypeAdapter(AnyModel).validate_python({"kind": kind, **SMALL[kind], **options})
    return MODELS[kind].load()(settings, spec)


def _kinds(model: Any) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def _rows(*shape: int) -> Any:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("linear", ["output"]),
        ("mlp", ["dense_0", "dense_1", "output"]),
        ("autoencoder", ["dense_0", "code", "dense_2", "output"]),
        ("lstm", ["lstm", "output"]),
        ("gru", ["gru", "output"]),
        ("conv1d", ["conv_0", "conv_1", "output"]),
        (
            "tcn",
            ["block_0_conv_0", "block_0_conv_1", "block_0_projection", "block_1_conv_0", "block_1_conv_1", "output"],
        ),
    ],
)
def test_plain_models_keep_their_names(kind: str, names: list[str]) -> None:
    """Checkpoints go by the names of the layers with weights; options that are off add no layer."""
    model = _make(kind)
    assert sorted(layer.name for layer in model.layers if layer.weights) == sorted(names)
    assert not {"Dropout", "BatchNormalization", "LayerNormalization"} & set(_kinds(model))
    assert model.losses == []


@pytest.mark.parametrize("kind", SMALL)
def test_penalty_is_the_formula(kind: str) -> None:
    """``l1 * sum(|w|) + l2 * sum(w ** 2)`` over every kernel and no bias."""
    model = _make(kind, l1=0.01, l2=0.1)
    for weight in model.weights:
        weight.assign(_rows(*weight.shape))
    kernels = [weight.numpy() for weight in model.weights if "kernel" in weight.name]
    assert len(kernels) == len([weight for weight in model.weights if weight.name != "bias"])
    wanted = sum(0.01 * np.abs(k).sum() + 0.1 * np.square(k).sum() for k in kernels)
    np.testing.assert_allclose(float(sum(model.losses)), wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", HIDDEN_LAYERS)
@pytest.mark.parametrize(("normalization", "layer"), [("batch", "BatchNormalization"), ("layer", "LayerNormalization")])
def test_hidden_layers_are_normalised_and_thinned(kind: str, normalization: str, layer: str) -> None:
    """One normalisation and one dropout each, in this order; the weights' names stay."""
    model = _make(kind, normalization=normalization, dropout=0.25)
    kinds = _kinds(model)
    assert kinds.count(layer) == kinds.count("Dropout") == HIDDEN_LAYERS[kind]
    assert kinds.index(layer) < kinds.index("Dropout")
    assert {w.path for w in _make(kind).weights} <= {w.path for w in model.weights}


def test_normalisation_stands_before_the_activation() -> None:
    """Affine, normalised, activated, with_dropout."""
    model = _make("mlp", normalization="layer", dropout=0.5)
    assert _kinds(model)[2:6] == ["Dense", "LayerNormalization", "Activation", "Dropout"]
    assert model.get_layer("dense_0").activation is keras.activations.linear


@pytest.mark.parametrize("kind", SMALL)
def test_same_seed_same_model(kind: str) -> None:
    """Weights and what dropout drops follow from the seed; another seed gives others."""
    options = {} if kind == "linear" else {"dropout": 0.5}
    x = _rows(4, 12, 3)

    def trained(seed: int) -> list[Any]:
        model = _make(kind, CoreSpec((12, 3), 2, seed=seed), **options)
        model.get_layer("output").kernel.assign(tf.ones_like(model.get_layer("output").kernel))
        return [model(x, training=True).numpy(), *(w.numpy() for w in model.trainable_weights)]

    first, again, other = trained(5), trained(5), trained(6)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert kind == "linear" or not np.array_equal(first[0], other[0])


def _answers_and_gradients(layer: Any, x: Any) -> list[Any]:
    """What *layer* answers, and the gradients of a function of it by inputs and weights, compiled."""

    def differentiate(rows: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            answer = layer(rows)
            total = tf.reduce_sum(tf.sin(answer))
        return [answer, *tape.gradient(total, [rows, *[w.value for w in layer.trainable_weights]])]

    compiled = tf.function(differentiate, jit_compile=True, autograph=False)
    return [tensor.numpy() for tensor in compiled(tf.constant(x))]


def _assert_same(ours: Any, theirs: Any, x: Any) -> None:
    ours(x), theirs(x)
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    for ours_w, theirs_w in zip(ours.weights, theirs.weights, strict=True):
        theirs_w.assign(_rows(*theirs_w.shape) * 0.5)
        ours_w.assign(theirs_w)
    pairs = zip(_answers_and_gradients(ours, x), _answers_and_gradients(theirs, x), strict=True)
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(("ours", "theirs"), [(Lstm, keras.layers.LSTM), (Gru, keras.layers.GRU)])
def test_gated_layers_equal_keras(ours: Any, theirs: Any, rows: int) -> None:
    """Answers, gradients, names and shapes, for one row and for several: each has a formula of its own."""
    _assert_same(ours(7, name="layer"), theirs(7, name="layer"), _rows(rows, 9, 3))


@pytest.mark.parametrize("options", [{"return_sequences": True}, {"go_backwards": True}, {"unroll": True}])
def test_gated_layers_leave_the_unusual_to_keras(options: dict[str, Any]) -> None:
    """An option that the fast loop does not know is answered all the same."""
    _assert_same(Lstm(4, name="layer", **options), keras.layers.LSTM(4, name="layer", **options), _rows(2, 5, 3))


def test_causal_conv_equals_keras() -> None:
    """Answers, gradients, names and shapes of a causal Conv1D."""
    ours = CausalConv(4, 3, activation="tanh", name="layer")
    theirs = keras.layers.Conv1D(4, 3, padding="causal", activation="tanh", name="layer")
    _assert_same(ours, theirs, _rows(2, 9, 3))


@pytest.mark.parametrize("steps", [1, 2, 7, 8])
def test_strides_count_from_the_newest(steps: int) -> None:
    """With strides, every second step back from the newest, whatever the length."""
    whole, half = CausalConv(4, 3), CausalConv(4, 3, strides=2)
    x = _rows(2, steps, 3)
    whole(x), half(x)
    half.set_weights(whole.get_weights())
    np.testing.assert_allclose(half(x), whole(x)[:, ::-1][:, ::2][:, ::-1], rtol=1e-5, atol=1e-6)
    assert half.compute_output_shape(x.shape) == tuple(half(x).shape)


@pytest.mark.parametrize("layer", [Lstm(4), Gru(4), CausalConv(4, 3, strides=2, activation="relu")])
def test_own_layers_survive_a_file(layer: Any) -> None:
    """A configuration gives the same layer again."""
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize(("window", "blocks"), [(12, None), (11, 3), (32, 2)])
def test_tcn_equals_its_dilated_form(window: int, blocks: int | None) -> None:
    """The steps that are left out change nothing: the same weights in dilated convolutions of Keras answer the same."""
    model = _make("tcn", CoreSpec((window, 3), 2, seed=5), blocks=blocks)
    output = model.get_layer("output")
    output.kernel.assign(_rows(*output.kernel.shape))
    inputs = features = keras.Input((window, 3))
    for index in range(blocks or blocks_for(window, 3)):
        change = features
        for place in range(2):
            name = f"block_{index}_conv_{place}"
            conv = keras.layers.Conv1D(4, 3, padding="causal", dilation_rate=2**index, activation="relu", name=name)
            change = conv(change)
        kept = keras.layers.Dense(4, name="block_0_projection")(features) if index == 0 else features
        features = keras.layers.Activation("relu")(kept + change)
    dilated = keras.Model(inputs, keras.layers.Dense(2, name="output")(features[:, -1, :]))
    for layer in (layer for layer in dilated.layers if layer.weights):
        layer.set_weights(model.get_layer(layer.name).get_weights())
    x = _rows(3, window, 3)
    np.testing.assert_allclose(model(x), dilated(x), rtol=1e-4, atol=1e-5)


def test_tcn_sees_the_whole_window() -> None:
    """The fewest blocks that do: one less would not."""
    for window in range(6, 100):
        blocks = blocks_for(window, 3)
        assert receptive_field(blocks - 1, 3) < window <= receptive_field(blocks, 3)


@pytest.mark.parametrize("kind", ["mlp", "lstm", "conv1d", "tcn"])
@pytest.mark.parametrize("rows", [1, 8])
def test_regularised_models_compile(kind: str, rows: int) -> None:
    """Penalty, dropout and normalisation inside a compiled loop: finite gradients for every weight, twice the same."""
    model = _make(kind, l1=0.001, l2=0.01, dropout=0.2, normalization="layer" if rows == 1 else "batch")
    x = tf.constant(_rows(rows, 12, 3))

    def update(i: Any) -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_mean(tf.square(model(x, training=True) - 1.0)) + tf.add_n(model.losses)
        variables = model.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(total, [v.value for v in variables]), strict=True):
            variable.assign_sub(0.05 * gradient)
        return (i + 1,)

    def loop() -> Any:
        return tf.while_loop(lambda i: i < 3, update, (tf.constant(0),))

    start = [v.numpy() for v in model.variables]
    compiled, ends = tf.function(loop, autograph=False, jit_compile=True), []
    for _ in range(2):
        for variable, value in zip(model.variables, start, strict=True):
            variable.assign(value)
        compiled()
        ends.append([v.numpy() for v in model.trainable_variables])
    assert all(np.isfinite(a).all() and np.array_equal(a, b) for a, b in zip(*ends, strict=True))
    assert not np.array_equal(ends[0][0], start[0])
