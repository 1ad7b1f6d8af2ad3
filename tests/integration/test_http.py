"""A whole daemon among clients that mean no good."""

import resource
import statistics
from pathlib import Path

from tests.support.helpers import Daemon, config_text, until
from tests.support.slow_clients import SlowClients, scrapes


def _threads(daemon: Daemon) -> int:
    lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Threads:"))


def _learning(folder: Path) -> Daemon:
    """A daemon that learns as fast as it can, and saves four times a second."""
    config = folder / "config.yaml"
    features = ["temperature", "pressure", "vibration"]
    checkpoint = {"every_seconds": 0.25}
    config.write_text(
        config_text(
            folder / "data",
            source={"kind": "simulator"},
            features=features,
            target="wear",
            checkpoint=checkpoint,
        )
    )
    return Daemon(config)


def _learns_and_saves(daemon: Daemon) -> None:
    for name in ("learnd_samples_learned_total", "learnd_checkpoints_total"):
        before = daemon.metric(name) or 0
        until(lambda name=name, before=before: (daemon.metric(name) or 0) > before, what=f"more {name}")  # type: ignore[misc]
    assert daemon.metric("learnd_checkpoint_failures_total") == 0
    assert daemon.get("/livez")[0] == daemon.get("/readyz")[0] == 200


def test_500_slow_connections_hold_up_neither_scrapes_nor_learning(tmp_path: Path) -> None:
    """Every scrape is answered, the slow ones are dropped, and the daemon learns on and ends in time.

    The bound is the client's five seconds; what a scrape takes is measured by `tests/bench/slow_connections.py`.
    """
    with _learning(tmp_path) as daemon:
        _learns_and_saves(daemon)
        threads = _threads(daemon)
        with SlowClients(daemon.port, 500) as slow:
            took_s = scrapes(daemon.port, 120)
            assert slow.connected == 500
            assert _threads(daemon) < threads + 10
            until(lambda: slow.dropped >= 500, what="the end of the slow ones", timeout_s=60)
            _learns_and_saves(daemon)
            daemon.terminate()
        print(f"p99 of {len(took_s)} scrapes: {statistics.quantiles(took_s, n=100)[98]:.3f} s")


def test_more_connections_than_files_may_be_open_take_none_from_checkpoints(tmp_path: Path) -> None:
    """With room for 700 files, 900 slow connections get no more than 512 of them."""
    with _learning(tmp_path) as daemon:
        _learns_and_saves(daemon)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (700, 700))
        with SlowClients(daemon.port, 900) as slow:
            scrapes(daemon.port, 20)
            assert slow.dropped > 0
            _learns_and_saves(daemon)
            daemon.terminate()
