"""How exports do on what came after them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from learnd.core.types import Float32Array, StepResult
from learnd.evaluation.export_loss import ROWS, FrozenForward
from learnd.export_worker.worker import build_export
from learnd.sources.memory import MemorySource, Pause
from tests.support.helpers import SAVED_MODEL, make_samples, readings, step_result
from tests.unit.test_loop import _learn_until, _make


def _result(values: list[float]) -> StepResult:
    column = np.array(values, np.float32)[:, None]
    return step_result(make_samples(column, column), column, column[:, 0])


def _first_column(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
    column: Float32Array = x[:, 0]
    return column, y


def test_the_newest_rows_of_each_batch_are_judged() -> None:
    """Nothing before there is an export; a new export begins anew; no single row hides all others."""
    forward = FrozenForward()
    assert math.isnan(forward.observe(_result([1.0])))
    assert forward.published() is None
    forward.begin(7, _first_column)
    assert math.isnan(forward.observe(_result([])))
    assert forward.observe(_result([9.0] * 10 + [2.0] * ROWS)) == 2.0
    assert forward.observe(_result([1.0, 3.0])) == 2.0
    published = forward.published()
    assert published is not None
    assert (published.number, published.loss, published.samples) == (7, 2.0, ROWS + 2)
    forward.observe(_result([1.0]))
    forward.begin(8, _first_column)
    assert forward.published() is None
    forward.observe(_result([math.nan, math.inf]))
    published = forward.published()
    assert published is not None
    assert published.loss == 1e12
    forward.begin(9, None)
    assert math.isnan(forward.observe(_result([1.0] * ROWS)))


def test_single_samples_wait_for_others() -> None:
    """A judgement takes as long as learning one; all are judged once there are enough of them, each once."""
    calls = []

    def losses(x: Float32Array, y: Float32Array) -> tuple[Float32Array, Float32Array]:
        calls.append(len(x))
        return _first_column(x, y)

    forward = FrozenForward()
    forward.begin(1, losses)
    told = [forward.observe(_result([float(i)])) for i in range(2 * ROWS + 1)]
    assert calls == [ROWS, ROWS]
    assert math.isnan(told[ROWS - 2])
    assert told[ROWS - 1] == np.mean(range(ROWS))
    assert told[-1] == np.mean(range(2 * ROWS))
    published = forward.published()
    assert published is not None
    assert (published.loss, published.samples) == (ROWS, 2 * ROWS + 1)
    assert calls == [ROWS, ROWS, 1]


def test_what_is_told_of_an_export_is_what_its_users_have(tmp_path: Path) -> None:
    """The published SavedModel's own error on the samples after it; in the metrics, and in the next manifest.

    On the scale of the day, as all other losses are, for the target may spread more by now.
    """
    later = [json.dumps({**value, "y": 5 * value["y"]}).encode() for value in map(json.loads, readings(ROWS, seed=1))]
    source = MemorySource([*readings(200), Pause(), *later])
    pipeline = _make(tmp_path, source, export=SAVED_MODEL)
    pipeline.publishing.exporter._build = lambda building, urgent: build_export(building)  # type: ignore[method-assign]

    def publish() -> Path:
        pipeline.export()
        assert pipeline.publishing.exporter.wait(60)
        pipeline.collect_outcomes()
        assert pipeline.publishing.last is not None
        return tmp_path / "exports" / str(pipeline.publishing.last.number)

    assert pipeline.open()
    try:
        _learn_until(pipeline, 200)
        first = publish()
        _learn_until(pipeline, 200 + ROWS)
        told = pipeline.metrics.registry.get_sample_value("learnd_export_loss")
        spread = pipeline.model.averaged._network.target_scaler.spread.numpy()
        second = publish()
    finally:
        pipeline.close()
    values = [json.loads(value) for value in later]
    x = np.array([[value[name] for name in "abc"] for value in values], np.float32)
    y = np.array([[value["y"]] for value in values], np.float32)
    answers = tf.saved_model.load(str(first / "saved_model")).signatures["serving_default"](inputs=tf.constant(x))
    assert spread > 1.5 * np.array(json.loads((first / "learnd.json").read_text())["scaling"]["target"]["spread"])
    expected = float(np.square((answers["prediction"].numpy() - y) / spread).mean())
    assert told == pytest.approx(expected, rel=1e-3)
    parent = json.loads((second / "learnd.json").read_text())["parent"]
    assert (parent["number"], parent["samples_since"]) == (int(first.name), ROWS)
    assert parent["loss_since"] == pytest.approx(told)
    card = (second / "MODEL_CARD.md").read_text()
    assert f"a loss of {parent['loss_since']:.4g} on {ROWS} samples that arrived after it" in card
    assert json.loads((first / "learnd.json").read_text())["parent"] is None
