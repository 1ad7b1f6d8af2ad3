"""Scrapes of a daemon that learns as fast as it can, alone and beside connections that are slow on purpose.

Half of those are silent, half send a byte every half second, and all come again when they are dropped.
`python -m tests.bench.slow_connections [SCRAPES]`
"""

import statistics
import sys
import tempfile
from pathlib import Path

from tests.bench.sides import show
from tests.support.helpers import Daemon, config_text, until
from tests.support.slow_clients import SlowClients, scrapes

CONNECTIONS = (0, 500, 2000)


def main() -> None:
    """Print the table."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        features = ["temperature", "pressure", "vibration"]
        source = {"kind": "simulator"}
        config.write_text(config_text(Path(folder) / "data", source=source, features=features, target="wear"))
        with Daemon(config, installed=True) as daemon:
            until(lambda: (daemon.metric("learnd_samples_learned_total") or 0) > 10_000, what="learning")
            for connections in CONNECTIONS:
                with SlowClients(daemon.port, connections) as slow:
                    took_s = sorted(scrapes(daemon.port, count))
                    p99 = statistics.quantiles(took_s, n=100)[98]
                rows.append([connections, slow.dropped, statistics.median(took_s), p99, took_s[-1]])
    columns = ["slow connections", "dropped meanwhile", "scrape, median s", "p99 s", "longest s"]
    show(f"{count} scrapes of a daemon that learns", columns, rows)


if __name__ == "__main__":
    main()
