"""What several tests need: configurations, the installed command as a process, readings."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from learnd.config.loader import loads
from learnd.config.settings import Settings
from learnd.core.protocols import Source, Transform
from learnd.core.types import Batch, Float32Array, Samples, StepResult, TopicPartition
from tests.support import prefork

ROOT = Path(__file__).resolve().parents[2]
LEARND = Path(sys.executable).with_name("learnd")
WAIT_S = 120.0
PARTITION = TopicPartition("t", 0)
SAVED_MODEL: dict[str, Any] = {"formats": ["saved_model"], "rehearse": False}
"""The section ``export`` of tests that need an export; each takes seconds, so others have none."""


def settings(data_dir: Path, **sections: Any) -> Settings:
    """Small settings that work, with *sections* replaced (None takes one out)."""
    return loads(config_text(data_dir, **sections))


def config_text(data_dir: Path, **sections: Any) -> str:
    """The same as YAML."""
    values: dict[str, Any] = {
        "name": "test",
        "data_dir": str(data_dir),
        "source": {"kind": "simulator", "records": 2000},
        "decode": {"kind": "json"},
        "features": ["a", "b", "c"],
        "target": "y",
        "model": {"kind": "mlp", "hidden": [8]},
        "averaging": {"kind": "window", "size": 4, "every_samples": 10},
        "checkpoint": {"every_seconds": None, "every_samples": 100},
        "export": {"formats": []},
        "http": {"port": 0},
        **sections,
    }
    if isinstance(values.get("export"), dict):
        # A rehearsal costs seconds per start; tests/unit/test_rehearsal.py and the tests of the start have it.
        values["export"] = {"rehearse": False, **values["export"]}
    return yaml.safe_dump({key: value for key, value in values.items() if value is not None}, sort_keys=False)


def readings(count: int, *, seed: int = 0, features: str = "abc") -> list[bytes]:
    """JSON records with features a, b, c, a learnable target y, and a key k."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, len(features))) * [3.0, 10.0, 0.5] + [5.0, 100.0, -1.0]
    target = numbers[:, 0] * 2.0 - numbers[:, 1] * 0.1 + random.normal(size=count) * 0.1
    return [
        json.dumps({**dict(zip(features, row, strict=True)), "y": y, "k": f"m{i % 3}", "t": 60.0 * i}).encode()
        for i, (row, y) in enumerate(zip(numbers.tolist(), target.tolist(), strict=True))
    ]


def make_samples(
    x: Float32Array,
    y: Float32Array,
    *,
    first: int = 0,
    times_s: Any = None,
    keys: Sequence[str] | None = None,
    **columns: Any,
) -> Samples:
    """Rows as they come from `PARTITION`, with the offsets from *first* on; a second apart, and all of one machine."""
    count = len(x)
    offsets = np.arange(first, first + count)
    origins = np.empty(count, dtype=object)
    origins.fill(PARTITION)
    names = np.array(["k"] * count if keys is None else keys, dtype=object)
    stamps = np.array(offsets if times_s is None else times_s, float)
    return Samples(np.asarray(x, np.float64), np.asarray(y, np.float64), stamps, names, origins, offsets, **columns)


def step_result(
    samples: Samples, predictions: Float32Array, losses: Float32Array, averaged: Float32Array | None = None
) -> StepResult:
    """Return what learning all of *samples* might have given."""
    learned = np.ones(len(samples), np.bool_)
    averaged = losses if averaged is None else averaged
    return StepResult(
        samples, predictions, losses, averaged, np.zeros_like(predictions), learned, len(samples), 0.0, predictions
    )


def transformed(transform: Transform, batch: Batch) -> Batch:
    """Return *batch* after one transform."""
    return batch.with_(transform(batch))


def until(condition: Callable[[], Any], *, what: str, timeout_s: float = WAIT_S) -> Any:
    """The first true value of *condition*; fails with *what* was waited for."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {timeout_s} s for {what}")


def read_values(source: Source, count: int) -> list[bytes | None]:
    """The values of the next *count* records, or of some more."""
    values: list[bytes | None] = []

    def enough() -> bool:
        for block in source.poll(100, 0.2):
            values.extend(block.values)
        return len(values) >= count

    until(enough, what=f"{count} records", timeout_s=30)
    return values


class Daemon:
    """``learnd run`` in a process of its own.

    *installed* starts the command as users do. Else the process is forked after the imports, which saves some seconds
    of processor time (`tests.support.prefork`), unless *environ* has what acts before that.
    """

    process: subprocess.Popen[bytes] | prefork.ForkedProcess

    def __init__(
        self, config: Path, *arguments: str, environ: Mapping[str, str] | None = None, installed: bool = False
    ) -> None:
        self.log_path = config.with_suffix(".log")
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = ["run", str(config), *arguments]
        whole = {**os.environ, **(environ or {})}
        with self.log_path.open("ab") as log, Path(os.devnull).open() as nothing:
            if not installed and prefork.early(whole) == prefork.server().early:
                standard = (nothing.fileno(), log.fileno(), log.fileno())
                self.process = prefork.server().start(command, standard=standard, environ=whole, cwd=config.parent)
                return
            self.process = subprocess.Popen(
                [str(LEARND), *command],
                stdin=nothing,
                stdout=log,
                stderr=log,
                env=whole,
                cwd=config.parent,
            )

    def __enter__(self) -> "Daemon":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        """What this process has logged; an earlier one may have written to the same file."""
        return self.log_path.read_bytes()[self._log_start :].decode(errors="replace")

    def stray_lines(self) -> list[str]:
        """The lines of the log that are not JSON; there must be none unless text was asked for."""
        return [line for line in self.log().splitlines() if not line.startswith("{")]

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        return [event for event in map(json.loads, lines) if event["event"] == name]

    def wait_for(self, event: str, *, count: int = 1) -> list[dict[str, Any]]:
        """The events of that name in the log, once there are *count*."""

        def found() -> list[dict[str, Any]]:
            events = self.events(event)
            assert self.process.poll() is None or len(events) >= count, self.log()
            return events if len(events) >= count else []

        return until(found, what=f"the event {event} in\n{self.log()}")  # type: ignore[no-any-return]

    def finish(self, *, code: int = 0) -> None:
        """Until it ends by itself, with the exit code *code*."""
        assert self.process.wait(WAIT_S) == code, self.log()

    def terminate(self) -> float:
        """SIGTERM, then a clean end; returns the seconds it took."""
        started_s = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.finish()
        return time.monotonic() - started_s

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def port(self) -> int:
        return int(self.wait_for("http_listening")[-1]["port"])

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a metric, None where it is not there."""
        wanted = "".join(rf'(?=[^}}]*{key}="{re.escape(value)}")' for key, value in labels.items())
        pattern = rf"^{name}(?:\{{{wanted}[^}}]*\}})? (\S+)$" if labels else rf"^{name} (\S+)$"
        match = re.search(pattern, self.get("/metrics")[1], re.MULTILINE)
        return float(match.group(1)) if match else None


def run_cli(*arguments: str, cwd: Path | None = None, lines: str = "") -> subprocess.CompletedProcess[str]:
    """One installed ``learnd`` command to its end; it reads *lines*."""
    command = [str(LEARND), *arguments]
    return subprocess.run(command, input=lines, capture_output=True, text=True, cwd=cwd, timeout=WAIT_S, check=False)


def run_forked(*arguments: str, lines: str = "") -> subprocess.CompletedProcess[str]:
    """The same for a command that imports TensorFlow, without the seconds which that takes; it reads *lines*."""
    with ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        files[0].write(lines.encode())
        files[0].seek(0)
        standard = [file.fileno() for file in files]
        process = prefork.server().start(arguments, standard=standard, environ=os.environ, cwd=Path.cwd())
        try:
            code = process.wait(WAIT_S)
        finally:
            process.kill()
        said = []
        for file in files[1:]:
            file.seek(0)
            said.append(file.read().decode())
    return subprocess.CompletedProcess(["learnd", *arguments], code, *said)


def same_arrays(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[str]:
    """The names whose arrays are not equal to the last bit; empty where all are."""
    assert sorted(left) == sorted(right)
    return [name for name in left if np.asarray(left[name]).tobytes() != np.asarray(right[name]).tobytes()]


@contextmanager
def small_disk(folder: Path, size_bytes: int = 1 << 20) -> Iterator[Path]:
    """A file system of its own; skips where mounting one is not permitted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("no small disk: mounting a tmpfs needs root (CAP_SYS_ADMIN)")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path, *, leave_bytes: int = 0) -> Path:
    """Takes the room of *disk* but for *leave_bytes*."""
    free = os.statvfs(disk)
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        file.write(bytes(max(0, free.f_bavail * free.f_bsize - leave_bytes)))
    return filler
