"""Files and the simulator: the same records again from any offset, at the pace that was asked for."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learnd.core.errors import ConfigError, DataLossError
from learnd.core.types import Position, TopicPartition, offsets_of
from learnd.sources.file import FileSource, read_header
from learnd.sources.settings import FileSettings, SimulatorSettings
from learnd.sources.simulator import SimulatorSource, sensor_names


class _Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def _file(path: Path, **options: Any) -> FileSource:
    constructor = {
        name: options.pop(name) for name in ("max_line_bytes", "event_time_s", "clock", "sleep") if name in options
    }
    return FileSource(FileSettings(kind="file", path=path, **options), **constructor)


def _all(source: Any, start: dict[TopicPartition, Position] | None = None, chunk: int = 7) -> list[tuple[int, bytes]]:
    source.open(start or {})
    found: list[tuple[int, bytes]] = []
    while not source.exhausted():
        for block in source.poll(chunk, 0.1):
            found += zip(block.offsets, block.values, strict=True)
    source.close()
    return found


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv"])
def test_csv_lines_without_the_header(tmp_path: Path, name: str) -> None:
    """Offset 0 is the first line of data; a missing last newline and CRLF do not matter."""
    path = tmp_path / name
    data = b"t,a\r\n1,2\r\n\r\n3,4"
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert _all(_file(path)) == [(0, b"1,2"), (2, b"3,4")]
    assert _all(_file(path, header=False))[0] == (0, b"t,a")
    assert read_header(FileSettings(kind="file", path=path, delimiter=",")).columns == ["t", "a"]


def test_a_file_goes_on_from_any_offset(tmp_path: Path) -> None:
    """What was read before is not read again, blank lines counted."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b"%d\n" % i if i % 5 else b"\n" for i in range(50)))
    everything = _all(_file(path))
    for start in (0, 1, 5, 17, 50):
        source = _file(path)
        assert _all(source, {TopicPartition("a.jsonl", 0): Position(start)}) == [
            row for row in everything if row[0] >= start
        ]
        assert offsets_of(source.positions()) == {TopicPartition("a.jsonl", 0): 50}


def test_a_file_that_became_shorter_is_data_loss(tmp_path: Path) -> None:
    """The error names both line numbers."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2\n")
    with pytest.raises(DataLossError, match="has 2 lines, but the checkpoint continues at line 5"):
        _file(path).open({TopicPartition("a.jsonl", 0): Position(5)})


def test_a_file_whose_learned_lines_changed_is_data_loss(tmp_path: Path) -> None:
    """Another file under the same name, a longer one too; but the newest line may have been read half written."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"t,a\n1,2\n3,4\n5,")
    source = _file(path)
    source.open({})
    (block,) = source.poll(10, 0.0)
    learned = {block.origin: block.next}

    def rest(data: bytes) -> list[bytes | None]:
        path.write_bytes(data)
        source = _file(path)
        source.open(learned)
        return [value for block in source.poll(10, 0.0) for value in block.values]

    assert rest(b"t,a\n1,2\n3,4\n5,6\n7,8\n") == [b"7,8"]
    for changed in (b"t,a\n1,2\n3,5\n5,6\n7,8\n", b"a,t\n1,2\n3,4\n5,6\n7,8\n"):
        with pytest.raises(DataLossError, match=r"first 3 lines are no longer those that were learned.*another name"):
            rest(changed)


def test_a_bound_on_lines_that_changed_is_no_other_file(tmp_path: Path) -> None:
    """A line that was cut is known again when it is cut elsewhere."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 5000 + b"\n1\n2\n")
    source = _file(path, max_line_bytes=100)
    source.open({})
    (block,) = source.poll(10, 0.0)
    _file(path, max_line_bytes=1000).open({block.origin: block.next})


def test_a_byte_order_mark_is_no_data_and_names_may_be_quoted(tmp_path: Path) -> None:
    """Of the first line, whatever the format."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf{}\n")
    assert _all(_file(path)) == [(0, b"{}")]
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xef\xbb\xbft,"note, free", b\n1,2,3\n')
    assert read_header(FileSettings(kind="file", path=path)).columns == ["t", "note, free", "b"]


def test_what_cannot_be_read_from_the_beginning_again_is_refused(tmp_path: Path) -> None:
    """A pipe, say: half of its records were lost, for the header was read apart."""
    path = tmp_path / "a.csv"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="not a regular file"):
        _file(path).open({})


def test_an_endless_line_takes_bounded_memory(tmp_path: Path) -> None:
    """It is cut just beyond the limit, so that the decoder rejects it; the next line is whole."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * 1_000_000 + b"\nok\n")
    (_, first), (_, second) = _all(_file(path, max_line_bytes=100))
    assert 100 < len(first) < 200
    assert second == b"ok"


def test_a_torn_or_foreign_gz_file_is_explained(tmp_path: Path) -> None:
    """Not a traceback: the path, how far it could be read, and the way out."""
    path = tmp_path / "a.csv.gz"
    path.write_bytes(b"t,a\n1,2\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_header(FileSettings(kind="file", path=path))
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(np.random.default_rng(0).bytes(10_000).hex().encode() + b"\n", mtime=0)
    path.write_bytes(whole[: len(whole) // 2])
    source = _file(path)
    source.open({})
    with pytest.raises(DataLossError, match="is damaged after line 0"):
        source.poll(10, 0.0)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    """With its path and the reason."""
    with pytest.raises(ConfigError, match="No such file"):
        _file(tmp_path / "none.csv").open({})


def test_replay_keeps_the_pace_of_the_events(tmp_path: Path) -> None:
    """At speed 60, readings a minute apart come a second apart."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"".join(b"%d\n" % (60 * i) for i in range(4)))
    clock = _Clock()
    source = _file(path, speed=60, event_time_s=float, clock=clock, sleep=clock.sleep)
    source.open({})
    arrivals: list[tuple[float, bytes]] = []
    while not source.exhausted():
        for block in source.poll(10, 0.25):
            arrivals += [(clock.now_s, value) for value in block.values if value is not None]
    assert arrivals == [(0.0, b"0"), (1.0, b"60"), (2.0, b"120"), (3.0, b"180")]


def _simulator(**options: Any) -> SimulatorSource:
    return SimulatorSource(SimulatorSettings(kind="simulator", **options))


def test_the_simulator_goes_on_from_any_offset() -> None:
    """A record is a function of seed and offset alone, however it is polled."""
    options = {"records": 6000, "machines": 3, "seed": 4}
    everything = _all(_simulator(**options), chunk=1000)
    assert len(everything) == 6000
    for start, chunk in ((1, 100), (1535, 7), (1536, 999), (5999, 10)):
        partition = TopicPartition("simulator", 0)
        assert _all(_simulator(**options), {partition: Position(start)}, chunk) == everything[start:]
    assert _all(_simulator(**{**options, "seed": 5}), chunk=1000) != everything


def test_the_simulator_tells_the_truth() -> None:
    """Wear grows, sensors follow it, faults take about their share of time and stand out, drift shifts the level."""
    options: dict[str, Any] = {"records": 60_000, "machines": 5, "fault_rate": 0.05, "seed": 1}
    rows = [json.loads(value) for _, value in _all(_simulator(**options), chunk=5000)]
    wear = np.array([row["wear"] for row in rows])
    vibration = np.array([row["vibration"] for row in rows])
    fault = np.array([row["truth"]["fault"] for row in rows])
    assert 0.02 < fault.mean() < 0.10
    assert np.corrcoef(wear[~fault], vibration[~fault])[0, 1] > 0.5
    sensors = np.array([[row[name] for name in sensor_names(6)] for row in rows])
    unusual = np.abs((sensors - np.median(sensors, axis=0)) / sensors[~fault].std(axis=0)).max(axis=1)
    assert unusual[fault].mean() > unusual[~fault].mean() + 0.3
    assert {row["truth"]["drift"] for row in rows[:1000]} == {0.0}
    assert rows[-1]["truth"]["drift"] > 0
    quiet = [json.loads(v) for _, v in _all(_simulator(**{**options, "fault_rate": 0, "drift": 0}), chunk=5000)]
    assert not any(row["truth"]["fault"] for row in quiet)


def test_the_simulator_keeps_its_rate() -> None:
    """So many records a second, no more."""
    clock = _Clock()
    settings = SimulatorSettings(kind="simulator", rate_per_s=100, records=50)
    source = SimulatorSource(settings, clock=clock, sleep=clock.sleep)
    source.open({})
    count = 0
    while not source.exhausted():
        count += sum(len(block) for block in source.poll(1000, 0.05))
        assert count <= clock.now_s * 100 + 1
    assert clock.now_s == pytest.approx(0.5, abs=0.02)
