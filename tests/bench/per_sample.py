"""One per-sample update of a 16-32-16-1 MLP: the compiled chunk against an eager GradientTape loop.

"Same work" is the eager loop over the same network (standardisers, clipping, prediction before the update); the
compiled side averages the weights and judges the averaged ones besides. "Plain" is the textbook's eager loop: dense
layers, mean squared error, nothing else. `python -m tests.bench.per_sample`
"""

from typing import Any

from tests.bench.sides import interleave, median, seconds, show, spread  # isort: skip - sets the log level

import numpy as np
import tensorflow as tf

from learnd.averaging.settings import WindowSettings
from learnd.averaging.window import WindowAverager
from learnd.learners.averaged import AveragedModel
from learnd.learners.chunk import CompiledChunk, Groups
from learnd.learners.guard import Guard
from learnd.learners.optimizer import make_optimizer
from learnd.learners.settings import OptimizerSettings, PerSampleSettings
from learnd.learners.update import Update, UpdateOptions
from learnd.models.core import CoreSpec
from learnd.models.mlp import mlp
from learnd.models.settings import MlpSettings
from learnd.tasks.network import NetworkSpec
from learnd.tasks.regression import RegressionNetwork
from learnd.wiring.learner import configure_tensorflow

COMPILED_CHUNKS, EAGER_ROWS, ROUNDS = 40, 60, 7


def _parts(optimizer: OptimizerSettings) -> tuple[Any, Any]:
    core = mlp(MlpSettings(kind="mlp", hidden=[32, 16]), CoreSpec((16,), 1))
    network = RegressionNetwork(core, NetworkSpec((16,), 1))
    made = make_optimizer(optimizer)
    made.build(network.trainable_variables)
    return network, made


def compare(optimizer: OptimizerSettings) -> list[object]:
    """One row of the table."""
    random = np.random.default_rng(0)
    network, made = _parts(optimizer)
    averager = WindowAverager(WindowSettings(kind="window"))
    averager.build(network.averaged_weights())
    averaged = AveragedModel(network, averager)
    update = Update(network, made, averaged, Guard(network, averaged, max_step=1.0, max_refused=100), UpdateOptions())
    chunk = CompiledChunk(network, update, averaged, batch_rows=1, targets=1)
    x = random.normal(size=(chunk.groups, 16)).astype(np.float32)
    y = x[:, :1] * 2
    groups = Groups.of_single_rows(x, y)
    eager_network, eager_optimizer = _parts(optimizer)
    rows = [(tf.constant(x[i][None]), tf.constant(y[i][None])) for i in range(EAGER_ROWS)]

    def compiled() -> float:
        return seconds(lambda: [chunk(groups) for _ in range(COMPILED_CHUNKS)]) / (COMPILED_CHUNKS * chunk.groups) * 1e6

    def one(x_i: Any, y_i: Any) -> None:
        with tf.GradientTape() as tape:
            losses = eager_network.predict_and_loss(x_i, y_i, training=True).losses
            loss = tf.reduce_mean(losses)
        variables = eager_network.trainable_variables
        eager_optimizer.apply(tape.gradient(loss, variables), variables)
        eager_network.observe(x_i, y_i)

    def eager() -> float:
        return seconds(lambda: [one(*row) for row in rows]) / EAGER_ROWS * 1e6

    plain_network, plain_optimizer = _parts(optimizer)

    def one_plain(x_i: Any, y_i: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(plain_network.core(x_i, training=True) - y_i))
        variables = plain_network.trainable_variables
        plain_optimizer.apply(tape.gradient(loss, variables), variables)

    def plain() -> float:
        return seconds(lambda: [one_plain(*row) for row in rows]) / EAGER_ROWS * 1e6

    compiled(), eager(), plain()
    figures = interleave({"compiled": compiled, "eager": eager, "plain": plain}, rounds=ROUNDS)
    ratios = [e / c for e, c in zip(figures["eager"], figures["compiled"], strict=True)]
    plain_ratios = [e / c for e, c in zip(figures["plain"], figures["compiled"], strict=True)]
    clip = "none" if optimizer.global_clipnorm is None else "global norm"
    medians = [median(figures[name]) for name in ("compiled", "eager", "plain")]
    return [optimizer.kind, clip, *medians, f"{median(ratios):.0f} ({spread(ratios)})", f"{median(plain_ratios):.0f}"]


def main() -> None:
    """Print the table."""
    configure_tensorflow(PerSampleSettings(mode="per_sample"))
    table = [
        compare(OptimizerSettings(kind=kind, global_clipnorm=clip)) for kind in ("sgd", "adam") for clip in (None, 5.0)
    ]
    columns = [
        "optimizer",
        "clipping",
        "compiled, us a sample",
        "same work",
        "plain",
        "same work / compiled",
        "plain / compiled",
    ]
    show("Per-sample update, MLP 16-32-16-1", columns, table)


if __name__ == "__main__":
    main()
