"""Every built-in model, per sample and in micro-batches of 32: the real learner against an eager GradientTape loop.

The eager loop does the same work on the same network (standardisers, clipping, penalty, prediction before the update)
save for the averaging, which the learner does besides. Sides take turns; ratios are medians over the rounds.
`python -m tests.bench.models [MODEL ...]`
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench.sides import interleave, median, seconds, show, spread  # isort: skip - sets the log level

import numpy as np
import tensorflow as tf

from learnd.core.types import Samples
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.model import make_model, make_optimizer_for
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, settings

MODELS = ("linear", "mlp", "autoencoder", "lstm", "gru", "conv1d", "tcn")
WINDOWED, WINDOW = {"lstm", "gru", "conv1d", "tcn"}, 32
BATCH, ROUNDS, COMPILED_ROWS, EAGER_UPDATES = 32, 5, 4096, 4


def _settings(folder: Path, model: str, mode: str, optimizer: str) -> Any:
    learning: dict[str, Any] = {"mode": mode, "optimizer": {"kind": optimizer, "learning_rate": 0.001}}
    if mode == "micro_batch":
        learning["batch_size"] = BATCH
    if model == "autoencoder":
        task: dict[str, Any] = {"kind": "reconstruction"}
    else:
        task = {"kind": "regression", **({"window": WINDOW} if model in WINDOWED else {})}
    model_options = {"hidden": [32, 16]} if model == "mlp" else {}
    return settings(
        folder,
        features=[f"f{i}" for i in range(4 if model in WINDOWED else 16)],
        target=None if model == "autoencoder" else "y",
        model={"kind": model, **model_options},
        task=task,
        learning=learning,
        averaging={"kind": "window", "size": 20, "every_samples": 100},
    )


def _samples(row_shape: tuple[int, ...], targets: int) -> Samples:
    x = np.random.default_rng(0).normal(size=(COMPILED_ROWS, *row_shape)).astype(np.float32)
    return make_samples(x, x.reshape(COMPILED_ROWS, -1)[:, :targets] * 2)


def _eager(options: Any, samples: Samples, rows: int) -> Callable[[], float]:
    """A side: microseconds a sample of the textbook's loop on the same network."""
    made = make_model(options)
    network, optimizer = made.network, make_optimizer_for(made, options.learning.optimizer)
    starts = range(0, EAGER_UPDATES * rows, rows)
    batches = [(tf.constant(samples.x[i : i + rows]), tf.constant(samples.y[i : i + rows])) for i in starts]

    def update(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            losses = network.predict_and_loss(x, y, training=True).losses
            total = tf.reduce_mean(losses) + network.penalty()
        variables = network.trainable_variables
        optimizer.apply(tape.gradient(total, variables), variables)
        network.observe(x, y)

    return lambda: seconds(lambda: [update(*batch) for batch in batches]) / (len(batches) * rows) * 1e6


def compare(model: str, mode: str, optimizer: str) -> list[object]:
    """One row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        options = _settings(Path(folder), model, mode, optimizer)
        pipeline = make_pipeline(options)
        row_shape = (WINDOW, len(options.features)) if model in WINDOWED else (len(options.features),)
        samples = _samples(row_shape, len(options.target))
        eager = _eager(options, samples, BATCH if mode == "micro_batch" else 1)

        def compiled() -> float:
            return seconds(lambda: pipeline.model.learner.learn(samples)) / len(samples) * 1e6

        compiled(), eager()
        figures = interleave({"compiled": compiled, "eager": eager}, rounds=ROUNDS)
    ratios = [e / c for e, c in zip(figures["eager"], figures["compiled"], strict=True)]
    medians = [median(figures[name]) for name in ("compiled", "eager")]
    return [model, mode, optimizer, *medians, f"{median(ratios):.0f} ({spread(ratios)})"]


MODES = ("per_sample", "micro_batch")


def _child(mode: str, models: list[str]) -> list[list[object]]:
    """The rows of one mode, from a process of their own: XLA is settled once per process."""
    command = [sys.executable, "-m", "tests.bench.models", "--mode", mode, *models]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Print the table, or as a child the rows of one mode."""
    if sys.argv[1:2] == ["--mode"]:
        mode, models = sys.argv[2], sys.argv[3:]
        with tempfile.TemporaryDirectory() as folder:
            configure_tensorflow(_settings(Path(folder), "linear", mode, "sgd").learning)
        print(json.dumps([compare(model, mode, kind) for model in models for kind in ("sgd", "adam")]))
        return
    rows = [row for mode in MODES for row in _child(mode, sys.argv[1:] or list(MODELS))]
    columns = ["model", "mode", "optimizer", "compiled, us a sample", "eager", "eager / compiled"]
    show(f"Updates of the built-in models (windows of {WINDOW}, micro-batches of {BATCH})", columns, rows)


if __name__ == "__main__":
    main()
