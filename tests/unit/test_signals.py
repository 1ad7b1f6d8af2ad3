"""Signals of ``learnd run``, without a model: a small program that waits for a stop."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.helpers import until

PROGRAM = """
import sys, time
from learnd.cli.signals import StopSignals
def note(event, **fields):
    with open(sys.argv[1], "a") as file:
        print(event, fields.get("signal"), file=file, flush=True)
with StopSignals() as stop:
    stop.require_save()
    note("started")
    stop.log_to(note)
    while not stop.received():
        time.sleep(0.01)
    note("saved")
    if sys.argv[2:] == ["slow"]:
        time.sleep(60)
"""


def _said(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _unless_nohup() -> None:
    """Do not inherit that SIGHUP is ignored: the tests themselves may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _started(path: Path, *arguments: str, before: Callable[[], object] | None = None) -> "subprocess.Popen[bytes]":
    """The program, in a session of its own, so without a terminal, once it listens."""
    command = [sys.executable, "-c", PROGRAM, str(path), *arguments]
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=before or _unless_nohup)
    until(lambda: "started" in _said(path), what="the start", timeout_s=30)
    return process


def test_no_signal_of_an_operator_ends_it_without_a_save(tmp_path: Path) -> None:
    """SIGHUP without a terminal, SIGUSR1 and the like are reported and change nothing; SIGTERM then saves."""
    path = tmp_path / "said"
    process = _started(path)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        process.send_signal(number)
        until(lambda: f"signal_ignored {signal.Signals(number).name}" in _said(path), what="the report")  # noqa: B023
    process.send_signal(signal.SIGHUP)
    until(lambda: "reload_ignored SIGHUP" in _said(path), what="the report of SIGHUP")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert _said(path).splitlines()[-2:] == ["stopping SIGTERM", "saved None"]


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    """128 and the signal's number, while the stop still has work to do."""
    path = tmp_path / "said"
    process = _started(path, "slow")
    process.send_signal(signal.SIGTERM)
    until(lambda: "saved" in _said(path), what="the first signal")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_nohup_is_respected(tmp_path: Path) -> None:
    """A SIGHUP that is ignored at the start stays ignored, without a word."""
    path = tmp_path / "said"
    process = _started(path, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "reload" not in _said(path)


@pytest.mark.parametrize("on_terminal", [True, False])
def test_a_closed_terminal_is_a_clean_stop_and_an_open_one_a_reload(tmp_path: Path, on_terminal: bool) -> None:
    """The same signal: what counts is whether the terminal is gone."""
    path = tmp_path / "said"
    process, terminal = pty.fork()
    if process == 0:
        _unless_nohup()
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, str(path)])
    until(lambda: "started" in _said(path), what="the start", timeout_s=30)
    if on_terminal:
        os.kill(process, signal.SIGHUP)
        until(lambda: "reload_ignored" in _said(path), what="the report")
        assert "stopping" not in _said(path)
    os.close(terminal)
    os.kill(process, signal.SIGHUP)  # a shell sends it again
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert "saved" in _said(path)


@pytest.mark.parametrize("number", [signal.SIGINT])
def test_an_interrupt_during_the_first_imports_is_no_traceback(number: int) -> None:
    """The code of an interrupt and not a word, even inside an import."""
    program = (
        "import sys, os, signal\n"
        "class Slow:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'learnd.cli.schema':\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "sys.meta_path.insert(0, Slow())\n"
        "sys.argv = ['learnd', 'schema']\n"
        "from learnd.cli.start import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
