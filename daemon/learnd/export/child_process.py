"""The child process that builds one export (`learnd.export_worker`), seen from the learner's process."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from learnd.core.errors import ExportAbandonedError, ExportWorkerError
from learnd.export.request import CURRENT_FORMAT, REQUEST

WORK_S, REST_S = 0.05, 0.15
"""Duty cycle of the child next to a busy learner. Low priority alone is not enough: through the shared caches, a child
on another core takes 10 % of a busy learner's throughput. Working a quarter of the time keeps that below 5 %
(`tests/bench/export.py`). Next to an idle learner the child does not rest, and the export is published that much
sooner (`tests/bench/export_lag.py`)."""


class ChildProcess:
    """Runs at most one child process, and can kill it from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while the child is started or killed, so that no child starts after `kill`."""
        self._process: subprocess.Popen[str] | None = None
        self._killed = False

    @property
    def killed(self) -> bool:
        """True from `kill` to the next `reset`."""
        return self._killed

    def reset(self) -> None:
        """Allow a child again, after `kill`."""
        self._killed = False

    def kill(self) -> None:
        """Kill the child, and start no other one until `reset`."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    def require_not_killed(self) -> None:
        """Raise ExportAbandonedError after `kill`."""
        if self._killed:
            raise ExportAbandonedError("the export was abandoned")

    def run(self, building: Path, *, urgent: bool) -> None:
        """Build the export that is requested in the folder *building*, and wait for its end.

        Unless *urgent*, the child runs at the lowest priority, and rests while this process is busy.

        Raises
        ------
        ExportAbandonedError
            if `kill` was called before the child started.
        ExportWorkerError
            if the child fails, or is killed.
        """
        with self._lock:
            self.require_not_killed()
            self._process = process = _start(building, urgent=urgent)
        try:
            errors = _wait_paced(process, urgent=urgent)
        finally:
            status = process.returncode
            self._process = None
        if status != 0:
            raise ExportWorkerError(_reason(status, errors, building / REQUEST / CURRENT_FORMAT))


def _start(building: Path, *, urgent: bool) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        # The child must find the same modules as this process, including the user's own.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    # Without -P, modules that happen to lie in the working directory would come before all others.
    command = [sys.executable, "-P", "-m", "learnd.export_worker.bootstrap", str(os.getpid()), str(building)]
    if not urgent:
        command.append("--nice")
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ctrl-C on the terminal is for this process only; it decides when the child ends.
        start_new_session=True,
    )


def _reason(status: int, errors: str, current_format: Path) -> str:
    """Return in one line why a child failed: its last words, or the signal that killed it and the format."""
    if status < 0 and current_format.exists():
        name = current_format.read_text(encoding="utf-8")
        return (
            f"the export process was killed by {signal.Signals(-status).name} while it worked on {name}; remove {name} "
            "from export.formats to publish the other formats"
        )
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"the export process ended with status {status}"


def _wait_paced(process: "subprocess.Popen[str]", *, urgent: bool) -> str:
    """Wait until *process* has ended, and return what it wrote to standard error; unless *urgent*, pace it.

    Pacing starts after the child's first line. With that line it reports that the kernel will kill it together with
    this process. A child stopped before that would outlive a SIGKILL of this process, and stay stopped forever.
    """
    assert process.stdout is not None
    process.stdout.readline()
    while True:
        now_s, busy_s = time.monotonic(), time.process_time()
        try:
            return process.communicate(timeout=None if urgent else WORK_S)[1]
        except subprocess.TimeoutExpired:
            rest_s = _rest_s(time.process_time() - busy_s, time.monotonic() - now_s)
            process.send_signal(signal.SIGSTOP)
            time.sleep(rest_s)
            process.send_signal(signal.SIGCONT)


def _rest_s(busy_s: float, elapsed_s: float) -> float:
    """Return how long a child rests, if all threads of this process were busy for *busy_s* of *elapsed_s*.

    >>> _rest_s(0.09, 0.05), _rest_s(0.01, 0.05), _rest_s(0.0, 0.05)
    (0.15, 0.03, 0.0)
    """
    return round(REST_S * min(1.0, busy_s / elapsed_s), 3)
