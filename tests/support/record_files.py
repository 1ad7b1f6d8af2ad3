"""Small files of records, with what becomes of them: through the real file source and the real decoders."""

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnd.config.loader import from_values
from learnd.core.types import Position, Reject, Samples, TopicPartition
from learnd.runtime.reader import decode
from learnd.wiring.stream import make_decoder, make_source

T0 = 1705320000.0
"""2024-01-15 12:00 UTC."""
NAN = float("nan")
Row = tuple[float, ...]


@dataclass(frozen=True)
class Case:
    """One small file. Its fields are ts, temp, flow and power, unless *sections* say otherwise."""

    data: str | bytes
    rows: Sequence[Row] = ()
    """The expected samples: the features, then the target."""
    times: Sequence[float] | None = None
    """The expected times; None: `T0`, a minute apart."""
    rejects: Sequence[tuple[int, str, str]] = ()
    """The expected rejects: offset, reason, part of the message."""
    error: str | None = None
    """A part of the expected error."""
    keys: Sequence[str] | None = None
    name: str = "data.csv"
    source: dict[str, Any] = field(default_factory=dict)
    decode: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)


def loaded(case: Case, folder: Path) -> Any:
    """Write the file, and return the settings of the case."""
    path = folder / case.name
    data = case.data.encode() if isinstance(case.data, str) else case.data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    kind = "json" if "json" in case.name else "csv"
    values: dict[str, Any] = {
        "data_dir": str(folder / "data"),
        "source": {"kind": "file", "path": str(path), **case.source},
        "decode": {"kind": kind, "time": "ts", **case.decode},
        "features": ["temp", "flow"],
        "target": "power",
        "task": {"kind": "regression"},
        "model": {"kind": "linear"},
        "learning": {"mode": "per_sample"},
        **case.sections,
    }
    return from_values({name: value for name, value in values.items() if value is not None})


def read(settings: Any, *, start: dict[TopicPartition, Position] | None = None, chunk: int = 3) -> Iterator[Any]:
    """Yield the batches of the whole file."""
    decoder = make_decoder(settings)
    source = make_source(settings, decoder)
    source.open(start or {})
    while not source.exhausted():
        if runs := source.poll(chunk, 0.0):
            yield decode(runs, decoder)
    source.close()


def outcome(settings: Any) -> tuple[Samples, list[Reject]]:
    batches = list(read(settings))
    return Samples.concat([batch.samples for batch in batches]), [r for batch in batches for r in batch.rejects]


HEAD = "ts,temp,flow,power\n"
ROWS = [(24.082, 4.114, 15.855), (14.889, 4.708, 5.472)]
PLAIN = HEAD + "2024-01-15 12:00:00,24.082,4.114,15.855\n2024-01-15 12:01:00,14.889,4.708,5.472\n"
GERMAN = "ts;temp;flow;power\n2024-01-15 12:00:00;24,082;4,114;15,855\n2024-01-15 12:01:00;14,889;4,708;5,472\n"
ISO = ["2024-01-15 12:00:00", "2024-01-15 12:01:00"]
