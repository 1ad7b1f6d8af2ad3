"""What every model and task owes: XLA in both modes, a falling loss, one compilation, and exports that agree."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.core.types import Samples
from learnd.export.formats import EXPORTERS
from learnd.export.verify import largest_difference, spread_of
from learnd.wiring.pipeline import make_pipeline
from tests.support.exports import candidate_of
from tests.support.helpers import make_samples, settings

# model, task, mode
CASES = [
    ("linear", "regression", "per_sample"),
    ("linear", "forecast", "micro_batch"),
    ("mlp", "regression", "micro_batch"),
    ("mlp", "forecast", "per_sample"),
    ("mlp", "reconstruction", "per_sample"),
    ("autoencoder", "reconstruction", "per_sample"),
    ("autoencoder", "reconstruction", "micro_batch"),
    ("mlp", "classification", "per_sample"),
    ("mlp", "multilabel", "per_sample"),
    ("lstm", "forecast", "per_sample"),
    ("lstm", "regression", "micro_batch"),
    ("gru", "forecast", "micro_batch"),
    ("gru", "regression", "per_sample"),
    ("conv1d", "forecast", "per_sample"),
    ("conv1d", "reconstruction", "micro_batch"),
    ("tcn", "forecast", "per_sample"),
    ("tcn", "regression", "micro_batch"),
]
SLOW = {
    ("mlp", "reconstruction", "per_sample"),
    ("linear", "forecast", "micro_batch"),
    ("mlp", "forecast", "per_sample"),
    ("autoencoder", "reconstruction", "micro_batch"),
    ("lstm", "regression", "micro_batch"),
    ("gru", "regression", "per_sample"),
    ("conv1d", "reconstruction", "micro_batch"),
    ("tcn", "regression", "micro_batch"),
}
"""Each model and each mode have a quicker case."""
WINDOWED = {"lstm", "gru", "conv1d", "tcn"}


def _sections(model: str, task: str, mode: str) -> dict[str, Any]:
    windowed = task == "forecast" or model in WINDOWED
    return {
        "model": {"kind": model},
        "task": {"kind": task, **({"window": 6} if windowed else {})},
        "target": {"regression": "y", "classification": "y", "multilabel": ["y", "z"]}.get(task),
        "learning": {"mode": mode, "optimizer": {"kind": "adam", "learning_rate": 0.01}},
    }


def _stream(row_shape: tuple[int, ...], targets: int, task: str, count: int) -> Samples:
    """Rows that can be learned: correlated features on raw scales, the target or next reading a function of them."""
    random = np.random.default_rng(0)
    hidden = random.normal(size=(count, *row_shape[:-1], 1))
    x = hidden * [1.0, -2.0, 0.5] + 0.1 * random.normal(size=(count, *row_shape))
    x = (x * [3.0, 400.0, 0.02] + [20.0, 101_325.0, -1.0]).astype(np.float32)
    newest = x.reshape(count, -1)[:, -3:]
    oldest = x.reshape(count, -1)[:, :3]
    y = oldest if task == "forecast" else newest[:, :targets] * 3.0
    if task == "classification":
        y = (newest[:, :1] > 20.0).astype(np.float32)
    if task == "multilabel":
        y = (newest[:, :2] > [20.0, 101_725.0]).astype(np.float32)
    return make_samples(x, np.ascontiguousarray(y[:, :targets]))


@pytest.mark.parametrize(
    ("model", "task", "mode"),
    [pytest.param(*case, id="-".join(case), marks=pytest.mark.slow if case in SLOW else ()) for case in CASES],
)
def test_learns_and_exports(model: str, task: str, mode: str, tmp_path: Path) -> None:
    """The loss falls by half, in one compilation; exports answer as the live averaged model does."""
    options = settings(tmp_path, **_sections(model, task, mode))
    pipeline = make_pipeline(options)
    network = pipeline.model.averaged._network
    targets = {"regression": 1, "classification": 1, "multilabel": 2, "forecast": 3, "reconstruction": 0}[task]
    count = 3000 if mode == "per_sample" else 20_000
    samples = _stream(network.row_shape, targets, task, count)
    losses = np.concatenate(
        [pipeline.model.learner.learn(samples.take(slice(i, i + 700))).losses for i in range(0, count, 700)]
    )
    assert np.isfinite(losses).all()
    assert losses[-500:].mean() < 0.5 * losses[10:310].mean()
    assert pipeline.model.retraces() == 0

    x, weights = samples.x[-32:].astype(np.float32), pipeline.model.averaged.weights()
    wanted = pipeline.model.averaged.predict(x, weights)
    for name in ("saved_model", "tflite"):
        implementation = EXPORTERS[name].load()()
        target = tmp_path / implementation.file_name
        implementation.write(candidate_of(pipeline, x, unroll=implementation.unroll), target)
        reader = implementation.reader(target)
        largest_difference(name, reader(x), wanted, spread_of(wanted), tolerance=1e-4)
        reader.check(x)
