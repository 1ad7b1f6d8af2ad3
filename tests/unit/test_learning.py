"""How it learns: classes that grow, replay, passes, weights, rates, freezing, dropout, batch normalisation."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import structlog.testing
import tensorflow as tf

import learnd
from learnd.checkpoint import state_codec
from learnd.core.errors import ConfigError
from learnd.core.types import Batch, Samples, StepResult
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, readings, same_arrays, settings
from tests.support.learning import LearnerOfRows

pytestmark = pytest.mark.usefixtures("shared_traces")

ROWS = 400
QUICK = {"compile": False}
"""Without XLA a test compiles in a second rather than four; `test_every_option_compiles` has it on."""


def classified(count: int = ROWS, *, seed: int = 0) -> Samples:
    """Three clusters; the class ``c`` comes only after 50 samples."""
    random = np.random.default_rng(seed)
    number = random.integers(0, 3, count)
    number[:50] %= 2
    x = (random.normal(size=(count, 3)) + np.eye(3)[number] * 3).astype(np.float32)
    labels = np.array(["b", "a", "c"], dtype=object)[number]
    return make_samples(x, np.empty((count, 0), np.float32), labels=labels)


def numbers(count: int = ROWS, *, seed: int = 0) -> Samples:
    """A linear target."""
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    return make_samples(x, x[:, :1] * 2 - x[:, 1:2])


def learn(pipeline: Pipeline, samples: Samples, cuts: Sequence[int] = ()) -> list[StepResult]:
    """As `Pipeline.learn` does, without a stream."""
    results = []
    for first, last in itertools.pairwise([0, *cuts, len(samples)]):
        batch = pipeline.transforms(Batch(samples.take(slice(first, last)), (), {}, last - first, 0))
        results.append(pipeline.model.learner.learn(batch.samples))
        pipeline.evaluator.observe(results[-1])
    return results


def arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}


def copy(source: Pipeline, target: Pipeline) -> None:
    """What a checkpoint would carry over."""
    for name, variable in target.saving.checkpoints._live.items():
        variable.assign(source.saving.checkpoints._live[name])
    for part, other in ((source.transforms, target.transforms), (source.model.learner, target.model.learner)):
        other.restore(state_codec.decode(state_codec.encode(part.state())))


OPTIONS: dict[str, dict[str, Any]] = {
    "balanced": {"class_weights": "balanced"},
    "reservoir": {"replay": {"size": 50, "ratio": 2}},
    "recency": {"mode": "micro_batch", "batch_size": 8, "replay": {"size": 40, "kind": "recency", "ratio": 0.5}},
    "passes": {"passes": 3},
    "elastic": {"elastic": 0.1},
    "rates": {"layer_rates": {"dense_*": 0.5}},
    "focal": {"loss": "categorical_focal_crossentropy"},
    "accumulated": {"optimizer": {"kind": "sgd", "learning_rate": 0.1, "gradient_accumulation_steps": 4}},
    "clipped": {"optimizer": {"kind": "adamw", "clipvalue": 0.5, "weight_decay": 0.01}},
}
MODELS: dict[str, dict[str, Any]] = {
    "accumulated": {"kind": "mlp", "hidden": [8], "dropout": 0.2, "normalization": "layer", "l2": 0.001},
    "recency": {"kind": "mlp", "hidden": [8], "normalization": "batch", "dropout": 0.1, "l1": 0.001},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_no_option_lets_the_cutting_of_the_stream_matter(name: str, tmp_path: Path) -> None:
    """Weights, slots, replayed samples, random state: equal to the last bit for any cutting, and after a restart."""
    sections = {
        "task": {"kind": "classification"},
        "learning": {**QUICK, **OPTIONS[name]},
        "model": MODELS.get(name, {"kind": "mlp", "hidden": [8]}),
    }
    options = settings(tmp_path, **sections)
    whole, cut, restarted = make_pipeline(options), make_pipeline(options), make_pipeline(options)
    samples = classified(200)
    losses = np.concatenate([result.losses for result in learn(whole, samples)])
    learn(cut, samples.take(slice(0, 90)), [1, 7, 60])
    copy(cut, restarted)
    learn(restarted, samples.take(slice(90, 200)), [33])
    assert same_arrays(arrays(whole), arrays(restarted)) == []
    assert np.isfinite(losses).all()
    assert whole.model.retraces() == 0


@pytest.mark.parametrize("name", ["recency", "reservoir"])
def test_options_compile_with_xla(name: str, tmp_path: Path) -> None:
    """Replay, batch normalisation, dropout and regularisation too; the losses are those without XLA."""
    results = []
    for compiled in (True, False):
        sections = {"learning": {**OPTIONS[name], "compile": compiled}, "task": {"kind": "classification"}}
        model = {"kind": "mlp", "hidden": [8], **({"normalization": "batch"} if name == "recency" else {})}
        pipeline = make_pipeline(settings(tmp_path, **sections, model=model))
        results.append(np.concatenate([result.losses for result in learn(pipeline, classified(104))]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-3, atol=1e-4)


def test_a_new_label_grows_the_model_by_one_output(tmp_path: Path) -> None:
    """The old classes' weights and slots stay; the sample itself is predicted without knowing of its class."""
    options = settings(
        tmp_path,
        task={"kind": "classification", "max_classes": 8},
        learning=QUICK,
        model={"kind": "mlp", "hidden": [8]},
    )
    pipeline = make_pipeline(options)
    samples = classified(200)
    labels = samples.labels
    assert labels is not None
    first_c = int(np.flatnonzero(labels == "c")[0])
    learn(pipeline, samples.take(slice(0, first_c)))
    assert pipeline.model.classes() == ("b", "a")
    before = arrays(pipeline)
    (result,) = learn(pipeline, samples.take(slice(first_c, first_c + 1)))
    assert pipeline.model.classes() == ("b", "a", "c")
    assert result.predictions[0, 2:].tolist() == [0.0] * 6, "unseen classes get no probability"
    after = arrays(pipeline)
    kernel = "model/output/kernel"
    assert not before[kernel][:, 2:].any(), "what nobody has seen has learned nothing"
    assert not after[kernel][:, 3:].any()
    assert after[kernel][:, 2].any(), "the new class learns from its first sample"
    slots = [name for name in after if name.startswith("optimizer/") and "output_kernel" in name]
    assert slots
    assert all(not after[name][:, 3:].any() and before[name][:, :2].any() for name in slots)
    served = pipeline.model.averaged.predict(samples.x[:5], pipeline.model.averaged.weights())["probabilities"]
    assert served.shape == (5, 3)
    np.testing.assert_allclose(served.sum(axis=1), 1.0, rtol=1e-5)


def test_a_growing_model_is_a_smaller_one_until_it_grows(tmp_path: Path) -> None:
    """Room for classes that never come changes nothing: losses equal those of a model without it."""
    losses = []
    for room in (3, 30):
        task = {"kind": "classification", "max_classes": room}
        pipeline = make_pipeline(settings(tmp_path, task=task, learning=QUICK))
        losses.append(np.concatenate([result.losses for result in learn(pipeline, classified())]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4, atol=1e-6)


def test_classes_beyond_the_room_are_skipped_and_counted(tmp_path: Path) -> None:
    """They are no errors of the record, and they do not stop learning."""
    pipeline = make_pipeline(settings(tmp_path, task={"kind": "classification", "max_classes": 2}, learning=QUICK))
    samples = classified()
    with structlog.testing.capture_logs() as logs:
        batch = pipeline.transforms(Batch(samples, (), {}, len(samples), 0))
    assert samples.labels is not None
    assert batch.skipped == {"too_many_classes": int((samples.labels == "c").sum())}
    assert set(batch.samples.y[:, 0]) == {0.0, 1.0}
    refused = [entry for entry in logs if entry["event"] == "class_refused"]
    assert [entry["samples"] for entry in refused[:3]] == [1, 2, 4]
    assert "task.other_class" in refused[0]["note"]


def test_classes_beyond_the_room_are_collected_in_another_by_option(tmp_path: Path) -> None:
    """It takes the last place. The log counts their samples, and a restart continues the count."""
    task = {"kind": "classification", "max_classes": 3, "other_class": "rest"}
    labels = np.array(["a", "b", "c", "a", "d", "c", "e"], object)
    pipeline = make_pipeline(settings(tmp_path, task=task, learning=QUICK))
    numbered = []
    samples = replace(classified(7), labels=labels)
    with structlog.testing.capture_logs() as logs:
        for part in (slice(0, 4), slice(4, 7)):
            state = pipeline.transforms.state()
            pipeline = make_pipeline(settings(tmp_path, task=task, learning=QUICK))
            pipeline.transforms.restore(state)
            batch = pipeline.transforms(Batch(samples.take(part), (), {}, 1, 0))
            numbered += batch.samples.y[:, 0].tolist()
            assert not batch.skipped
    events = [(entry["label"], entry["samples"]) for entry in logs if entry["event"] == "class_collected"]
    assert numbered == [0, 1, 2, 0, 2, 2, 2]
    assert events == [("c", 1), ("d", 2), ("e", 4)]
    assert pipeline.transforms.state()["labels"]["names"] == ["a", "b", "rest"]


def test_a_list_of_classes_can_have_one_for_all_others(tmp_path: Path) -> None:
    """Records with another label are then no rejects."""
    task = {"kind": "classification", "classes": ["m0", "rest"], "other_class": "rest"}
    result = learnd.run(
        settings(tmp_path, target="k", decode={"kind": "json"}, task=task, learning={**QUICK, "mode": "per_sample"}),
        [json.loads(record) for record in readings(30)],
    )
    assert not result.rejected
    assert {line["truth"] for line in result.predictions} == {"m0", "rest"}
    with pytest.raises(ConfigError, match="other_class"):
        settings(tmp_path, target="k", decode={"kind": "json"}, task={**task, "other_class": "x"})


def test_classification_learns(tmp_path: Path) -> None:
    """Three clusters are told apart, by the live and by the averaged weights."""
    optimizer = {"kind": "adam", "learning_rate": 0.01}
    pipeline = make_pipeline(
        settings(tmp_path, task={"kind": "classification"}, learning={**QUICK, "optimizer": optimizer})
    )
    results = learn(pipeline, classified(1500))
    wrong = results[0].predictions[-300:].argmax(axis=1) != results[0].samples.y[-300:, 0]
    assert wrong.mean() < 0.1
    assert results[0].averaged_losses[-300:].mean() < 0.4


def test_class_weights_multiply_the_gradient(tmp_path: Path) -> None:
    """One update of plain SGD with weight 3 is three times that with weight 1."""
    steps = []
    for weight in (1.0, 3.0):
        learning = {
            **QUICK,
            "class_weights": {"b": weight, "a": weight},
            "optimizer": {"kind": "sgd", "learning_rate": 0.001, "global_clipnorm": None},
        }
        pipeline = make_pipeline(
            settings(tmp_path, task={"kind": "classification", "classes": ["b", "a"]}, learning=learning)
        )
        before = arrays(pipeline)["model/output/bias"].copy()
        learn(pipeline, classified(1))
        steps.append(arrays(pipeline)["model/output/bias"] - before)
    np.testing.assert_allclose(steps[1], 3 * steps[0], rtol=1e-4)


def test_balanced_weights_are_inverse_to_how_often_a_class_came(tmp_path: Path) -> None:
    """n / (classes * n_class), each sample counted among those so far."""
    learning = {**QUICK, "class_weights": "balanced"}
    pipeline = make_pipeline(settings(tmp_path, task={"kind": "classification"}, learning=learning))
    samples = classified(4)
    labels = np.array(["x", "x", "x", "y"], dtype=object)
    batch = Batch(make_samples(samples.x, samples.y, labels=labels), (), {}, 4, 0)
    weights = pipeline.transforms(batch).samples.weights
    assert weights is not None
    np.testing.assert_allclose(weights, [1.0, 1.0, 1.0, 4 / (2 * 1)])


def test_layer_rates_scale_the_step_of_their_layers_alone(tmp_path: Path) -> None:
    """A factor of 0.25 under Adam is a quarter of the step, whatever the optimizer divides by."""
    steps = {}
    for factor in (1.0, 0.25):
        learning = {**QUICK, "layer_rates": {"output": factor}}
        pipeline = make_pipeline(settings(tmp_path, learning=learning))
        learn(pipeline, numbers(40))
        before = arrays(pipeline)
        learn(pipeline, numbers(1, seed=5))
        after = arrays(pipeline)
        first = make_pipeline(settings(tmp_path, learning=learning))
        start = arrays(first)
        learn(first, numbers(3))
        steps[factor] = arrays(first)["model/output/bias"] - start["model/output/bias"]
        assert any(np.any(before[n] != after[n]) for n in before if n.startswith("model/output"))
    assert 0.0 < abs(float(steps[0.25][0])) < 0.5 * abs(float(steps[1.0][0]))


def test_passes_are_as_many_updates(tmp_path: Path) -> None:
    """Three passes over a sample equal three updates on it, as far as the weights go."""
    fixed = {"scaling": {"inputs": "none", "target": "none"}}
    thrice = make_pipeline(settings(tmp_path, learning={**QUICK, "passes": 3}, **fixed))
    once = make_pipeline(settings(tmp_path, learning=QUICK, **fixed))
    sample = numbers(1)
    learn(thrice, sample)
    for _ in range(3):
        learn(once, sample)
    names = [name for name in arrays(once) if name.startswith(("model/dense", "model/output"))]
    assert names
    for name in names:
        np.testing.assert_allclose(arrays(thrice)[name], arrays(once)[name], rtol=1e-5, atol=1e-7)


def test_replayed_samples_are_those_seen_before(tmp_path: Path) -> None:
    """A reservoir of everything so far holds each sample once; a ring holds the newest."""
    for kind, expected in (("reservoir", range(30)), ("recency", range(20, 30))):
        size = 40 if kind == "reservoir" else 10
        learning = {**QUICK, "replay": {"kind": kind, "size": size}}
        pipeline = make_pipeline(settings(tmp_path, learning=learning))
        samples = numbers(30)
        learn(pipeline, samples)
        held = arrays(pipeline)["replay/x"][: len(expected)]
        assert sorted(held[:, 0].tolist()) == sorted(samples.x[list(expected), 0].tolist())


def test_a_reservoir_is_an_even_choice_of_all(tmp_path: Path) -> None:
    """The mean position of what it holds is the middle of the stream, not its end."""
    learning = {**QUICK, "replay": {"size": 200}}
    pipeline = make_pipeline(settings(tmp_path, learning=learning))
    samples = numbers(2000)
    learn(pipeline, samples)
    position = {float(value): i for i, value in enumerate(samples.x[:, 0])}
    held = [position[float(value)] for value in arrays(pipeline)["replay/x"][:, 0]]
    assert 850 < np.mean(held) < 1150
    assert len(set(held)) == 200


def test_elastic_pull_keeps_weights_near_their_average(tmp_path: Path) -> None:
    """With the pull the live weights end closer to the averaged ones."""
    distances = []
    for elastic in (0.0, 0.5):
        learning = {**QUICK, "elastic": elastic, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
        pipeline = make_pipeline(settings(tmp_path, learning=learning))
        learn(pipeline, numbers(395))
        live = [v.numpy() for v in pipeline.model.averaged._network.averaged_weights()]
        distances.append(
            sum(float(np.abs(a - b).sum()) for a, b in zip(live[:4], pipeline.model.averaged.weights(), strict=False))
        )
    assert distances[1] < distances[0]


def test_thawing_falls_on_its_sample_whatever_the_cutting(tmp_path: Path) -> None:
    """Until then the frozen layer keeps its bits, afterwards it learns; a restart in between changes nothing."""
    freeze = {"layers": ["dense_0"], "until_samples": 100}
    options = settings(tmp_path, learning=QUICK, model={"kind": "mlp", "hidden": [8], "freeze": freeze})
    whole, cut, restarted = (make_pipeline(options) for _ in range(3))
    start = arrays(whole)["model/dense_0/kernel"].copy()
    samples = numbers(160)
    learn(whole, samples)
    learn(cut, samples.take(slice(0, 100)), [37])
    np.testing.assert_array_equal(arrays(cut)["model/dense_0/kernel"], start)
    copy(cut, restarted)
    learn(restarted, samples.take(slice(100, 160)), [1])
    assert same_arrays(arrays(whole), arrays(restarted)) == []
    assert (arrays(whole)["model/dense_0/kernel"] != start).any()


def test_freezing_everything_is_refused(tmp_path: Path) -> None:
    """With the way out."""
    model = {"kind": "mlp", "hidden": [8], "freeze": {"layers": ["*"]}}
    with pytest.raises(ConfigError, match=r"model\.freeze: nothing is left to learn"):
        make_pipeline(settings(tmp_path, model=model))


def test_an_unknown_layer_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    """In freeze and in layer_rates."""
    model = {"kind": "mlp", "hidden": [8], "freeze": {"layers": ["dens_0"]}}
    with pytest.raises(ConfigError, match=r"model\.freeze\.layers: .*'dens_0'; the model has dense_0, output"):
        make_pipeline(settings(tmp_path, model=model))
    with pytest.raises(ConfigError, match=r"learning\.layer_rates: .*'nothing'"):
        make_pipeline(settings(tmp_path, learning={"layer_rates": {"nothing": 0.1}}))


def test_predictions_are_made_without_dropout(tmp_path: Path) -> None:
    """What is predicted before learning is what would have been served."""
    pipeline = make_pipeline(
        settings(
            tmp_path, learning=QUICK, averaging={"kind": "none"}, model={"kind": "mlp", "hidden": [8], "dropout": 0.5}
        )
    )
    samples = numbers(60)
    learn(pipeline, samples.take(slice(0, 50)))
    expected = pipeline.model.averaged.predict(samples.x[50:51], pipeline.model.averaged.weights())["prediction"]
    (result,) = learn(pipeline, samples.take(slice(50, 51)))
    np.testing.assert_allclose(result.predictions, expected, rtol=1e-5)


def test_the_random_state_of_dropout_is_in_the_checkpoint(tmp_path: Path) -> None:
    """Keras leaves it out of its own files; without it a restart would drop other units."""
    options = settings(tmp_path, learning=QUICK, model={"kind": "mlp", "hidden": [8], "dropout": 0.5})
    pipeline = make_pipeline(options)
    names = [name for name in arrays(pipeline) if "seed" in name]
    assert names
    before = [arrays(pipeline)[name].copy() for name in names]
    learn(pipeline, numbers(3))
    assert all((arrays(pipeline)[name] != old).any() for name, old in zip(names, before, strict=True))


def test_averaged_batch_normalisation_has_the_statistics_of_the_averaged_weights(tmp_path: Path) -> None:
    """Its outputs are those of a network with the averaged weights that ran over the same stream itself.

    The mean of the live networks' statistics, which is what averaging all variables alike would give, is another model:
    here its squared error was 0.36, that of the true statistics 0.007, and ours 0.015.
    """
    model = {"kind": "mlp", "hidden": [8, 8], "normalization": "batch"}
    optimizer = {"kind": "adam", "learning_rate": 0.05}
    learning = {**QUICK, "mode": "micro_batch", "batch_size": 16, "optimizer": optimizer}
    averaging = {"kind": "window", "size": 40, "every_samples": 160, "warmup": 1.0}
    options = settings(tmp_path, model=model, learning=learning, averaging=averaging)
    pipeline = make_pipeline(options)
    network, stream = pipeline.model.averaged._network, numbers(16 * 400)
    of_live = []
    for start in range(0, len(stream), 160):
        learn(pipeline, stream.take(slice(start, start + 160)))
        of_live.append([v.numpy() for v in network.statistics()])
    state = pipeline.model.averaged.weights()
    first, last = len(network.averaged_weights()), len(network.averaged_weights()) + len(of_live[0])

    # The truth: hold the averaged weights still, and let statistics settle over the whole stream.
    other = make_pipeline(options).model.averaged._network
    for variable, value in zip(other.averaged_weights(), state, strict=False):
        variable.assign(value)
    for start in [*range(0, len(stream), 16)] * 2:
        rows = slice(start, start + 16)
        other.predict_and_loss(tf.constant(stream.x[rows]), tf.constant(stream.y[rows]), training=True)

    def error(statistics: Sequence[Any]) -> float:
        answers = pipeline.model.averaged.predict(stream.x[-500:], [*state[:first], *statistics, *state[last:]])
        return float(np.square(answers["prediction"] - stream.y[-500:]).mean())

    true = error([v.numpy() for v in other.statistics()])
    ours = error(state[first:last])
    naive = error([np.mean(column, axis=0) for column in zip(*of_live, strict=True)])
    assert ours < true + 0.1 * (naive - true), (true, ours, naive)


class _Plain(keras.optimizers.SGD):  # type: ignore[misc]
    """Stands for an optimizer of the user's."""


def absolute(targets: Any, outputs: Any) -> Any:
    """A loss of the user's."""
    return tf.abs(targets - outputs)


def scalar(targets: Any, outputs: Any) -> Any:
    """One number for all rows: no loss that can be used."""
    return tf.reduce_mean(tf.abs(targets - outputs))


def own_update(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    """A GradientTape of the user's."""
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(model(x, training=True) - y))
    optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return loss


def test_losses_optimizers_and_updates_of_the_users(tmp_path: Path) -> None:
    """``package.module:object``; the own update does what ours does, to the last bit."""
    here = "tests.unit.test_learning"
    learning = {**QUICK, "loss": f"{here}:absolute", "optimizer": {"kind": f"{here}:_Plain", "learning_rate": 0.01}}
    pipeline = make_pipeline(settings(tmp_path, learning=learning))
    results = learn(pipeline, numbers())
    assert results[0].losses[-50:].mean() < 0.5 * results[0].losses[5:55].mean()

    plain = {**QUICK, "optimizer": {"kind": "adam"}}
    ours = make_pipeline(settings(tmp_path, learning=plain))
    own = make_pipeline(settings(tmp_path, learning={**plain, "update": f"{here}:own_update"}))
    learn(ours, numbers(100))
    learn(own, numbers(100))
    for name, value in arrays(ours).items():
        np.testing.assert_allclose(value, arrays(own)[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("learning", "message"),
    [
        ({"loss": "tests.unit.test_learning:scalar"}, r"learning\.loss: scalar gives shape \(\) for 3 rows"),
        ({"loss": "nowhere.at_all:loss"}, r"learning\.loss: nowhere\.at_all cannot be imported"),
        ({"loss": "tests.unit.test_learning:missing"}, r"learning\.loss: .* has no missing"),
        ({"optimizer": {"kind": "tests.unit.test_learning:absolute"}}, r"optimizer\.kind: .* not a subclass"),
        ({"update": "tests.unit.test_learning:nothing"}, r"learning\.update: .* has no nothing"),
    ],
)
def test_wrong_objects_of_the_users_are_named(learning: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Before the stream is joined, with the key and the way out."""
    with pytest.raises(ConfigError, match=message):
        make_pipeline(settings(tmp_path, learning=learning))


def test_a_reconstruction_replays_rows_without_targets() -> None:
    """There is no column of targets to store; the rows are their own."""
    learning = {"mode": "per_sample", "compile": False, "replay": {"kind": "reservoir", "size": 8}}
    sections = {"task": {"kind": "reconstruction"}, "target": None, "model": {"kind": "autoencoder"}}
    learner = LearnerOfRows(features=3, learning=learning, **sections)
    x = np.random.default_rng(0).normal(size=(30, 3))
    result = learner.learn(x, np.empty((30, 0)))
    assert np.isfinite(result.losses).all()
    state = learner.state()
    assert int(state["replay/stored"]) == 30
    assert all(any(np.array_equal(row, seen) for seen in x) for row in state["replay/x"])
