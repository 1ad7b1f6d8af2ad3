"""The commands as a person types them."""

import gzip
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from learnd.checkpoint.reading import read_arrays
from tests.support.helpers import LEARND, ROOT, Daemon, config_text, readings, run_cli


def _quick(folder: Path, records: int = 5000) -> Path:
    """The quickstart with fewer records, its data in *folder*."""
    values = yaml.safe_load((ROOT / "configs" / "quickstart.yaml").read_text())
    values["source"].update(records=records, rate_per_s=None)
    values["http"]["port"] = 0
    config = folder / "quickstart.yaml"
    config.write_text(yaml.safe_dump(values, sort_keys=False))
    return config


def test_the_quickstart_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """The embedded default needs nothing but the command; a longer second run learns only what is new."""
    config = _quick(tmp_path)
    with Daemon(config, installed=True) as daemon:
        daemon.finish()
        finished = daemon.events("finished")[-1]
    assert finished["samples"] == 5000
    assert finished["loss"] < 0.5
    assert (tmp_path / "data" / "quickstart" / "exports" / "latest" / "model.tflite").exists()
    config = _quick(tmp_path, records=6000)
    with Daemon(config, installed=True) as daemon:
        daemon.finish()
        assert daemon.events("state_restored")[-1]["samples"] == 5000
        finished = daemon.events("finished")[-1]
    assert (finished["samples"], finished["model_samples"]) == (1000, 6000)
    shown = json.loads(run_cli("inspect", str(tmp_path / "data" / "quickstart")).stdout)
    assert shown["progress"]["samples"] == 6000
    assert len(shown["exports"]) == 2


def test_files_are_learned_from(tmp_path: Path) -> None:
    """A CSV file names its own columns; --max-records ends early, and the next run takes the rest.

    The counts of the last line are those of the run: one that learned nothing says so, whatever others have learned.
    """
    rows = [json.loads(value) for value in readings(300)]
    lines = [";".join(rows[0]), *(";".join(str(value) for value in row.values()) for row in rows)]
    path = tmp_path / "readings.csv.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    config = tmp_path / "config.yaml"
    text = config_text(tmp_path / "data", source={"kind": "file", "path": str(path), "delimiter": ";"}, decode=None)
    config.write_text(text)
    with Daemon(config, "--max-records", "100", installed=True) as daemon:
        daemon.finish()
        assert daemon.events("finished")[-1]["records"] == 100
    with Daemon(config, installed=True) as daemon:
        daemon.finish()
        assert daemon.events("finished")[-1]["samples"] == 200
        assert not daemon.events("nothing_learned")
    with path.open("ab") as file:
        file.write(gzip.compress(b"\njunk\njunk"))
    with Daemon(config, installed=True) as daemon:
        daemon.finish(code=65)
        (nothing,) = daemon.events("nothing_learned")
        finished = daemon.events("finished")[-1]
    assert nothing["records"] == finished["records"] == sum(nothing["rejected"].values()) == 2
    assert (finished["samples"], finished["model_samples"]) == (0, 300)


def test_a_misspelt_feature_is_seen_in_the_log(tmp_path: Path) -> None:
    """Without dead letters, too: the field, how many records were rejected, and that nothing was learned."""
    path = tmp_path / "readings.jsonl"
    path.write_bytes(b"".join(value + b"\n" for value in [*readings(300), b"junk"]))
    config = tmp_path / "config.yaml"
    source = {"kind": "file", "path": str(path)}
    config.write_text(config_text(tmp_path / "data", source=source, features=["a", "bee", "c"]))
    with Daemon(config, installed=True) as daemon:
        daemon.finish(code=65)
        told = {event["reason"]: event["detail"] for event in daemon.events("record_rejected")}
        (nothing,) = daemon.events("nothing_learned")
        assert nothing["rejected"] == daemon.events("finished")[0]["rejected"]
    assert "bee" in told["missing_field"]
    assert "malformed" in told["unparsable"]
    assert nothing["rejected"] == {"missing_field": 300, "unparsable": 1}


def test_light_commands_do_not_import_tensorflow() -> None:
    """That is what keeps them under a second."""
    for arguments in (["schema"], ["validate", str(ROOT / "configs" / "quickstart.yaml")], ["--help"]):
        program = (
            "import sys\nfrom learnd.cli.main import main\n"
            f"try: main({arguments!r})\nexcept SystemExit: pass\n"
            "heavy = {'tensorflow', 'keras', 'kafka', 'numpy', 'rich'} & set(sys.modules)\nassert not heavy, heavy\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_validate_schema_and_init(tmp_path: Path) -> None:
    """init writes what validate finds good; schema prints JSON; init overwrites nothing."""
    assert run_cli("init", cwd=tmp_path).returncode == 0
    good = run_cli("validate", "learnd.yaml", cwd=tmp_path)
    assert (good.returncode, "good" in good.stdout) == (0, True)
    again = run_cli("init", cwd=tmp_path)
    assert (again.returncode, "exists" in again.stderr) == (64, True)
    assert json.loads(run_cli("schema").stdout)["title"] == "learnd configuration"
    (tmp_path / "bad.yaml").write_text("nmae: x\n")
    bad = run_cli("validate", "learnd.yaml", "bad.yaml", cwd=tmp_path)
    assert bad.returncode == 78
    assert "bad.yaml:1: nmae: unknown key; did you mean name?" in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 64, "required"),
        (("runn",), 64, "invalid choice"),
        (("run", "none.yaml"), 78, "cannot be read"),
        (("run", "x", "--max-records", "0"), 64, "not a count"),
        (("inspect", "/"), 64, "neither an export"),
    ],
)
def test_wrong_usage_is_explained(arguments: tuple[str, ...], code: int, message: str) -> None:
    """An exit code to act on, a message, no traceback."""
    done = run_cli(*arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_configurations_stop_before_the_stream(tmp_path: Path) -> None:
    """Also what only building shows (an optimizer's argument, a column of the file) is exit code 78."""
    cases = {
        "did you mean Adam": {"learning": {"optimizer": {"kind": "adan"}}},
        "does not accept these arguments": {"learning": {"optimizer": {"kind": "sgd", "moment": 3}}},
        "not a Keras schedule": {"learning": {"optimizer": {"learning_rate": {"kind": "nope"}}}},
        "no column a": {"decode": {"kind": "csv"}, "source": {"kind": "file", "path": str(tmp_path / "x.csv")}},
    }
    (tmp_path / "x.csv").write_text("aa,b,c,y\n1,2,3,4\n")
    for i, (message, sections) in enumerate(cases.items()):
        config = tmp_path / f"{i}.yaml"
        config.write_text(config_text(tmp_path / "data", **sections))
        done = run_cli("run", str(config))
        assert done.returncode == 78, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_changed_model_is_refused_with_the_key(tmp_path: Path) -> None:
    """A checkpoint of another model is never used for this one."""
    config = tmp_path / "config.yaml"
    sections = {"features": ["temperature"], "target": "wear", "source": {"kind": "simulator", "records": 300}}
    config.write_text(config_text(tmp_path / "data", **sections))
    with Daemon(config, installed=True) as daemon:
        daemon.finish()
    config.write_text(config_text(tmp_path / "data", **sections, model={"kind": "linear"}))
    done = run_cli("run", str(config))
    assert done.returncode == 78
    assert "model: the checkpoints under" in done.stderr


def test_a_terminal_shows_the_live_line(tmp_path: Path) -> None:
    """Rate, lag, loss, checkpoint and export in one line; Ctrl-C ends cleanly."""
    config = tmp_path / "config.yaml"
    source = {"kind": "simulator", "rate_per_s": 500, "records": 1_000_000}
    sections = {"features": ["temperature"], "target": "wear", "source": source}
    config.write_text(config_text(tmp_path / "data", **sections))
    parent, child = pty.openpty()
    environ = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    process = subprocess.Popen([str(LEARND), "run", str(config)], stdin=child, stdout=child, stderr=child, env=environ)
    os.close(child)
    screen = ""
    wanted = re.compile(r"test \| [\d,]+ samples \| [\d,]+/s \| lag [\d,]+ \| loss \d.* \| checkpoint \d+ s ago")
    deadline_s = time.monotonic() + 90
    try:
        while time.monotonic() < deadline_s and not wanted.search(screen):
            if select.select([parent], [], [], 0.2)[0]:
                screen += os.read(parent, 65536).decode(errors="replace")
        assert wanted.search(screen), screen[-3000:]
        process.send_signal(signal.SIGINT)
        while time.monotonic() < deadline_s + 30:
            if select.select([parent], [], [], 0.2)[0]:
                try:
                    screen += os.read(parent, 65536).decode(errors="replace")
                except OSError:
                    break
        assert process.wait(30) == 0
        assert "finished" in screen
        assert "I0000" not in screen
        assert "Traceback" not in screen
    finally:
        process.kill()
        process.wait()
        os.close(parent)
    assert read_arrays(tmp_path / "data" / "checkpoints")[1]["progress"]["samples"] > 0
