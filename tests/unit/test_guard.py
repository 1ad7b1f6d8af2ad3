"""An update that would break the model is refused inside the compiled step, counted, and at last rolled back from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.checkpoint.reading import read_arrays
from learnd.runtime.loop import Pipeline
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import readings, settings
from tests.unit.test_learning import QUICK, arrays, learn, numbers
from tests.unit.test_loop import _run

pytestmark = pytest.mark.usefixtures("shared_traces")

RAW = {"inputs": "none", "target": "none"}


def _pipeline(tmp_path: Path, **sections: Any) -> Pipeline:
    return make_pipeline(settings(tmp_path, **sections))


def _poisoned(count: int, at: int) -> Any:
    """Well-formed numbers, one of them so large that the loss of a model on raw numbers is infinite."""
    samples = numbers(count)
    samples.x[at] = 3e38
    return samples


@pytest.mark.parametrize("compiled", [True, False])
def test_a_poisoned_sample_changes_no_weight(compiled: bool, tmp_path: Path) -> None:
    """The weights, live and averaged, are to the last bit what they were before it; the next sample is learned."""
    learning = {"compile": compiled, "optimizer": {"kind": "adam", "global_clipnorm": None}}
    pipeline = _pipeline(tmp_path, scaling=RAW, learning=learning, averaging={"kind": "ema", "every_samples": 1})
    samples = _poisoned(60, at=50)
    learn(pipeline, samples.take(slice(0, 50)))
    before = arrays(pipeline)
    (result,) = learn(pipeline, samples.take(slice(50, 51)))
    assert not np.isfinite(result.losses).all()
    after = arrays(pipeline)
    # The moments of targets are no weights: the target itself is sound, and observed.
    for name in [name for name in after if name.startswith("model/") and not name.startswith("model/target/")]:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert all(np.isfinite(value).all() for value in after.values())
    assert pipeline.model.refusals() == (1, 0)
    learn(pipeline, samples.take(slice(51, 60)))
    assert pipeline.model.refusals() == (1, 0)
    assert (arrays(pipeline)["model/output/kernel"] != after["model/output/kernel"]).any()


def test_without_the_guard_the_same_sample_would_break_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the test above can fail."""
    monkeypatch.setattr("learnd.learners.guard.Guard._are_sound", lambda *_: True)
    monkeypatch.setattr("learnd.learners.guard.Guard._is_small", lambda *_: True)
    learning = {**QUICK, "optimizer": {"kind": "adam", "global_clipnorm": None}}
    pipeline = _pipeline(tmp_path, scaling=RAW, learning=learning)
    learn(pipeline, _poisoned(60, at=50))
    assert not np.isfinite(arrays(pipeline)["model/output/kernel"]).all()


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_mad_learning_rate_never_reaches_the_averages(kind: str, tmp_path: Path) -> None:
    """Every step is too large: none is taken, each is counted, and the roll-back is said."""
    learning = {**QUICK, "optimizer": {"kind": kind, "learning_rate": 1e6}, "max_refused": 20}
    pipeline = _pipeline(tmp_path, learning=learning)
    start = arrays(pipeline)
    learn(pipeline, numbers(100), [13, 77])
    end = arrays(pipeline)
    refused, rollbacks = pipeline.model.refusals()
    assert refused >= 95  # the first samples have no spread yet, and so no gradient
    assert rollbacks == refused // 20
    assert np.abs(end["model/output/kernel"] - start["model/output/kernel"]).max() < 1.0
    assert all(np.isfinite(value).all() for value in end.values())


def test_a_roll_back_makes_the_weights_their_average(tmp_path: Path) -> None:
    """At the very sample at which the refusals in a row are too many, however the stream is cut."""
    ends = []
    for cuts in ([], [41, 43, 52]):
        learning = {**QUICK, "max_refused": 10, "optimizer": {"kind": "sgd", "learning_rate": 0.05}}
        averaging = {"kind": "window", "size": 4, "every_samples": 10, "warmup": 1.0}
        pipeline = _pipeline(tmp_path, scaling=RAW, learning=learning, averaging=averaging)
        samples = numbers(60)
        samples.x[45:58] = 3e38
        learn(pipeline, samples, cuts)
        ends.append(arrays(pipeline))
        assert pipeline.model.refusals() == (13, 1)
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name], err_msg=name)


def test_refusals_are_counted_logged_and_kept(tmp_path: Path) -> None:
    """In the metrics of this process, and in the checkpoint for ever; the prequential error stays a number."""
    values = readings(120)
    poisoned = {**json.loads(values[60]), "a": 3e38}
    values[60] = json.dumps(poisoned).encode()
    pipeline, _ = _run(tmp_path, values, scaling=RAW, learning=QUICK)
    text = "\n".join(str(metric) for metric in pipeline.metrics.registry.collect())
    assert "learnd_updates_refused" in text
    assert pipeline.metrics.refused._value.get() >= 1
    stored, state = read_arrays(tmp_path / "checkpoints")
    assert int(stored["guard/refused"]) == pipeline.model.refusals()[0]
    assert np.isfinite(state["evaluator"]["ring"]).all()
    assert np.isfinite(state["evaluator"]["total"])
    again = make_pipeline(settings(tmp_path, scaling=RAW, learning=QUICK), source=MemorySource([]))
    assert again.model.refusals() == (0, 0), "before it is opened"
