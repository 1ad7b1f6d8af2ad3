"""How old the newest published weights are while one export follows another, at 50 000, 1000 and 20 records a second.

The installed daemon, from the simulator, MLP 32-16 with Adam, SavedModel and TensorFlow Lite.
`python -m tests.bench.export_lag [EXPORTS]`
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.bench.sides import median, show, spread
from tests.support.helpers import Daemon, config_text

RATES_PER_S = (50_000, 1000, 20)


def _lag(rate_per_s: int, count: int) -> list[list[object]]:
    """Rows of the table, of *count* exports at so many records a second."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "lag.yaml"
        config.write_text(
            config_text(
                Path(folder) / "data",
                source={"kind": "simulator", "rate_per_s": rate_per_s},
                features=["temperature", "pressure", "vibration", "current", "speed", "torque"],
                target="wear",
                model={"kind": "mlp", "hidden": [32, 16]},
                averaging={"kind": "window", "size": 20, "every_samples": 100},
                checkpoint={"every_seconds": 30},
                export={"every_seconds": 0.5, "formats": ["saved_model", "tflite"]},
            )
        )
        behind, durations_s, ages_s, rates = [], [], [], []
        with Daemon(config, installed=True) as daemon:
            started_s, before = time.monotonic(), 0.0
            for number in range(1, count + 1):
                event = daemon.wait_for("export_published", count=number)[-1]
                learned, now_s = daemon.metric("learnd_model_samples") or 0.0, time.monotonic()
                if number > 1:  # the first interval holds the start
                    rates.append((learned - before) / (now_s - started_s))
                    ages_s.append(durations_s[-1] + now_s - started_s)
                behind.append(learned - event["samples"])
                durations_s.append(float(event["duration_s"]))
                started_s, before = now_s, learned
            daemon.terminate()
    figures = {
        "samples learned a second": rates,
        "age of the weights when they are published, s": durations_s,
        "age just before the next ones are, s": ages_s,
        "samples that the published weights are behind": behind,
    }
    return [[f"{rate_per_s} a second: {what}", median(found), spread(found)] for what, found in figures.items()]


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    rows = [row for rate_per_s in RATES_PER_S for row in _lag(rate_per_s, count)]
    show("Export lag", ["what", "median", "least to most"], rows)


if __name__ == "__main__":
    main()
