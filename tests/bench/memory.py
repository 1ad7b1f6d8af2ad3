"""Resident memory over ten million simulated samples, and the slope after warm-up.

The whole pipeline runs (simulator, decoding, windowed averaging, checkpoints; exports go on in their own process).
`python -m tests.bench.memory [SAMPLES]`
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.bench.sides import show  # isort: skip - sets the log level

import numpy as np

from learnd.config.loader import loads
from learnd.runtime.loop import run
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import config_text

SAMPLES, POINTS, WARM_UP = 10_000_000, 40, 0.25


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    """Print the table."""
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else SAMPLES
    points: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        text = config_text(
            Path(folder),
            source={"kind": "simulator", "records": samples},
            decode={"kind": "json", "time": "ts", "key": "machine"},
            features=["temperature", "pressure", "vibration", "current", "speed", "torque"],
            target="wear",
            checkpoint={"every_seconds": 10},
            export={"every_seconds": 60},
        )
        settings = loads(text)
        configure_tensorflow(settings.learning)
        pipeline = make_pipeline(settings)

        def note() -> None:
            if pipeline.progress.samples >= (len(points) + 1) * samples // POINTS:
                points.append((pipeline.progress.samples, resident_mib()))

        run(pipeline, stopping=lambda: False, on_batch=note)
    warm = np.array([point for point in points if point[0] >= WARM_UP * samples])
    slope = np.polyfit(warm[:, 0] / 1e6, warm[:, 1], 1)[0]
    show("Resident memory", ["samples", "MiB"], [*points[:: POINTS // 8], points[-1]])
    print(f"\nslope after warm-up: {slope:+.3f} MiB per million samples")


if __name__ == "__main__":
    main()
