"""The daemon as a process, on a disk that is full or lies, and beside a second one."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from learnd.checkpoint import files as checkpoint_files
from tests.support.helpers import Daemon, config_text, fill, run_cli, small_disk, until

LIVE: dict[str, Any] = {
    "features": ["temperature"],
    "target": "wear",
    "source": {"kind": "simulator", "rate_per_s": 300},
    "checkpoint": {"every_seconds": None, "every_samples": 50},
}


def _config(folder: Path, data_dir: Path, **sections: Any) -> Path:
    config = folder / "config.yaml"
    config.write_text(config_text(data_dir, **{**LIVE, **sections}))
    return config


def _newest(data_dir: Path) -> list[int]:
    return sorted(int(path.stem.partition("-")[2]) for path in (data_dir / "checkpoints").glob("ckpt-*.index"))


def test_a_full_disk_turns_readiness_red_and_recovers(tmp_path: Path) -> None:
    """503 with the reason, a metric, the old checkpoint intact; with room again all is saved, and no line is lost."""
    with small_disk(tmp_path / "disk", 16 << 20) as disk:
        lines = disk / "predictions.jsonl"
        checkpoint = {**LIVE["checkpoint"], "give_up_seconds": None, "retry_seconds": 0.2}
        config = _config(tmp_path, disk / "data", checkpoint=checkpoint, predictions={"path": str(lines)})
        with Daemon(config) as daemon:
            until(lambda: len(_newest(disk / "data")) > 2, what="checkpoints")
            assert daemon.get("/readyz")[0] == 200
            filler = fill(disk)
            until(lambda: daemon.get("/readyz")[0] == 503, what="red readiness")
            kept = _newest(disk / "data")
            learned = daemon.metric("learnd_samples_learned_total") or 0
            until(lambda: (daemon.metric("learnd_checkpoint_consecutive_failures") or 0) > 2, what="failures")
            assert "No space left" in daemon.get("/readyz")[1]
            assert daemon.get("/livez")[0] == 200
            assert _newest(disk / "data") == kept
            until(lambda: (daemon.metric("learnd_samples_learned_total") or 0) > learned, what="learning going on")
            filler.unlink()
            until(lambda: daemon.get("/readyz")[0] == 200, what="green readiness")
            assert daemon.metric("learnd_checkpoint_consecutive_failures") == 0
            daemon.terminate()
            samples = daemon.events("finished")[-1]["model_samples"]
        assert [json.loads(line)["offset"] for line in lines.read_text().splitlines()] == list(range(samples))


def test_a_full_disk_ends_learning_as_configured(tmp_path: Path) -> None:
    """Exit code 74 after three failures in a row, and the last checkpoint is there to go on from."""
    with small_disk(tmp_path / "disk", 16 << 20) as disk:
        checkpoint = {**LIVE["checkpoint"], "max_failures": 3, "retry_seconds": 0.1}
        config = _config(tmp_path, disk / "data", checkpoint=checkpoint)
        with Daemon(config) as daemon:
            until(lambda: len(_newest(disk / "data")) > 2, what="checkpoints")
            fill(disk)
            daemon.finish(code=74)
            stopped = daemon.events("stopped")[-1]["error"]
            assert "in 3 attempts (checkpoint.max_failures)" in stopped
            assert "No space left" in stopped
        directory = disk / "data" / "checkpoints"
        assert {checkpoint_files.damage(directory, number) for number in _newest(disk / "data")} == {""}


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def test_a_damaged_newest_checkpoint_is_told_and_passed_over(tmp_path: Path) -> None:
    """``inspect`` shows which are sound; the start counts and logs; all damaged is exit code 66, naming them."""
    data_dir = tmp_path / "data"
    config = _config(tmp_path, data_dir)
    with Daemon(config) as daemon:
        until(lambda: len(_newest(data_dir)) > 2, what="checkpoints")
        daemon.kill()
    *_, before, newest = _newest(data_dir)
    _flip(data_dir / "checkpoints" / f"ckpt-{newest}.data-00000-of-00001")
    shown = json.loads(run_cli("inspect", str(data_dir)).stdout)["checkpoints"]
    assert [(one["number"], one["sound"]) for one in shown[:2]] == [(newest, False), (before, True)]
    assert "SHA-256" in shown[0]["damage"]
    sound = shown[1]
    assert sound["offsets"] == [["simulator", 0, sound["records"]]]
    assert sound["samples"] == sound["records"] > 0
    assert sound["bytes"] > 0
    assert sound["saved_at"].startswith("20")
    with Daemon(config) as daemon:
        until(lambda: daemon.metric("learnd_checkpoints_damaged_total") == 1, what="the metric")
        assert f"ckpt-{newest}" in daemon.events("checkpoint_damaged")[-1]["path"]
        restored = daemon.wait_for("state_restored")[-1]
        assert (restored["samples"], restored["offsets"]) == (sound["samples"], {"simulator/0": sound["records"]})
        daemon.kill()
    for number in (left := _newest(data_dir)):
        _flip(data_dir / "checkpoints" / f"ckpt-{number}.data-00000-of-00001")
    with Daemon(config) as daemon:
        daemon.finish(code=66)
        error = daemon.events("stopped")[-1]["error"]
        assert all(f"ckpt-{number}" in error for number in left)
    assert _newest(data_dir) == left, "nothing was begun afresh"


def test_a_second_daemon_ends_within_two_seconds_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    """Exit code 75, before anything heavy is imported, and before anything in the data_dir is touched."""
    config = _config(tmp_path, tmp_path / "data")
    program = (
        "import sys\nfrom learnd.cli.main import main\n"
        f"code = main(['run', {str(config)!r}])\n"
        "heavy = {'tensorflow', 'keras', 'kafka', 'numpy', 'rich'} & set(sys.modules)\n"
        "assert code == 75 and not heavy, (code, heavy)\n"
    )
    with Daemon(config) as first:
        first.wait_for("checkpoint_saved")
        took_s: list[float] = []
        while min(took_s, default=math.inf) >= 2.0 and len(took_s) < 10:  # the machine may be busy with other things
            started_s = time.monotonic()
            second = run_cli("run", str(config))
            took_s.append(time.monotonic() - started_s)
            assert second.returncode == 75
            assert f"in use by process {first.process.pid}" in second.stderr
        assert min(took_s) < 2.0, took_s
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        first.kill()
        with Daemon(config) as third:
            third.wait_for("state_restored")
            third.terminate()
