"""``learnd validate`` looks at what a configuration names, and each mistake is reported where it stands in the file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from learnd.cli import main as command_line
from learnd.config.locate import located
from learnd.core.errors import ConfigError, Problem
from learnd.sources.memory import MemorySource
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import config_text, readings, settings

pytestmark = pytest.mark.usefixtures("shared_traces")

COLUMNS = "a,bee,c,y,t\n1,2,3,4,5\n"


def _validate(folder: Path, capsys: pytest.CaptureFixture[str], **sections: Any) -> tuple[int, list[str]]:
    config = folder / "config.yaml"
    config.write_text(config_text(folder / "data", **sections))
    code = command_line.main(["validate", str(config)])
    said = capsys.readouterr()
    return code, [line.removeprefix(f"{config}:") for line in (said.err or said.out).splitlines()]


def _csv(folder: Path) -> Mapping[str, Any]:
    (folder / "readings.csv").write_text(COLUMNS)
    return {"source": {"kind": "file", "path": str(folder / "readings.csv")}, "decode": {"kind": "csv", "time": "t"}}


def test_absent_columns_are_reported_where_they_were_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its line and the nearest column, in a list, a mapping, and a section of its own."""
    sections = {**_csv(tmp_path), "features": {"a": {}, "be": {"min": 0}, "cc": {}}, "target": ["why"]}
    sections["decode"] = {"kind": "csv", "time": "tt"}
    code, lines = _validate(tmp_path, capsys, **sections)
    assert code == 78
    text = (tmp_path / "config.yaml").read_text().splitlines()
    for (name, where, near), line in zip(
        [
            ("be", "features.be", "bee"),
            ("cc", "features.cc", "c"),
            ("why", "target[0]", "y"),
            ("tt", "decode.time", "t"),
        ],
        lines,
        strict=True,
    ):
        number, _, said = line.partition(": ")
        assert said.startswith(f"{where}: line 1 of "), said
        assert f": no column {name}; " in said
        assert "columns are a, bee, c, y, t" in said
        assert name in text[int(number) - 1]
        if near in ("bee", "c"):
            assert f"did you mean {near}?" in said
    good = _validate(tmp_path, capsys, **_csv(tmp_path), features=["a", "bee", "c"])
    assert (good[0], "good" in good[1][0]) == (0, True)


@pytest.mark.parametrize(
    ("sections", "where"),
    [
        ({"source": {"kind": "file", "path": "nowhere.jsonl"}}, "source.path: nowhere.jsonl does not exist"),
        ({"model": {"kind": "load", "load": "nowhere.keras"}}, "model.load: nowhere.keras does not exist"),
        (
            {"export": {"formats": ["saved_model"], "signing_key_file": "nowhere.pem"}},
            "export.signing_key_file: nowhere.pem",
        ),
    ],
)
def test_a_missing_file_is_reported_where_it_was_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sections: Mapping[str, Any], where: str
) -> None:
    """And the directory that relative paths belong to, because that is the usual mistake."""
    code, (line,) = _validate(tmp_path, capsys, **sections)
    assert code == 78
    assert where in line
    assert "load" in where or str(Path.cwd()) in line


def test_a_data_dir_of_another_model_is_found_without_loading_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same message as at the start, at the line that differs; the model that learned it is good."""
    learned = settings(tmp_path / "data", learning={"compile": False})
    pipeline = make_pipeline(learned, source=MemorySource(readings(1)))
    pipeline.saving.open()
    pipeline.save()
    pipeline.close()
    same = _validate(tmp_path, capsys)
    assert same[0] == 0, same
    code, (line,) = _validate(tmp_path, capsys, features=["a", "b"])
    assert code == 78
    number, _, said = line.partition(": ")
    assert said.startswith("features: the checkpoints under")
    assert "learned with ['a', 'b', 'c'], but the configuration now says ['a', 'b']" in said
    assert (tmp_path / "config.yaml").read_text().splitlines()[int(number) - 1].startswith("features")
    config = tmp_path / "config.yaml"
    assert command_line.main(["run", str(config), "--log", "json"]) == 78
    *problems, stopped = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(problem["key"], problem["line"]) for problem in problems] == [("features", int(number))]
    assert stopped["exit_code"] == 78


def test_what_is_found_later_gets_its_line(tmp_path: Path) -> None:
    """A problem with a path, one whose path stands in the message, and one that has none."""
    config = tmp_path / "config.yaml"
    config.write_text("name: x\nsource:\n  kind: kafka\n  topics: [a]\n")
    error = ConfigError(Problem("source.topics", "is gone"), "source.topics: a does not exist", "something: else")
    assert [str(problem).removeprefix(str(config)) for problem in located(error, config).problems] == [
        ":4: source.topics: is gone",
        ":4: source.topics: a does not exist",
        ":1: something: else",
    ]
