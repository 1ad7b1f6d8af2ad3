"""Decoding of plain records, against another checkout of learnd. `python -m tests.bench.decode OTHER/daemon`

Each side is a process of its own; they run in turn. JSON, CSV, and the lines of a CSV file, without any option.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.sides import interleave, median, show, spread

ROUNDS, RECORDS, REPEATS = 7, 4096, 12
_PROGRAM = """
import json, sys, time
from pathlib import Path
from learnd.core.types import Position, Records, TopicPartition
from learnd.decoders.csv import CsvDecoder
from learnd.decoders.fields import Field, Fields
from learnd.decoders.json import JsonDecoder
from learnd.sources.file import FileSource
from learnd.sources.settings import FileSettings

count, repeats, path = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
names = [f"s{i}" for i in range(6)]
fields = Fields(tuple(Field(n) for n in names), (Field("y"),), "ts", "s", "k", 1 << 20)
rows = [[1.7e9 + i, f"m{i % 9}", *(i * 0.1 + j for j in range(6)), i * 0.5] for i in range(count)]
columns = ["ts", "k", *names, "y"]
values = {
    "json": [json.dumps(dict(zip(columns, row))).encode() for row in rows],
    "csv": [",".join(map(str, row)).encode() for row in rows],
}
decoders = {"json": JsonDecoder(fields), "csv": CsvDecoder(fields, columns)}
best = {}
for kind, decoder in decoders.items():
    records = Records(TopicPartition("t", 0), range(count), values[kind], [None] * count, [0] * count, Position(count))
    for _ in range(repeats):
        start = time.process_time()
        samples, rejects = decoder.decode(records)
        spent = time.process_time() - start
        assert len(samples) == count
        best[kind] = min(best.get(kind, 9.9), spent)
path.write_bytes((",".join(columns) + "\\n").encode() + b"\\n".join(values["csv"]))
for _ in range(repeats):
    source = FileSource(FileSettings(kind="file", path=path))
    start = time.process_time()
    source.open({})
    while not source.exhausted():
        source.poll(4096, 0.0)
    best["file"] = min(best.get("file", 9.9), time.process_time() - start)
    source.close()
print(json.dumps({kind: s / count * 1e6 for kind, s in best.items()}))
"""


def measure(package: Path, kind: str) -> float:
    """Return the microseconds per record, the best of several repetitions in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _PROGRAM, str(RECORDS), str(REPEATS), f"{folder}/a.csv"]
        environment = {"PYTHONPATH": str(package)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures[kind]


def main() -> None:
    """Print the table."""
    here = Path(__file__).resolve().parents[2] / "daemon"
    other = Path(sys.argv[1]).resolve()
    table = []
    for kind in ("json", "csv", "file"):
        sides = {"here": lambda k=kind: measure(here, k), "other": lambda k=kind: measure(other, k)}
        figures = interleave(sides, rounds=ROUNDS)
        ratios = [a / b for a, b in zip(figures["here"], figures["other"], strict=True)]
        row = [median(figures["here"]), median(figures["other"]), f"{median(ratios):.3f} ({spread(ratios)})"]
        table.append([kind, *row])
    show("Plain records, us a record", ["format", "here", "other", "here / other"], table)


if __name__ == "__main__":
    started_s = time.monotonic()
    main()
