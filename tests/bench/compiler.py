"""The level at which XLA optimises an update: the time to compile it, and the time of a sample.

`python -m tests.bench.compiler`

XLA reads its options once per process, so each side is a process of its own; they run in turn. Times are processor
time, least of several calls.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

LEVELS = ("3", "1")
"""XLA's own default, and learnd's."""
ROWS, CALLS, ROUNDS = 2048, 6, 2
CASES: dict[str, dict[str, Any]] = {
    "mlp, one learner": {"learning": {"mode": "per_sample"}},
    "mlp 128-64, 16 features": {"learning": {"mode": "per_sample"}, "model": {"kind": "mlp", "hidden": [128, 64]}},
    "mlp 128-64, micro-batches": {"learning": {"mode": "micro_batch"}, "model": {"kind": "mlp", "hidden": [128, 64]}},
    "mlp, auto": {},
    "mlp, auto, two classes": {"task": {"kind": "classification"}},
    "gru, forecast": {
        "learning": {"mode": "per_sample"},
        "model": {"kind": "gru"},
        "task": {"kind": "forecast", "window": 12},
        "target": None,
    },
}


def measure(name: str) -> tuple[float, float]:
    """Return the seconds to trace and compile, and the microseconds per sample, in this process."""
    import numpy as np  # noqa: PLC0415 - only a child needs it

    from learnd.wiring.learner import configure_tensorflow  # noqa: PLC0415 - TensorFlow
    from tests.support.learning import LearnerOfRows  # noqa: PLC0415 - TensorFlow

    sections = CASES[name]
    features = 16 if "16" in name else 3
    learner = LearnerOfRows(features=features, **sections)
    configure_tensorflow(learner.settings.learning)
    rng = np.random.default_rng(0)
    shape = (ROWS, 12, features) if "forecast" in name else (ROWS, features)
    x = rng.normal(size=shape)
    y = rng.normal(size=(ROWS, features)) if "forecast" in name else (x.sum(axis=1) > 0).astype(float)
    start_s = time.process_time()
    learner.learn(x[:32], y[:32])
    compiled_s, least_s = time.process_time() - start_s, float("inf")
    for _ in range(CALLS):
        start_s = time.process_time()
        learner.learn(x, y)
        least_s = min(least_s, time.process_time() - start_s)
    return compiled_s, least_s / ROWS * 1e6


def _child(name: str, level: str) -> list[float]:
    environ = {**os.environ, "XLA_FLAGS": f"--xla_backend_optimization_level={level}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "tests.bench.compiler", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environ)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    """Print a row per model: least of the rounds."""
    print("| model | compile at 3 | at 1 | ratio | us a sample at 3 | at 1 | ratio |\n|---|---|---|---|---|---|---|")
    for name in CASES:
        rounds = [{level: _child(name, level) for level in LEVELS} for _ in range(ROUNDS)]
        (slow_s, slow_us), (quick_s, quick_us) = (
            [min(one[level][i] for one in rounds) for i in range(2)] for level in LEVELS
        )
        print(
            f"| {name} | {slow_s:.1f} s | {quick_s:.1f} s | {quick_s / slow_s:.2f} | "
            f"{slow_us:.1f} | {quick_us:.1f} | {quick_us / slow_us:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
