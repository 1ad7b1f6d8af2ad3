"""What cannot be made or loaded is refused before the stream is joined, with the key, the value and the way out."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from learnd.core.errors import ConfigError
from learnd.learners.losses import make_loss
from learnd.wiring.pipeline import check, make_pipeline
from tests.support.helpers import run_cli, settings

HERE = "tests.unit.test_model_errors"


def dense(input_shape: tuple[int, ...], outputs: int, width: int | None = None) -> Any:
    """A model of a user's that works, unless *width* is not what the task asks for."""
    inputs = keras.Input(input_shape)
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(width or outputs, name="answer")(hidden))


def of_five_features(input_shape: tuple[int, ...], outputs: int) -> Any:
    """Takes other rows than it is asked to."""
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(outputs)])


def no_model(input_shape: tuple[int, ...], outputs: int) -> Any:
    """Forgets to make one."""
    return [input_shape, outputs]


def other_arguments(shape: tuple[int, ...]) -> Any:
    """Is called otherwise."""
    return dense(shape, 1)


def raises(input_shape: tuple[int, ...], outputs: int) -> Any:
    """Breaks while it is called."""
    raise RuntimeError("no licence for the layer")


NOT_A_FUNCTION = 3


class Unbuildable(keras.Model):  # type: ignore[misc]
    """Fails when it is called."""

    def call(self, x: Any) -> Any:
        return keras.ops.reshape(x, (7, 7))


class ManyOutputs(keras.Model):  # type: ignore[misc]
    """Returns more than one thing."""

    def call(self, x: Any) -> Any:
        return {"a": x, "b": x}


class Uncompilable(keras.layers.Layer):  # type: ignore[misc]
    """Calls back into Python, which XLA cannot compile."""

    def call(self, x: Any) -> Any:
        doubled = tf.numpy_function(lambda values: values * np.float32(1.0), [tf.stop_gradient(x)], tf.float32)
        doubled.set_shape(x.shape)
        return x + doubled

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


def unbuildable(input_shape: tuple[int, ...], outputs: int) -> Any:
    return Unbuildable()


def many_outputs(input_shape: tuple[int, ...], outputs: int) -> Any:
    return ManyOutputs()


def uncompilable(input_shape: tuple[int, ...], outputs: int) -> Any:
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, keras.layers.Dense(outputs)(Uncompilable()(inputs)))


def factory(name: str, **arguments: Any) -> dict[str, Any]:
    return {"factory": f"{HERE}:{name}", "arguments": arguments}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (factory("missing"), r"model\.factory: .* has no missing"),
        (factory("NOT_A_FUNCTION"), r"model\.factory: .* is not a function but a int"),
        (factory("no_model"), r"model\.factory: .* returned a list; it must return a keras\.Model"),
        (factory("other_arguments"), r"model\.factory: .* cannot be called with input_shape, outputs"),
        (factory("dense", depth=3), r"model\.factory: .* cannot be called with input_shape, outputs, depth"),
        (factory("raises"), r"model\.factory: .*raises failed: RuntimeError: no licence"),
        (
            factory("of_five_features"),
            r"model\.factory: the model takes rows of shape \(5,\); features and task\.window give \(3,\)",
        ),
        (factory("unbuildable"), r"model\.factory: the model fails on an input of shape \(1, 3\)"),
        (factory("many_outputs"), r"model\.factory: the model returns a dict; it must return one tensor"),
        (factory("dense", width=4), r"model\.factory: the model has 4 outputs, the task needs 1; add `head: \{\}`"),
        ({**factory("dense"), "head": {"units": 2}}, r"model\.head\.units: is 2; the task needs 1"),
        ({**factory("dense"), "head": {"replace": 3}}, r"model\.head\.replace: is 3; the model has 2 layers"),
        (
            {**factory("dense"), "head": {"at": "hiden"}},
            r"model\.head\.at: no layer is called 'hiden'; the model has .*hidden",
        ),
        ({**factory("dense"), "freeze": {"all_but_last": 2}}, r"model\.freeze\.all_but_last: is 2 of 2 layers"),
        ({"load": "nowhere.keras"}, r"model\.load: nowhere\.keras does not exist"),
        ({"kind": "mlp", "load": "nowhere"}, r"model\.load: nowhere does not exist"),
    ],
)
def test_a_wrong_model_is_refused(model: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Nothing is written; a directory that was to hold the state is as empty as before."""
    with pytest.raises(ConfigError, match=message):
        make_pipeline(settings(tmp_path / "data", model=model))
    assert not list(tmp_path.rglob("ckpt*"))


def test_what_xla_cannot_compile_is_said_and_runs_without(tmp_path: Path) -> None:
    """Before the stream; `compile: false` is the way out, with a warning on its cost."""
    model = factory("uncompilable")
    with pytest.raises(ConfigError, match=r"learning\.compile: XLA cannot compile this model .*compile: false"):
        check(settings(tmp_path, model=model))
    pipeline = make_pipeline(settings(tmp_path, model=model, learning={"compile": False}))
    pipeline.model.learner.prepare()


def test_an_unbuilt_model_is_built_by_calling_it(tmp_path: Path) -> None:
    """A subclass that was never called has no weights yet; one row of zeros gives it some."""
    assert check(settings(tmp_path, model=factory("subclassed"), learning={"compile": False})).startswith("21 weights")


def test_a_new_head_on_a_subclassed_model_taps_its_last_layer(tmp_path: Path) -> None:
    """Its code runs as it is; what its last layer would get goes to the head, and only that learns if so wished."""
    model = {**factory("subclassed"), "head": {}, "freeze": {"layers": ["body"]}}
    pipeline = make_pipeline(settings(tmp_path, model=model, learning={"compile": False}))
    network = pipeline.model.averaged._network
    assert [v.path.rpartition("/")[0].rpartition("/")[2] for v in network.trainable_variables] == ["head", "head"]
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    body = network.core.layers[1]
    inner = body.model
    np.testing.assert_allclose(body(x), inner.hidden(x), rtol=1e-6)


class Subclassed(keras.Model):  # type: ignore[misc]
    """Two layers in code."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(4, activation="tanh")
        self.answer = keras.layers.Dense(outputs)

    def call(self, x: Any) -> Any:
        return self.answer(self.hidden(x))


def subclassed(input_shape: tuple[int, ...], outputs: int) -> Any:
    return Subclassed(outputs)


def test_validate_load_says_what_was_made(tmp_path: Path) -> None:
    """Exit code 0 and a line for people; for a file that is none, 78 and the line of the configuration."""
    dense((3,), 1).save(tmp_path / "model.keras")
    config = tmp_path / "config.yaml"
    config.write_text(
        "source: {kind: simulator}\nfeatures: [temperature, pressure, vibration]\ntarget: wear\n"
        f"model: {{load: {tmp_path / 'model.keras'}}}\nexport: {{rehearse: false}}\n"
    )
    good = run_cli("validate", "--load", str(config))
    assert good.returncode == 0, good.stderr
    assert "21 weights, 21 of them trained, by Adam" in good.stdout
    (tmp_path / "model.keras").write_bytes((tmp_path / "model.keras").read_bytes()[:600])
    bad = run_cli("validate", "--load", str(config))
    assert bad.returncode == 78
    assert "model.load" in bad.stderr
    assert str(tmp_path / "model.keras") in bad.stderr
    assert "Traceback" not in bad.stderr
    assert not (tmp_path / "data").exists()


def with_batch_normalization(input_shape: tuple[int, ...], outputs: int) -> Any:
    """Learns statistics of batches."""
    inputs = keras.Input(input_shape)
    hidden = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(4, name="hidden")(inputs))
    return keras.Model(inputs, keras.layers.Dense(outputs, name="answer")(hidden))


def test_batch_normalisation_does_not_learn_from_single_rows(tmp_path: Path) -> None:
    """Their variance is zero: the stored one would fade to nothing, and the model with it."""
    model = factory("with_batch_normalization")
    with pytest.raises(
        ConfigError, match=r"learning\.mode: per_sample .*\(norm\).*model\.freeze: \{layers: \[norm\]\}"
    ):
        make_pipeline(settings(tmp_path, model=model))
    make_pipeline(settings(tmp_path, model={**model, "freeze": {"layers": ["norm"]}}))
    make_pipeline(settings(tmp_path, model=model, learning={"mode": "micro_batch"}))


def test_half_precision_is_computed_as_it_is_and_judged_in_float32(tmp_path: Path) -> None:
    """A model that was trained with mixed precision goes on; its optimizer's loss scale is not needed."""
    policy = keras.mixed_precision.Policy("mixed_float16")
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, dtype=policy, name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, dtype=policy, name="answer")(hidden))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)), loss="mse")
    x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
    model.fit(x, x[:, :1], verbose=0)
    model.save(tmp_path / "half.keras")
    options = settings(tmp_path, model={"load": str(tmp_path / "half.keras")}, learning={"compile": False})
    pipeline = make_pipeline(options)
    pipeline.model.learner.prepare()
    answers = pipeline.model.averaged.predict(x, pipeline.model.averaged.weights())["prediction"]
    np.testing.assert_allclose(answers, model(x), rtol=1e-2, atol=1e-3)


def test_a_file_that_was_refused_can_be_put_right(tmp_path: Path) -> None:
    """What is adopted stays only once something has learned from it; until then the file at `load` counts."""
    path = tmp_path / "model.keras"
    dense((3,), 2).save(path)
    options = settings(tmp_path / "data", model={"load": str(path)}, learning={"compile": False})
    with pytest.raises(ConfigError, match="the model has 2 outputs, the task needs 1"):
        make_pipeline(options)
    right = dense((3,), 1)
    right.save(path)
    pipeline = make_pipeline(options)
    kernel = {name: v.numpy() for name, v in pipeline.saving.checkpoints._live.items()}["model/answer/kernel"]
    np.testing.assert_array_equal(kernel, right.get_layer("answer").kernel.numpy())
    pipeline.open()
    pipeline.close()
    dense((3,), 1).save(path)
    again = make_pipeline(options)
    kept = {name: v.numpy() for name, v in again.saving.checkpoints._live.items()}["model/answer/kernel"]
    np.testing.assert_array_equal(kept, kernel)


def test_a_new_head_brings_the_loss_of_its_task(tmp_path: Path) -> None:
    """A regression's Huber loss means nothing to classes; without a head the file's own loss stays."""
    model = dense((3,), 2)
    model.compile(loss=keras.losses.Huber())
    model.save(tmp_path / "huber.keras")
    sections = {"task": {"kind": "classification", "classes": ["n", "y"]}, "learning": {"compile": False}}
    load = {"load": str(tmp_path / "huber.keras")}
    kept = make_pipeline(settings(tmp_path / "1", model=load, **sections)).model.averaged._network
    replaced = make_pipeline(settings(tmp_path / "2", model={**load, "head": {}}, **sections)).model.averaged._network
    assert (kept.loss_name, replaced.loss_name) == ("huber_loss", "the task's own")


def test_options_of_a_compiled_loss_are_kept_or_refused() -> None:
    """Label smoothing counts; classes to be ignored cannot be had, and that is said."""
    smooth = make_loss(keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3), classify=True)
    probabilities = tf.constant([[0.7, 0.3]])
    expected = keras.losses.CategoricalCrossentropy(label_smoothing=0.3)(tf.constant([[1.0, 0.0]]), probabilities)
    np.testing.assert_allclose(smooth(tf.constant([[1.0, 0.0]]), probabilities), [expected], rtol=1e-6)
    assert make_loss(keras.losses.SparseCategoricalCrossentropy(from_logits=True), classify=True) is None
    with pytest.raises(ConfigError, match=r"learning\.loss: .*ignore_class.* is not supported"):
        make_loss(keras.losses.SparseCategoricalCrossentropy(ignore_class=0), classify=True)


def test_an_export_goes_on_with_its_own_features_and_classes_alone(tmp_path: Path) -> None:
    """It would answer to others too, and wrongly."""
    module = tf.Module()
    module.kernel = tf.Variable(np.eye(3, 2, dtype="float32"))
    spec = tf.TensorSpec((None, 3), tf.float32, name="inputs")
    serve = tf.function(lambda inputs: {"probabilities": tf.nn.softmax(inputs @ module.kernel)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "7" / "saved_model"), signatures={"serving_default": serve})
    described = {
        "task": "classification",
        "features": [{"name": name} for name in "abc"],
        "predicts": ["y"],
        "classes": ["n", "y"],
    }
    (tmp_path / "7" / "learnd.json").write_text(json.dumps(described))
    sections: dict[str, Any] = {"model": {"load": str(tmp_path / "7")}, "learning": {"compile": False}}
    for classes in ({"classes": ["n", "y"]}, {"classes": "dynamic", "max_classes": 2}):
        task = {"kind": "classification", **classes}
        assert make_pipeline(settings(tmp_path / "good", task=task, **sections)).model.classes() == ("n", "y")
    for changed, message in (
        ({"features": ["c", "b", "a"]}, r"learned from a, b, c, in this order"),
        ({"target": "z"}, r"predicts y, not z"),
        (
            {"task": {"kind": "classification", "classes": ["y", "n"]}},
            r"task\.classes: must start .* classes: n, y",
        ),
        ({"task": {"kind": "regression"}}, r"learned a classification"),
    ):
        task = {"kind": "classification", "classes": ["n", "y"]}
        with pytest.raises(ConfigError, match=message):
            make_pipeline(settings(tmp_path / "bad", **{"task": task, **sections, **changed}))
