"""A whole daemon among clients that mean no good."""

import statistics
from pathlib import Path

from tests.helpers import Daemon, config_text, until
from tests.slow_clients import SlowClients, scrapes


def _threads(daemon: Daemon) -> int:
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


def test_500_slow_connections_hold_up_neither_scrapes_nor_learning(tmp_path: Path) -> None:
    """Every scrape is answered, the slow ones are dropped, and the daemon learns on and ends in time.

    The bound is the client's five seconds; what a scrape takes is measured by `tests/bench/slow_connections.py`.
    """
    config = tmp_path / "config.yaml"
    features = ["temperature", "pressure", "vibration"]
    config.write_text(config_text(tmp_path / "data", source={"kind": "simulator"}, features=features, target="wear"))
    with Daemon(config) as daemon:
        until(lambda: (daemon.metric("learnd_samples_learned_total") or 0) > 1000, what="learning")
        threads = _threads(daemon)
        with SlowClients(daemon.port, 500) as slow:
            took_s = scrapes(daemon.port, 120)
            assert slow.connected == 500
            assert _threads(daemon) < threads + 10
            samples = daemon.metric("learnd_samples_learned_total") or 0
            until(lambda: slow.dropped >= 500, what="the end of the slow ones", timeout_s=60)
            until(lambda: (daemon.metric("learnd_samples_learned_total") or 0) > samples, what="more samples")
            assert daemon.get("/livez")[0] == daemon.get("/readyz")[0] == 200
            daemon.terminate()
        print(f"p99 of {len(took_s)} scrapes: {statistics.quantiles(took_s, n=100)[98]:.3f} s")
