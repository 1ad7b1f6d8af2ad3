"""One thread or all cores for an update, by size of the network. `python -m tests.bench.threads`

TensorFlow settles its threads once per process, so each side is a process of its own; they run in turn.
"""

import json
import subprocess
import sys
import time

from tests.bench.sides import interleave, median, show  # isort: skip - sets the log level

import numpy as np
import tensorflow as tf

from learnd.averaging.none import NoAverager
from learnd.averaging.settings import NoneSettings
from learnd.learners.averaged import AveragedModel
from learnd.learners.chunk import CompiledChunk, Groups
from learnd.learners.guard import Guard
from learnd.learners.optimizer import make_optimizer
from learnd.learners.settings import OptimizerSettings
from learnd.learners.update import Update, UpdateOptions
from learnd.models.core import CoreSpec
from learnd.models.mlp import mlp
from learnd.models.settings import MlpSettings
from learnd.tasks.network import NetworkSpec
from learnd.tasks.regression import RegressionNetwork

WIDTHS = ([32, 16], [128, 64], [300, 200], [1000, 900])
ROUNDS = 3


def measure(threads: int, hidden: list[int]) -> tuple[float, float]:
    """Wall and processor microseconds a sample, in this process."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    network = RegressionNetwork(mlp(MlpSettings(kind="mlp", hidden=hidden), CoreSpec((64,), 1)), NetworkSpec((64,), 1))
    optimizer = make_optimizer(OptimizerSettings())
    optimizer.build(network.trainable_variables)
    averaged = AveragedModel(network, NoAverager(NoneSettings(kind="none")))
    update = Update(
        network, optimizer, averaged, Guard(network, averaged, max_step=1.0, max_refused=100), UpdateOptions()
    )
    chunk = CompiledChunk(network, update, averaged, batch_rows=1, targets=1)
    rows = max(20, min(chunk.groups, 2_000_000 // network.count_params()))
    x = np.random.default_rng(0).normal(size=(rows, 64)).astype(np.float32)
    groups = Groups.of_single_rows(x, x[:, :1])
    chunk(groups)
    calls = 10
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for _ in range(calls):
        chunk(groups)
    per_sample = 1e6 / (calls * rows)
    return (time.perf_counter() - wall_s) * per_sample, (time.process_time() - cpu_s) * per_sample


def _child(threads: int, hidden: list[int]) -> list[float]:
    command = [sys.executable, "-m", "tests.bench.threads", str(threads), json.dumps(hidden)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Print the table, or as a child one measurement."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]), json.loads(sys.argv[2]))))
        return
    rows = []
    for hidden in WIDTHS:
        cpu: dict[int, list[float]] = {1: [], 0: []}

        def side(threads: int, hidden: list[int] = hidden, cpu: dict[int, list[float]] = cpu) -> float:
            wall_us, cpu_us = _child(threads, hidden)
            cpu[threads].append(cpu_us)
            return wall_us

        figures = interleave({"one": lambda s=side: s(1), "all": lambda s=side: s(0)}, rounds=ROUNDS)
        one, everyone = median(figures["one"]), median(figures["all"])
        rows.append([str(hidden), one, everyone, median(cpu[1]), median(cpu[0]), everyone / one])
    columns = ["hidden", "one thread, us", "all cores, us", "one, cpu us", "all, cpu us", "all / one, wall"]
    show("Threads for one Adam update a sample", columns, rows)


if __name__ == "__main__":
    main()
