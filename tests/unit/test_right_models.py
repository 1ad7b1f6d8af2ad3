"""Any model's own numbers: what learnd predicts and learns is what Keras, or the old library, computes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from learnd.core.errors import ConfigError
from learnd.models.output_meaning import output_meaning
from learnd.models.requirements import in_float32, require_float32, require_stateless
from learnd.models.settings import LoadSettings
from learnd.models.stored.open import open_stored
from learnd.models.whole_numbers import whole_numbers
from learnd.runtime.loop import run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support import user_models
from tests.support.helpers import settings
from tests.support.learning import LearnerOfRows

BATCH: dict[str, Any] = {"mode": "micro_batch", "batch_size": 8, "compile": False}
RAW = {"inputs": "none", "target": "none"}
PLAIN: dict[str, Any] = {"learning": BATCH, "averaging": {"kind": "none"}}


def rows(count: int = 32) -> Any:
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


def learned_by_keras(model: Any, x: Any, y: Any) -> Any:
    """What Keras predicts for each batch before it learns it."""
    predictions = []
    for start in range(0, len(x), 8):
        predictions.append(model.predict_on_batch(x[start : start + 8]))
        model.train_on_batch(x[start : start + 8], y[start : start + 8])
    return np.concatenate(predictions)


# The meaning of a classifier's outputs.


def _meaning(model: Any, **options: Any) -> Any:
    return output_meaning(model, getattr(model, "loss", None), (4,), **options)


PROBABILITIES: dict[str, Callable[[], Any]] = {
    "softmax of a subclass": lambda: user_models.subclass(3, "softmax"),
    "sigmoid of a subclass": lambda: user_models.subclass(1, "sigmoid"),
    "operation": lambda: user_models.functional(3, ops.softmax),
    "activation of an operation": lambda: user_models.functional(3, layers.Activation(ops.softmax)),
    "layer": lambda: user_models.functional(3, layers.Softmax()),
    "inside a nested model": lambda: user_models.nested(3),
    "softmax by hand": lambda: user_models.by_hand(3),
}
LOGITS: dict[str, Callable[[], Any]] = {
    "linear": lambda: user_models.functional(3, lambda z: z),
    "linear end of a subclass": lambda: user_models.subclass(3, None),
    "log of a softmax": lambda: user_models.functional(3, ops.log_softmax),
    "scaled": lambda: user_models.functional(3, lambda z: z * 2.0),
    "tanh": lambda: user_models.subclass(3, "tanh"),
}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_recognised(name: str) -> None:
    keras.utils.set_random_seed(2)
    assert _meaning(PROBABILITIES[name]()).probabilities


@pytest.mark.parametrize("name", LOGITS)
def test_logits_are_recognised(name: str) -> None:
    keras.utils.set_random_seed(2)
    assert not _meaning(LOGITS[name]()).probabilities


@pytest.mark.parametrize("from_logits", [True, False])
def test_the_compiled_loss_decides_where_the_last_operation_says_nothing(from_logits: bool) -> None:
    """Also under another name."""
    model = user_models.by_hand(3) if not from_logits else user_models.functional(3, lambda z: z * 0.01 + 0.3)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits, name="mine"))
    meaning = _meaning(model)
    assert meaning.probabilities is not from_logits
    assert "from_logits" in meaning.evidence


@pytest.mark.parametrize("units", [1, 3])
def test_outputs_that_could_be_either_are_asked_for(units: int) -> None:
    """Answers between 0 and 1 that do not sum to one, of a model that says nothing else about itself."""
    model = user_models.functional(units, lambda z: 1.0 / (1.0 + ops.exp(-z)))
    with pytest.raises(ConfigError, match=r"task.outputs.*set logits or probabilities"):
        _meaning(model)
    assert _meaning(model, configured="probabilities").probabilities


@pytest.mark.parametrize(
    ("end", "loss"),
    [("sigmoid", "mse"), ("sigmoid", "binary_crossentropy"), (None, keras.losses.BinaryCrossentropy(True))],
)
def test_independent_outputs_are_no_classification(end: str | None, loss: Any, tmp_path: Path) -> None:
    model = user_models.functional(3, layers.Activation(end))
    model.compile("sgd", loss)
    model.save(tmp_path / "model.keras")
    task = {"kind": "classification", "classes": ["a", "b", "c"]}
    with pytest.raises(ConfigError, match=r"3 independent outputs.*multilabel"):
        LearnerOfRows(features=4, task=task, model={"load": str(tmp_path / "model.keras")}, **PLAIN)


# What comes with a model.


@pytest.mark.parametrize(
    "factory", ["with_named_loss", "with_loss_object", "with_loss_list", "with_scaled_loss", "with_regularizers"]
)
def test_a_compiled_model_of_a_factory_learns_on_as_in_keras(factory: str) -> None:
    """With its optimizer, the state of it, its loss and its penalties."""
    model = {"factory": f"tests.support.user_models:{factory}"}
    learner = LearnerOfRows(features=4, model=model, scaling=RAW, **PLAIN)
    x = rows()
    y = x.sum(axis=1, keepdims=True)
    expected = learned_by_keras(getattr(user_models, factory)((4,), 1), x, y)
    np.testing.assert_allclose(learner.learn(x, y).predictions, expected, rtol=1e-4, atol=1e-5)


def test_a_configured_optimizer_replaces_that_of_the_model() -> None:
    model = {"factory": "tests.support.user_models:with_named_loss"}
    learning = {**BATCH, "optimizer": {"kind": "adam"}}
    learner = LearnerOfRows(features=4, model=model, scaling=RAW, learning=learning, averaging={"kind": "none"})
    assert learner.learning.optimizer == "Adam"


@pytest.mark.parametrize(("factory", "classes"), [("classifier", 3), ("binary", 2)])
def test_a_classifier_of_a_factory_learns_on_as_in_keras(factory: str, classes: int) -> None:
    model = {"factory": f"tests.support.user_models:{factory}"}
    task = {"kind": "classification", "classes": [f"c{i}" for i in range(classes)]}
    learner = LearnerOfRows(features=4, model=model, scaling=RAW, task=task, **PLAIN)
    x, y = rows(), np.random.default_rng(1).integers(0, classes, 32)
    expected = learned_by_keras(getattr(user_models, factory)((4,), classes), x, y)
    predictions = learner.learn(x, y).predictions
    np.testing.assert_allclose(predictions[:, -expected.shape[1] :], expected, rtol=1e-4, atol=1e-5)


# The old library.


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("name", ["adapted", "fine_tuned"])
def test_a_file_of_keras_2_learns_on_as_in_keras_2(old_keras_files: Path, name: str, suffix: str) -> None:
    """With copies of its variables, and with a part that stays in inference mode."""
    learner = LearnerOfRows(features=4, model={"load": str(old_keras_files / f"{name}.{suffix}")}, **PLAIN)
    recorded = np.load(old_keras_files / f"{name}.npz")
    predictions = learner.learn(recorded["inputs"], recorded["targets"]).predictions
    np.testing.assert_allclose(predictions, recorded["predictions"], rtol=1e-4, atol=1e-4)


def test_a_restored_layer_computes_with_its_restored_variables(tmp_path: Path) -> None:
    """The factory adapts to other data at each start; the export too is of the first start's data."""
    options = settings(
        tmp_path,
        features=["a", "b", "c", "d"],
        model={"factory": "tests.support.user_models:adapts_at_each_start"},
        scaling=RAW,
        learning={"mode": "micro_batch", "batch_size": 4, "optimizer": {"kind": "sgd", "learning_rate": 1e-12}},
        averaging={"kind": "none"},
        checkpoint={"every_samples": 8, "every_seconds": None},
    )
    records = [f'{{"a": {i}, "b": 1, "c": 2, "d": 3, "y": 0}}'.encode() for i in range(16)]
    collected: list[Any] = []
    for stop in (8, 16):
        pipeline = make_pipeline(options, source=MemorySource(records), collected=collected, max_records=stop)
        run(pipeline, stopping=lambda: False)
    user_models.starts = 0
    model = user_models.adapts_at_each_start((4,), 1)
    expected = model.predict_on_batch(np.array([[i, 1, 2, 3] for i in range(16)], np.float32))[:, 0]
    np.testing.assert_allclose([row["prediction"]["y"] for row in collected], expected, rtol=1e-5)


# Types and shapes.


def _stateful() -> Any:
    inputs = keras.Input(batch_shape=(1, 1, 4))
    return keras.Model(inputs, layers.Dense(1)(layers.LSTM(5, stateful=True, name="memory")(inputs)))


def _fixed_batch() -> Any:
    inputs = keras.Input(batch_shape=(16, 4))
    return keras.Model(inputs, layers.Dense(1)(inputs))


@pytest.mark.parametrize(("make", "words"), [(_stateful, "memory are stateful"), (_fixed_batch, "exactly 16 rows")])
def test_what_no_stream_can_have_is_refused_with_the_way_out(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        require_stateless(make(), "model.load")


@pytest.mark.parametrize("parts", [("float64", "float64"), ("float64", "float32"), ("float32", "float64")])
def test_float64_is_computed_in_float32(parts: Sequence[str]) -> None:
    inputs = keras.Input((4,))
    first, last = parts
    model = keras.Model(inputs, layers.Dense(1, dtype=last)(layers.Dense(8, "relu", dtype=first)(inputs)))
    rebuilt = in_float32(model)
    require_float32(rebuilt, "model.load")
    assert [v.path for v in rebuilt.weights] == [v.path for v in model.weights]
    np.testing.assert_allclose(rebuilt(rows()), model(rows()), rtol=1e-5, atol=1e-6)


def test_half_precision_is_rebuilt_and_mixed_precision_stays(tmp_path: Path) -> None:
    """Of mixed precision, Keras wraps the optimizer to scale the loss, without a word in the file."""
    inputs = keras.Input((4,))
    half = keras.Model(inputs, layers.Dense(1, dtype="bfloat16")(inputs))
    assert [v.dtype for v in in_float32(half).weights] == ["float32", "float32"]
    mixed = keras.Model(inputs, layers.Dense(1, dtype="mixed_float16")(inputs))
    assert in_float32(mixed) is mixed

    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = user_models.compiled(user_models.functional(1, lambda z: z), "adam", "mse")
        model.fit(rows(), rows().sum(axis=1), epochs=8, verbose=0)  # the first steps overflow, and are left out
        taken = int(model.optimizer.inner_optimizer.iterations)
        model.save(tmp_path / "model.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    stored = open_stored(LoadSettings(kind="load", load=tmp_path / "model.keras"), architecture=None)
    assert stored.optimizer is not None and stored.optimizer["class_name"] == "Adam"
    assert not stored.notes and int(stored.slots["iteration"]) == taken > 0


def test_float64_that_cannot_be_rebuilt_is_refused() -> None:
    class Own(keras.Model):  # type: ignore[misc]  # Keras has no types
        def __init__(self) -> None:
            super().__init__(dtype="float64")
            self.last = layers.Dense(1, dtype="float64")

        def call(self, x: Any) -> Any:
            return self.last(x)

    model = Own()
    model(rows())
    with pytest.raises(ConfigError, match=r"kernel \(float64\).*are not float32"):
        require_float32(in_float32(model), "model.factory")


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_ids_reach_their_embedding_unscaled(dtype: str) -> None:
    """Whatever type the input has. Only ids that the embedding knows are accepted."""
    found = whole_numbers(user_models.embedding(dtype=dtype), (2,), "model.factory", scaled=True)
    assert found is not None and found.limits == (20, 20)


def test_ids_of_two_embeddings_have_limits_of_their_own() -> None:
    inputs = keras.Input((3,), dtype="int32")
    parts = [layers.Embedding(5, 2)(inputs[:, 0]), layers.Embedding(9, 2)(inputs[:, 1])]
    parts.append(ops.cast(inputs[:, 2:], "float32"))
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(parts)))
    found = whole_numbers(model, (3,), "model.factory", scaled=True)
    assert found is not None and found.limits == (5, 9, None)


def test_ids_next_to_numbers_are_not_standardised_in_silence() -> None:
    inputs = keras.Input((2,))
    parts = [layers.Embedding(5, 2)(inputs[:, 0]), inputs[:, 1:]]
    model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()(parts)))
    with pytest.raises(ConfigError, match=r"scaling: \{inputs: none\}"):
        whole_numbers(model, (2,), "model.factory", scaled=True)
    assert whole_numbers(model, (2,), "model.factory", scaled=False) is None


def test_numbers_are_not_taken_for_ids() -> None:
    assert whole_numbers(user_models.subclass(2, None), (4,), "model.factory", scaled=True) is None


def test_only_known_ids_are_learned(tmp_path: Path) -> None:
    """XLA would answer for an unknown id with another one's row, and cut 1.5 to 1."""
    options = settings(
        tmp_path,
        features=["a", "b"],
        model={"factory": "tests.support.user_models:with_ids"},
        learning={"mode": "per_sample", "compile": False},
    )
    records = [f'{{"a": {a}, "b": 3, "y": 0}}'.encode() for a in (0, 19, 20, -1, 1.5)]
    collected: list[Any] = []
    pipeline = make_pipeline(options, source=MemorySource(records), collected=collected)
    run(pipeline, stopping=lambda: False)
    assert [row["offset"] for row in collected] == [0, 1]
    assert pipeline.status.rejected == {"out_of_range": 3}
