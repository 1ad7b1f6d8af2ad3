"""How long a checkpoint, or an export, of a 1M-parameter model holds up learning, against one copy of its weights.

The stall is what `Pipeline.save` takes on the learner's thread. The state holds the weights, two Adam slots and a
ring of 20 snapshots (some 100 MB); writing it happens on a thread while learning goes on. Of an export the snapshot
is taken there, and the request is written on its thread; nothing is built.
`python -m tests.bench.checkpoint`
"""

import tempfile
from pathlib import Path

from tests.bench.sides import interleave, median, seconds, show, spread  # isort: skip - sets the log level

import numpy as np

from learnd.config.loader import loads
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import config_text, readings

ROUNDS = 7


def _not_here(*_: object) -> None:
    raise RuntimeError("what building costs is tests/bench/export.py's to say")


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "readings.jsonl"
        path.write_bytes(b"".join(value + b"\n" for value in readings(400)))
        text = config_text(
            Path(folder) / "data",
            source={"kind": "file", "path": str(path)},
            model={"kind": "mlp", "hidden": [1000, 1000]},
            averaging={"kind": "window", "size": 20, "every_samples": 100},
        )
        pipeline = make_pipeline(loads(text))
        pipeline.open()
        batch = None
        while batch is None:
            batch = pipeline.reader.next(timeout_s=1.0)
        pipeline.learn(batch)
        weights = [variable.value for variable in pipeline.model.averaged._variables]

        def copy() -> float:
            return seconds(lambda: [np.array(weight.numpy()) for weight in weights]) * 1e3

        def save() -> float:
            pipeline.saving.checkpoints.wait()
            return seconds(pipeline.save) * 1e3

        def write() -> float:
            pipeline.saving.checkpoints.wait()
            saved = pipeline.saving.checkpoints.outcome()
            assert saved is not None
            assert saved.error is None
            return saved.duration_s * 1e3

        def export() -> float:
            assert pipeline.publishing.exporter.wait(60)
            pipeline.publishing._started_samples = 0
            return seconds(pipeline.export) * 1e3

        pipeline.publishing.exporter._build = _not_here
        sides = {"copy": copy, "save": save, "write": write, "export": export}
        for side in sides.values():
            side()
        figures = interleave(sides, rounds=ROUNDS)
        pipeline.close()
    names = {
        "copy": "one copy of the weights",
        "save": "stall of the learner by a save",
        "write": "the save, on its thread",
        "export": "stall of the learner by an export",
    }
    count = sum(int(np.prod(weight.shape)) for weight in weights)
    rows = [[names[name], median(values), spread(values)] for name, values in figures.items()]
    show(f"Checkpoint of {count:,} weights", ["what", "ms", "ms, least to most"], rows)


if __name__ == "__main__":
    main()
