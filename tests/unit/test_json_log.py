"""Every line on standard error is JSON where the log is: errors before there is a log, libraries, Python itself."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from learnd.cli import main as command_line
from tests.support.helpers import config_text

LIBRARIES = """
import logging, threading, warnings
from learnd.observability.logs import capture_python_messages, configure_logs
configure_logs(terminal=False, name="press")
capture_python_messages()
logging.getLogger("kafka.conn").error("<BrokerConnection %s>: \\n refused", 1)
logging.getLogger("kafka.conn").info("nothing to see")
logging.getLogger("some.library").warning("careful: %d", "no number")
warnings.warn("strange")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
class Ends:
    def __del__(self):
        raise ValueError("too late")
Ends()
"""


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_what_libraries_and_python_print_is_json() -> None:
    """The Kafka client's lines, warnings, an error that ends a thread, and one in a finalizer."""
    done = subprocess.run([sys.executable, "-c", LIBRARIES], capture_output=True, text=True, check=True)
    lines = _lines(done.stderr)
    assert {line["name"] for line in lines} == {"press"}, "on every thread"
    kafka, careful, strange, thread, late = lines
    assert (kafka["library"], kafka["level"]) == ("kafka", "error")
    assert "refused" in kafka["message"]
    assert careful["message"] == "careful: %d"
    assert "strange" in strange["message"]
    assert (thread["event"], thread["thread"]) == ("thread_failed", "worker")
    assert "ZeroDivisionError" in thread["exception"]
    assert "too late" in late["exception"]


@pytest.mark.parametrize(
    ("text", "code", "events"),
    [
        ("nmae: x\ntarget: 7\n", 78, {"configuration_error", "stopped"}),
        ("source: {", 78, {"configuration_error", "stopped"}),
        (None, 78, {"configuration_error", "stopped"}),
    ],
)
def test_a_wrong_configuration_is_one_line_per_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, code: int, events: set[str]
) -> None:
    """With file, line and key as fields; the last line has the exit code."""
    config = tmp_path / "config.yaml"
    if text is not None:
        config.write_text(text)
    assert command_line.main(["run", str(config), "--log", "json"]) == code
    lines = _lines(capsys.readouterr().err)
    assert {line["event"] for line in lines} == events
    assert all(line["file"] == str(config) for line in lines[:-1])
    assert lines[-1]["exit_code"] == code
    if text is not None and text.startswith("nmae"):
        assert ("nmae", 1) in [(line.get("key"), line.get("line")) for line in lines]


def test_wrong_usage_and_a_defect_are_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 for a missing argument; 70, never 1, with the traceback in one line, for what nobody expected."""
    assert command_line.main(["run", "--log=json"]) == 64
    config = tmp_path / "config.yaml"
    config.write_text(config_text(tmp_path / "data"))
    monkeypatch.setattr("learnd.cli.run.load", lambda _path: 1 / 0)
    assert command_line.main(["run", str(config)]) == 70, "JSON unless on a terminal"
    usage, crash = _lines(capsys.readouterr().err)
    assert (usage["event"], usage["exit_code"]) == ("stopped", 64)
    assert (crash["event"], crash["exit_code"]) == ("crashed", 70)
    assert "ZeroDivisionError" in crash["exception"]


def test_for_people_the_same_is_plain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal, or with --log text."""
    assert command_line.main(["run", str(tmp_path / "none.yaml"), "--log", "text"]) == 78
    assert capsys.readouterr().err.startswith(str(tmp_path / "none.yaml"))
