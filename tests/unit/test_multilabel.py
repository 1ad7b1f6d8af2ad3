"""Independent labels: learned as Keras learns them, evaluated label by label, and only from 0 and 1."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from learnd.core.errors import ConfigError
from learnd.evaluation.labels import LabelEvaluation
from learnd.runtime.loop import run
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, settings
from tests.support.learning import LearnerOfRows
from tests.support.user_models import functional

LABELS = ("hot", "loud", "wet")
BATCH: dict[str, Any] = {"mode": "micro_batch", "batch_size": 8, "compile": False}
LOSSES = {
    "sigmoid": (layers.Activation("sigmoid"), "binary_crossentropy"),
    "logits": (lambda z: z, keras.losses.BinaryCrossentropy(from_logits=True)),
    "smoothed": (ops.sigmoid, keras.losses.BinaryCrossentropy(label_smoothing=0.2)),
}


def _stream(count: int, seed: int = 0) -> tuple[Any, Any]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(count, 4)).astype(np.float32)
    y = (x[:, :3] + 0.3 * draw.normal(size=(count, 3)) > [0.0, 1.0, -0.5]).astype(np.float64)
    return x, y


@pytest.mark.parametrize("kind", LOSSES)
def test_a_model_with_several_sigmoids_learns_on_as_in_keras(kind: str, tmp_path: Path) -> None:
    """By its own loss, whether it answers logits or probabilities."""
    end, loss = LOSSES[kind]
    keras.utils.set_random_seed(3)
    model = functional(3, end)
    model.compile(keras.optimizers.SGD(0.5), loss)
    model.save(tmp_path / "model.keras")
    learner = LearnerOfRows(
        features=4,
        target=list(LABELS),
        task={"kind": "multilabel"},
        model={"load": str(tmp_path / "model.keras")},
        learning=BATCH,
        averaging={"kind": "none"},
    )
    x, y = _stream(64)
    expected = []
    for start in range(0, 64, 8):
        expected.append(model.predict_on_batch(x[start : start + 8]))
        model.train_on_batch(x[start : start + 8], y[start : start + 8])
    answers = np.concatenate(expected)
    answers = 1.0 / (1.0 + np.exp(-answers)) if kind == "logits" else answers
    np.testing.assert_allclose(learner.learn(x, y).predictions, answers, rtol=1e-4, atol=1e-5)


def test_exclusive_outputs_are_no_independent_labels(tmp_path: Path) -> None:
    functional(3, layers.Softmax()).save(tmp_path / "model.keras")
    model = {"load": str(tmp_path / "model.keras")}
    with pytest.raises(ConfigError, match=r"exclude each other.*classification"):
        LearnerOfRows(features=4, target=list(LABELS), task={"kind": "multilabel"}, model=model, learning=BATCH)


def test_only_labels_between_0_and_1_are_learned(tmp_path: Path) -> None:
    """Each prediction names its labels."""
    options = settings(
        tmp_path, target=list(LABELS), task={"kind": "multilabel"}, learning={"mode": "per_sample", "compile": False}
    )
    labels = [(0, 1, 1), (2, 0, 0), (0, -1, 0), (1, 0, 0)]
    records = [json.dumps({"a": 1, "b": 2, "c": 3, **dict(zip(LABELS, row, strict=True))}).encode() for row in labels]
    collected: list[Any] = []
    pipeline = make_pipeline(options, source=MemorySource(records), collected=collected)
    run(pipeline, stopping=lambda: False)
    assert pipeline.status.rejected == {"out_of_range": 2}
    assert [row["truth"] for row in collected] == [
        {"hot": 0.0, "loud": 1.0, "wet": 1.0},
        {"hot": 1.0, "loud": 0.0, "wet": 0.0},
    ]
    assert set(collected[0]["prediction"]) == set(LABELS)


def test_figures_are_those_of_the_definitions() -> None:
    """Over all samples; of the naive forecast too. The state continues, wherever the stream is cut."""
    draw = np.random.default_rng(2)
    _, y = _stream(500)
    predictions = np.clip(0.7 * y + 0.3 * draw.random((500, 3)), 0.0, 1.0)
    predictions[::7] = 1.0 - predictions[::7]
    averaged = np.full_like(predictions, 0.5)
    whole, first = LabelEvaluation(LABELS), LabelEvaluation(LABELS)
    whole.observe(make_samples(np.zeros((500, 4)), y), predictions, averaged)
    first.observe(make_samples(np.zeros((123, 4)), y[:123]), predictions[:123], averaged[:123])
    second = LabelEvaluation(LABELS)
    second.restore(first.state())
    second.observe(make_samples(np.zeros((377, 4)), y[123:]), predictions[123:], averaged[123:])
    assert second.quality() == whole.quality()

    total, true, live = whole.quality().total, y > 0.5, predictions >= 0.5
    hits, positive, predicted = (true & live).sum(axis=0), true.sum(axis=0), live.sum(axis=0)
    p = predictions.clip(1e-7, 1.0 - 1e-7)
    expected = {
        "label_accuracy": (true == live).mean(),
        "subset_accuracy": (true == live).all(axis=1).mean(),
        "log_loss": -(y * np.log(p) + (1.0 - y) * np.log(1.0 - p)).mean(),
        "brier": np.square(predictions - y).mean(),
        "macro_f1": (2 * hits / (positive + predicted)).mean(),
        "micro_f1": 2 * hits.sum() / (positive + predicted).sum(),
        "averaged_log_loss": np.log(2.0),
    }
    assert {name: total.measures[name] for name in expected} == pytest.approx(expected)
    assert total.parts["loud"]["recall"] == pytest.approx(hits[1] / positive[1])
    assert total.parts["loud"]["precision"] == pytest.approx(hits[1] / predicted[1])
    shares = np.cumsum(y, axis=0)[:-1] / np.arange(1, 500)[:, None]
    naive = np.where(y[1:] > 0.5, shares, 1.0 - shares).clip(1e-4, 1.0 - 1e-4)
    assert total.errors.naive == pytest.approx(-np.log(naive).mean())
    assert total.errors.samples == 499
