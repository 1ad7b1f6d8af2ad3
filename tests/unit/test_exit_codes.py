"""Exit codes that the other tests do not produce: every end of a command has one that says what to do next."""

import subprocess
import sys
from pathlib import Path

import pytest

from learnd.cli import main as command_line
from tests.support.helpers import LEARND, config_text


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    """The code of ``learnd schema`` when *error* escapes from it."""

    def fail() -> None:
        raise error

    monkeypatch.setattr("learnd.cli.schema.json_schema", fail)
    return command_line.main(["schema"])


def test_what_nobody_expected_is_70_or_74_and_never_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A defect with its traceback; a file that fails, as one of the disk's; an interrupt without a word."""
    assert _failing(monkeypatch, ZeroDivisionError("a defect")) == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "ZeroDivisionError: a defect" in said
    assert "an internal error (exit code 70)" in said
    assert _failing(monkeypatch, PermissionError(13, "Permission denied", "/x")) == 74
    assert "could not be read or written (exit code 74)" in capsys.readouterr().err
    assert _failing(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == ""


def test_output_that_cannot_be_written_is_74_and_a_closed_pipe_is_no_error() -> None:
    """Python alone would make either of them 120 or 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([LEARND, "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, "No space left on device" in done.stderr) == (74, True)
    program = f"import subprocess; p = subprocess.Popen([{str(LEARND)!r}, 'schema'], stdout=-1)\n"
    program += "p.stdout.close(); print(p.wait())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_a_supervisor_that_cannot_tell_codes_apart_gets_0_where_a_restart_does_not_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has the real code; errors that a restart may repair keep theirs."""
    command = ["run", str(tmp_path / "config.yaml"), "--final-exit-code", "0"]
    assert command_line.main(command) == 0
    assert '"exit_code": 78' in capsys.readouterr().err
    (tmp_path / "config.yaml").write_text(config_text(tmp_path / "data"))
    monkeypatch.setattr("learnd.cli.run.load", lambda _path: 1 / 0)
    assert command_line.main(command) == 70
