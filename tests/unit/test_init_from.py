"""`learnd init --from` writes a configuration that reads the records, and says what it guessed."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from learnd.cli.data_report import report
from learnd.cli.main import main
from learnd.config.loader import load

N = 30
MINUTES = [f"2024-01-15 12:{i:02}:00" for i in range(N)]


def _csv(head: str, row: Any, encoding: str = "utf-8") -> bytes:
    return (head + "".join(row(i) + "\n" for i in range(N))).encode(encoding)


def _json(record: Any) -> bytes:
    return "".join(json.dumps(record(i)) + "\n" for i in range(N)).encode()


CASES: dict[str, tuple[str, bytes, dict[str, Any], str]] = {
    "plain": (
        "a.csv",
        _csv("ts,a,b,y\n", lambda i: f"{MINUTES[i]},{i}.5,{i},{2 * i}"),
        {"decode": {"kind": "csv", "time": "ts"}, "features": ["a", "b"], "target": "y"},
        "target: y is a guess",
    ),
    "German": (
        "g.csv",
        _csv("Zeit;Größe;Druck;Ort\n", lambda i: f"15.01.2024 12:{i:02};{i},5;1.234,{i:02};M{i % 3}", "cp1252"),
        {
            "source": {"encoding": "cp1252", "delimiter": ";"},
            "decode": {"time": "Zeit", "time_format": "%d.%m.%Y %H:%M", "number_format": "1.234,56"},
            "features": ["Größe"],
            "target": "Druck",
        },
        "left out, because they are texts: Ort",
    ),
    "a logger": (
        "l.csv",
        _csv("# Logger 7\n\nTimestamp\tT\tF\tOn\n\t°C\tl/s\t\n", lambda i: f"{MINUTES[i]}Z\t{i}\t{i}.5\ttrue"),
        {"source": {"comment": "#", "skip_after_header": 1, "delimiter": "\t"}, "decode": {"booleans": "numbers"}},
        "",
    ),
    "lines before the header": (
        "p.csv",
        _csv("Device,7\n\nts,a,b,y\n", lambda i: f"{MINUTES[i]},{i},{i},{i}"),
        {"source": {"skip_lines": 2}},
        "",
    ),
    "no names": (
        "engine.txt",
        _csv("", lambda i: f" 1 {i} {i / 10}  -0.5 "),
        {
            "source": {"format": "csv", "header": False, "delimiter": "whitespace"},
            "features": ["column_1", "column_2", "column_3"],
        },
        "made-up",
    ),
    "serial dates": (
        "s.csv",
        _csv("date,a,y\n", lambda i: f"{45306 + i / 24:.6f},{i},{i}"),
        {"decode": {"time_format": "excel"}},
        "",
    ),
    "milliseconds and machines": (
        "m.csv",
        _csv("time,machine,a,y\n", lambda i: f"{1705320000000 + i},m{i % 3},{i},{i}"),
        {"decode": {"time_unit": "ms", "key": "machine"}},
        "key: machine has 3 values",
    ),
    "a date and a time of day": (
        "q.csv",
        _csv("Date;Time;CO;y\n", lambda i: f"15/01/2024;12.{i:02}.00;{i},5;{i}"),
        {"decode": {"time": "Date", "time_of_day": "Time", "time_format": "%d/%m/%Y %H.%M.%S"}, "features": ["CO"]},
        "",
    ),
    "one column": (
        "o.csv",
        _csv("ts,a\n", lambda i: f"{MINUTES[i]},{i}"),
        {"task": {"kind": "forecast", "window": 8}},
        "",
    ),
    "day or month first": (
        "d.csv",
        _csv("ts,a,y\n", lambda i: f"01/02/2024 12:{i:02},{i},{i}"),
        {"decode": {"time_format": "%d/%m/%Y %H:%M"}},
        "these times fit both, so check it",
    ),
    "UTF-16": ("u.csv", _csv("ts,a,y\n", lambda i: f"{MINUTES[i]},{i},{i}", "utf-16"), {"target": "y"}, ""),
    "UTF-16 without a mark": (
        "v.csv",
        _csv("ts,a,y\n", lambda i: f"{MINUTES[i]},{i},{i}", "utf-16-le"),
        {"source": {"encoding": "utf-16-le"}},
        "",
    ),
    "nested": (
        "n.jsonl",
        _json(lambda i: {"ts": MINUTES[i], "payload": {"after": {"a": i, "b": str(i)}}, "y": i}),
        {"decode": {"text_numbers": "accept", "paths": {"a": "payload.after.a", "b": "payload.after.b"}}},
        "",
    ),
    "named metrics": (
        "k.jsonl",
        _json(lambda i: {"ts": MINUTES[i], "m": [{"name": "T", "value": i}, {"name": "P", "value": 2 * i}]}),
        {"decode": {"paths": {"T": "m[name=T].value", "P": "m[name=P].value"}}, "features": ["T"], "target": "P"},
        "",
    ),
}


def _within(part: Any, whole: Any) -> bool:
    if isinstance(part, dict):
        return all(key in whole and _within(value, whole[key]) for key, value in part.items())
    return bool(part == whole)


@pytest.mark.parametrize("name", CASES)
def test_a_configuration_made_from_a_file_reads_all_of_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No record is rejected, the sections are those that a person would write, and guesses are stated in the file."""
    file, data, sections, note = CASES[name]
    (tmp_path / file).write_bytes(data)
    path = tmp_path / "learnd.yaml"
    assert main(["init", str(path), "--from", str(tmp_path / file)]) == 0
    assert f"{N} records: {N} accepted, 0 rejected" in capsys.readouterr().out
    text = path.read_text()
    assert note in text
    assert _within(sections, yaml.safe_load(text)), text
    settings = load(path)
    assert settings.predictions is not None
    assert report(settings).rejected == 0
    assert main(["validate", "--data", str(path)]) == 0


def test_records_that_cannot_be_learned_from_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the reason; nothing is written."""
    path = tmp_path / "learnd.yaml"
    for content, reason in (("", "has no lines"), ("a,b\nx,y\n", "no column of numbers")):
        (tmp_path / "a.csv").write_text(content)
        assert main(["init", str(path), "--from", str(tmp_path / "a.csv")]) == 64
        assert reason in capsys.readouterr().err
        assert not path.exists()
    assert main(["init", str(path), "--from", str(tmp_path / "none.csv")]) == 64
    assert "cannot be read" in capsys.readouterr().err


def test_validate_says_by_its_exit_code_that_the_data_do_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """65 if more is rejected than the configuration allows; 78 if a column is missing."""
    (tmp_path / "a.csv").write_text("ts,a,y\n" + "".join(f"{t},x,1\n" for t in MINUTES))
    values = {"source": {"kind": "file", "path": str(tmp_path / "a.csv")}, "features": ["a"], "target": "y"}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**values, "model": {"kind": "linear"}}))
    assert main(["validate", "--data", str(path)]) == 65
    assert "wrong_type  30     record 0: a is 'x', not a number" in capsys.readouterr().out
    path.write_text(yaml.safe_dump({**values, "model": {"kind": "linear"}, "features": ["b"]}))
    assert main(["validate", "--data", str(path)]) == 78
