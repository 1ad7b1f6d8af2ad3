"""The compiled update: exact order, whatever the chunks; what is predicted is predicted before it is learned."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from learnd.core.types import Samples, TopicPartition
from learnd.learners.chunk import CHUNK_ROWS
from learnd.runtime.loop import Pipeline
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, same_arrays, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

ROWS = 200


def _samples(count: int, *, features: int = 3, targets: int = 1, seed: int = 0) -> Samples:
    random = np.random.default_rng(seed)
    x = (random.normal(size=(count, features)) * 5 + 20).astype(np.float32)
    y = (x[:, :targets] * 2 + random.normal(size=(count, targets))).astype(np.float32)
    return make_samples(x, y, times_s=np.arange(count) * 60.0)


def _pipeline(tmp_path: Path, **sections: Any) -> Pipeline:
    return make_pipeline(settings(tmp_path, **sections))


def _arrays(pipeline: Pipeline) -> dict[str, Any]:
    return {name: variable.numpy() for name, variable in pipeline.saving.checkpoints._live.items()}


def _learn(pipeline: Pipeline, samples: Samples, cuts: Sequence[int]) -> tuple[np.ndarray[Any, Any], ...]:
    bounds = [0, *sorted(cuts), len(samples)]
    results = [pipeline.model.learner.learn(samples.take(slice(a, b))) for a, b in itertools.pairwise(bounds) if b > a]
    results = [result for result in results if len(result.samples)]
    return tuple(
        np.concatenate([getattr(result, name) for result in results])
        for name in ("predictions", "losses", "averaged_losses")
    )


@pytest.fixture
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    """Of one mode and averager; compiled once for all the cuttings of a test."""
    mode, averager = request.param
    # XLA takes seconds per case; the window, which has the most to do, has it on.
    learning: dict[str, Any] = {"mode": mode, "compile": averager == "window"}
    sections: dict[str, Any] = {"averaging": {"kind": averager}, "learning": learning}
    if averager != "none":
        sections["averaging"]["every_samples"] = 7
    if mode == "micro_batch":
        learning["batch_size"] = 8
    return _pipeline(tmp_path, **sections)


MODES = [(mode, averager) for mode in ("per_sample", "micro_batch") for averager in ("window", "ema", "none")]


@pytest.mark.parametrize("pipeline", MODES, ids="-".join, indirect=True)
@hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
@given(cuts=st.lists(st.integers(1, ROWS - 1), max_size=12))
def test_weights_do_not_depend_on_how_the_stream_is_cut(pipeline: Pipeline, cuts: list[int]) -> None:
    """Every variable, prediction and loss is equal to the last bit for any cutting."""
    samples = _samples(ROWS)
    start = _arrays(pipeline)
    results = _learn(pipeline, samples, [])
    whole = _arrays(pipeline)
    assert int(whole["learned"]) == ROWS
    _start_over(pipeline, start)
    results_cut = _learn(pipeline, samples, cuts)
    assert same_arrays(whole, _arrays(pipeline)) == []
    for one, other in zip(results, results_cut, strict=True):
        np.testing.assert_array_equal(one, other)
    _start_over(pipeline, start)


def _start_over(pipeline: Pipeline, start: dict[str, Any]) -> None:
    """Everything that a checkpoint holds is again what it was at the *start*."""
    for name, variable in pipeline.saving.checkpoints._live.items():
        variable.assign(start[name])
    pipeline.model.learner.restore({"actions": {"pending": [], "done": []}})


def test_chunks_larger_than_one_call_keep_the_order(tmp_path: Path) -> None:
    """A batch of several compiled calls gives what single samples give."""
    samples = _samples(CHUNK_ROWS * 2 + 17)
    pipeline = _pipeline(tmp_path)
    start = _arrays(pipeline)
    _learn(pipeline, samples, [])
    whole = _arrays(pipeline)
    _start_over(pipeline, start)
    _learn(pipeline, samples, list(range(100, len(samples), 331)))
    assert same_arrays(whole, _arrays(pipeline)) == []
    assert pipeline.model.retraces() == 0


def test_a_sample_is_predicted_before_it_is_learned(tmp_path: Path) -> None:
    """The prediction of a sample is that of the weights as they were before it."""
    pipeline = _pipeline(tmp_path, averaging={"kind": "none"})
    samples = _samples(50)
    pipeline.model.learner.learn(samples.take(slice(0, 49)))
    weights = pipeline.model.averaged.weights()
    before = pipeline.model.averaged.predict(samples.x[49:], weights)["prediction"]
    result = pipeline.model.learner.learn(samples.take(slice(49, 50)))
    np.testing.assert_allclose(result.predictions, before, rtol=1e-5)
    after = pipeline.model.averaged.predict(samples.x[49:], pipeline.model.averaged.weights())["prediction"]
    assert abs(float(after[0, 0] - before[0, 0])) > 0


def test_averaged_loss_is_that_of_the_averaged_weights(tmp_path: Path) -> None:
    """The second loss of a sample is what the averaged model of that moment would have made of it."""
    pipeline = _pipeline(tmp_path, averaging={"kind": "window", "size": 3, "every_samples": 10, "warmup": 1.0})
    samples = _samples(41)
    pipeline.model.learner.learn(samples.take(slice(0, 40)))
    predicted = pipeline.model.averaged.predict(samples.x[40:], pipeline.model.averaged.weights())["prediction"]
    scale = _arrays(pipeline)["model/target/scale"]
    result = pipeline.model.learner.learn(samples.take(slice(40, 41)))
    expected = np.square((predicted - samples.y[40:]) * scale).mean()
    np.testing.assert_allclose(result.averaged_losses[0], expected, rtol=1e-4)
    assert result.averaged_losses[0] != result.losses[0]


@pytest.mark.parametrize(("mode", "batch_size"), [("per_sample", 1), ("micro_batch", 16)])
def test_equals_a_plain_gradient_tape_loop(tmp_path: Path, mode: str, batch_size: int) -> None:
    """The compiled loop does what the eager loop of the textbook does, sample by sample."""
    learning: dict[str, Any] = {"mode": mode, "optimizer": {"kind": "adam", "learning_rate": 0.01}}
    if mode == "micro_batch":
        learning["batch_size"] = batch_size
    compiled = _pipeline(tmp_path, learning=learning, averaging={"kind": "none"})
    eager = _pipeline(tmp_path, learning=learning, averaging={"kind": "none"})
    samples = _samples(64)
    compiled.model.learner.learn(samples)
    chunk = eager.model.learner._chunk  # type: ignore[attr-defined]
    network, optimizer = chunk._network, chunk._update_rows.optimizer
    for start in range(0, 64, batch_size):
        x, y = samples.x[start : start + batch_size], samples.y[start : start + batch_size]
        with tf.GradientTape() as tape:
            losses = network.predict_and_loss(tf.constant(x), tf.constant(y), training=True).objective
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, network.trainable_variables), network.trainable_variables)
        network.observe(tf.constant(x), tf.constant(y))
        if network.scales_due():
            network.renew_scales()
        chunk.learned.assign_add(batch_size)
    for name, value in _arrays(compiled).items():
        np.testing.assert_allclose(value, _arrays(eager)[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_micro_batch_waits_for_its_last_sample(tmp_path: Path) -> None:
    """An incomplete group is neither learned nor lost, and survives a restore of the learner's state."""
    learning = {"mode": "micro_batch", "batch_size": 8, "compile": False}
    first, second = _pipeline(tmp_path, learning=learning), _pipeline(tmp_path, learning=learning)
    samples = _samples(12)
    assert len(first.model.learner.learn(samples).samples) == 8
    second.model.learner.restore(first.model.learner.state())
    result = second.model.learner.learn(_samples(4, seed=1))
    assert result.samples.offsets.tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    assert result.samples.origins[0] == TopicPartition("t", 0)


def test_snapshot_does_not_change_while_learning_goes_on(tmp_path: Path) -> None:
    """Nothing is copied for a snapshot or a save; TensorFlow must therefore not write to a value that is held."""
    pipeline = _pipeline(tmp_path)
    samples = _samples(500)
    pipeline.model.learner.learn(samples)
    live = pipeline.saving.checkpoints._live
    held = {name: variable.read_value() for name, variable in live.items()}
    weights = pipeline.model.averaged.weights()
    copies = {name: np.array(value.numpy()) for name, value in held.items()}
    weight_copies = [np.array(weight) for weight in weights]
    for _ in range(3):
        pipeline.model.learner.learn(samples)
    assert same_arrays({name: value.numpy() for name, value in held.items()}, copies) == []
    assert all(np.array_equal(a, b) for a, b in zip(weights, weight_copies, strict=True))
    assert not np.array_equal(pipeline.model.averaged.weights()[0], weight_copies[0])
