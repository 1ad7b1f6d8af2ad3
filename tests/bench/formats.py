"""What each format of an export costs: seconds to write and to load, bytes, and its error, for the built-in models.

Six simulated sensors, 3000 samples, each model exported once in every format. The error is in standard deviations of
the outputs, on 64 recent inputs that no format was fitted to: the largest, and of rounded formats the root mean square.
`python -m tests.bench.formats`
"""

import json
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.sides import show  # isort: skip - sets the log level

from learnd.export.formats import EXPORTERS
from tests.support.exports import learned

SENSORS = ["temperature", "pressure", "vibration", "current", "speed", "torque"]
WINDOW: dict[str, Any] = {"kind": "regression", "window": 24}
MODELS: dict[str, dict[str, Any]] = {
    "mlp 32-16": {"model": {"kind": "mlp", "hidden": [32, 16]}},
    "mlp 256-256": {"model": {"kind": "mlp", "hidden": [256, 256]}},
    "autoencoder": {"model": {"kind": "autoencoder"}, "task": {"kind": "reconstruction"}, "target": None},
    "lstm 32, 24 steps": {"model": {"kind": "lstm", "units": 32}, "task": WINDOW},
    "gru 32, 24 steps": {"model": {"kind": "gru", "units": 32}, "task": WINDOW},
    "conv1d, 24 steps": {"model": {"kind": "conv1d"}, "task": WINDOW},
    "tcn, 24 steps": {"model": {"kind": "tcn"}, "task": WINDOW},
}


def main() -> None:
    """Print the table."""
    rows = []
    for title, sections in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            learned(
                Path(folder),
                source={"kind": "simulator", "records": 3000},
                simulated=True,
                decode={"kind": "json", "time": "ts", "key": "machine"},
                features=SENSORS,
                **{"target": "wear", **sections},
                learning={"compile": True},
                export={"every_seconds": 3600, "formats": sorted(EXPORTERS), "tolerances": {"tflite_int8": 10.0}},
            )
            manifest = json.loads((Path(folder) / "exports" / "latest" / "learnd.json").read_text())
        for name, reason in manifest["unavailable"].items():
            rows.append([title, name, "", "", "", reason])
        for name, entry in manifest["formats"].items():
            error = entry["difference_of_allowed"] * entry["tolerance"]
            rows.append([title, name, entry["write_s"], entry["load_s"], entry["bytes"], f"{error:.2g}"])
    show("Formats", ["model", "format", "seconds to write", "to load", "bytes", "error"], rows)


if __name__ == "__main__":
    main()
