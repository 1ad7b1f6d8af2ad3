"""A daemon that runs for long: memory, threads, files, metric series, throughput and disk must stay as they are.

The installed command learns from the simulator (100 million samples or an hour, whichever ends first; bounded otherwise
by the arguments) while it checkpoints and exports; this process looks at it from outside every few seconds. The first
fifth is warm-up. `python -m tests.bench.soak [SECONDS [SAMPLES]]`
"""

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.sides import show
from tests.support.helpers import Daemon, config_text

LOOK_S = 5.0
KEEP = 3


def _configure(folder: Path, samples: int) -> Path:
    config = folder / "soak.yaml"
    config.write_text(
        config_text(
            folder / "data",
            source={"kind": "simulator", "records": samples},
            features=["temperature", "pressure", "vibration", "current", "speed", "torque"],
            target="wear",
            model={"kind": "mlp", "hidden": [32, 16]},
            averaging={"kind": "window", "size": 20, "every_samples": 100},
            checkpoint={"every_seconds": 30, "keep": KEEP},
            export={"every_seconds": 60, "keep": KEEP},
        )
    )
    return config


def _status(process_id: int, field: str) -> int:
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    found = [int(line.split()[1]) for line in lines if line.startswith(f"{field}:")]
    if not found:
        raise ProcessLookupError(process_id)  # it has ended, and nobody has fetched its status yet
    return found[0]


def _processor_s(process_id: int) -> float:
    """Processor time that the daemon has used: beside other load, samples a second of it say more than of the clock."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def look(daemon: Daemon, data: Path) -> dict[str, float]:
    """What there is to see now."""
    process_id = daemon.process.pid
    return {
        "at_s": time.monotonic(),
        "processor_s": _processor_s(process_id),
        "memory_mib": _status(process_id, "VmRSS") / 1024,
        "threads": _status(process_id, "Threads"),
        "files": len(list(Path(f"/proc/{process_id}/fd").iterdir())),
        "series": sum(not line.startswith("#") for line in daemon.get("/metrics")[1].splitlines()),
        "samples": daemon.metric("learnd_model_samples") or 0.0,
        "checkpoints": len(list((data / "checkpoints").glob("ckpt-*.index"))),
        "exports": len([path for path in (data / "exports").glob("*") if path.name.isdigit()]),
    }


def rows(seen: list[dict[str, float]]) -> list[list[Any]]:
    """The table: each promise with what was seen after the warm-up."""
    columns = {name: np.array([one[name] for one in seen[len(seen) // 5 :]]) for name in seen[0]}
    hours = (columns["at_s"] - columns["at_s"][0]) / 3600
    slope = np.polyfit(hours, columns["memory_mib"], 1)[0]
    table: list[list[Any]] = [
        ["samples", "10^8, or one hour", f"{columns['samples'][-1]:.3g} in {hours[-1]:.2f} h after the warm-up"],
        ["memory, MiB an hour", "under 1", float(slope)],
        ["memory, MiB", "", f"{columns['memory_mib'].min():.0f} to {columns['memory_mib'].max():.0f}"],
        ["samples a second, second half", "within 5 %", _drift(columns["samples"], columns["at_s"])],
        ["samples a second of processor time", "within 5 %", _drift(columns["samples"], columns["processor_s"])],
    ]
    for name, promise in (
        ("threads", "constant"),
        ("files", "constant"),
        ("series", "constant"),
        ("checkpoints", f"at most {KEEP + 1}"),
        ("exports", f"at most {KEEP + 1}"),
    ):
        table.append([name, promise, f"{columns[name].min():.0f} to {columns[name].max():.0f}"])
    return table


def _drift(samples: Any, seconds: Any) -> str:
    """How much the median rate of the second half differs from that of the first."""
    rates = np.diff(samples) / np.diff(seconds)
    first, second = (float(np.median(part)) for part in np.array_split(rates, 2))
    return f"{100 * (second / first - 1):+.1f} %, {first:.0f} to {second:.0f}"


def main() -> None:
    """Print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3600.0
    samples = int(float(sys.argv[2])) if len(sys.argv) > 2 else 10**8
    with tempfile.TemporaryDirectory() as folder:
        config = _configure(Path(folder), samples)
        seen = []
        with Daemon(config, installed=True) as daemon:
            daemon.wait_for("http_listening")
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s and daemon.process.poll() is None:
                time.sleep(LOOK_S)
                with contextlib.suppress(OSError):  # it ended while we looked, having learned everything
                    seen.append(look(daemon, Path(folder) / "data"))
            if daemon.process.poll() is None:
                daemon.terminate()
            assert daemon.process.returncode == 0, daemon.log()
    show("A long run", ["what", "promise", "seen"], rows(seen))


if __name__ == "__main__":
    main()
