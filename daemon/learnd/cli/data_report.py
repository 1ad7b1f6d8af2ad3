"""The report of ``learnd validate --data``: what the first records hold, and what becomes of them."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from learnd.config.settings import Settings
from learnd.core.errors import BadDataError
from learnd.core.numbers import ParseNumber, number_parser, plain_number
from learnd.core.protocols import Decoder, Source
from learnd.core.reasons import RejectReason
from learnd.core.types import Float64Array, Records, Samples, offsets_of
from learnd.wiring.stream import make_decoder, make_source

RECORDS = 1000
"""Number of records that are looked at."""
_WAIT_S = 10.0
"""Time without a record after which a topic is taken to have no more."""
_EXAMPLES, _WIDTH = 3, 20


@dataclass(slots=True)
class _Column:
    """The values of one field."""

    present: int = 0
    missing: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, value: object, parse: ParseNumber, *, is_missing: bool) -> None:
        """Count one value."""
        if is_missing:
            self.missing += 1
        else:
            self.present += 1
        self.kinds[kind_of(value, parse)] += 1
        text = value if isinstance(value, str) else repr(value)
        text = text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
        if text not in self.examples and len(self.examples) < _EXAMPLES:
            self.examples.append(text)


@dataclass(frozen=True, slots=True)
class Report:
    """The contents of the first records: the type and range of each field, and the rejects."""

    text: str
    records: int
    rejected: int


def report(settings: Settings) -> Report:
    """Return the report on the first `RECORDS` records of the configured source. Nothing is learned or committed.

    Raises
    ------
    BadDataError
        if there is none.
    LearndError
        if the source cannot be read, or lacks a configured field.
    """
    decoder = make_decoder(settings)
    runs = list(first_records(make_source(settings, decoder)))
    records = sum(len(run) for run in runs)
    if not records:
        raise BadDataError(f"source: has no records yet ({settings.source.kind}); there is nothing to look at")
    decoded = [decoder.decode(run) for run in runs]
    samples = Samples.concat([good for good, _ in decoded])
    rejects = [reject for _, bad in decoded for reject in bad]
    counts = Counter(reject.reason for reject in rejects)
    first: dict[RejectReason, str] = {}
    for reject in rejects:
        first.setdefault(reject.reason, f"record {reject.offset}: {reject.detail}")
    columns = _columns(settings, decoder, runs)
    lines = [
        f"{records} records: {records - len(rejects)} accepted, {len(rejects)} rejected",
        "",
        *table(["field", "is", "found", "present", "missing", "range", "examples"], _rows(settings, columns, samples)),
    ]
    if settings.decode.long is not None:
        seen = {str(name) for good, _ in decoded if good.labels is not None for name in good.labels}
        if never := [name for name in (*settings.reading_names, *settings.target) if name not in seen]:
            lines += ["", f"no record is named {', '.join(never)}; the names are {', '.join(sorted(seen)[:20])}"]
    if counts:
        lines += [
            "",
            *table(["rejects", "count", "the first"], [[r, str(n), first[r]] for r, n in counts.most_common()]),
        ]
    return Report("\n".join(lines), records, len(rejects))


def first_records(source: Source, count: int = RECORDS) -> Iterator[Records]:
    """Yield the first records of a source, until there are *count* or no more."""
    source.open({})
    try:
        ends, left, idle_s = source.ends(), count, 0.0
        while left > 0 and not source.exhausted() and idle_s < _WAIT_S:
            started_s = time.monotonic()
            for run in source.poll(left, 0.5):
                if len(run):
                    left -= len(run)
                    idle_s = -1e-9
                    yield run
            reached = offsets_of(source.positions())
            if ends and all(reached.get(partition, 0) >= end for partition, end in ends.items()):
                return
            idle_s = 0.0 if idle_s < 0 else idle_s + time.monotonic() - started_s
    finally:
        source.close()


def kind_of(value: object, parse: ParseNumber = plain_number) -> str:
    """Return what a value is, for people; *parse* reads numbers.

    >>> [kind_of(value) for value in (1.5, "1.5", "n/a", "", None, True, [1])]
    ['number', 'number as text', 'text', 'nothing', 'null', 'boolean', 'list']
    """
    if isinstance(value, str):
        try:
            parse(value)
        except ValueError:
            return "text" if value.strip() else "nothing"
        return "number as text"
    names = {type(None): "null", bool: "boolean", list: "list", dict: "object"}
    return names.get(type(value), "number")


def _columns(settings: Settings, decoder: Decoder, runs: Sequence[Records]) -> dict[str, _Column]:
    columns = {name: _Column() for name in _roles(settings)}
    words = {word.strip().lower() for word in settings.decode.missing_values}
    parse = number_parser(settings.decode.numbers_as)
    for run in runs:
        for value in run.values:
            fields = decoder.fields_of(value) if value is not None else {}
            for name, column in columns.items():
                if name not in fields:
                    column.missing += 1
                    continue
                found = fields[name]
                missing = found is None or (isinstance(found, float) and math.isnan(found))
                if isinstance(found, str):
                    missing = not found.strip() or found.strip().lower() in words
                column.add(found, parse, is_missing=missing)
    return columns


def _roles(settings: Settings) -> dict[str, str]:
    """Return the configured fields of a record, each with its role."""
    decode = settings.decode
    roles = dict.fromkeys(settings.reading_names, "feature") | dict.fromkeys(settings.target, "target")
    if decode.long is not None:
        roles = {decode.long.name: "name", decode.long.value: "value"}
    extra = {
        decode.time: "time",
        decode.time_of_day: "time of day",
        decode.key: "key",
        settings.learning.sample_weight: "weight",
    }
    return roles | {name: role for name, role in extra.items() if name is not None and not name.startswith("__")}


def _rows(settings: Settings, columns: Mapping[str, _Column], samples: Samples) -> list[list[str]]:
    ranges = dict(zip(settings.reading_names, map(_range, samples.x.T), strict=False))
    if settings.decode.long is not None:
        ranges = {settings.decode.long.value: _range(samples.x[:, 0])}
    elif samples.labels is None:
        ranges |= dict(zip(settings.target, map(_range, samples.y.T), strict=False))
    elif len(samples):
        ranges[settings.target[0]] = f"{len({*samples.labels.tolist()})} classes"
    if settings.decode.time is not None and len(samples):
        ranges[settings.decode.time] = f"{_moment(samples.times_s.min())} to {_moment(samples.times_s.max())}"
    if settings.decode.key is not None and len(samples):
        ranges[settings.decode.key] = f"{len({*samples.keys.tolist()})} keys"
    roles, rows = _roles(settings), []
    for name, column in columns.items():
        feature = settings.features.get(name)
        secret = feature is not None and feature.secret
        # CSV has only text: a column of numbers is one of numbers.
        kinds = column.kinds
        if settings.decode.needs_lines:
            kinds = Counter({kind.removesuffix(" as text"): n for kind, n in kinds.items()})
        found = ", ".join(f"{kind} ({n})" if len(kinds) > 1 else kind for kind, n in kinds.most_common()) or "absent"
        shown = ["(secret)"] * 2 if secret else [ranges.get(name, ""), ", ".join(column.examples)]
        rows.append([name, roles[name], found, str(column.present), str(column.missing), *shown])
    return rows


def _range(numbers: Float64Array) -> str:
    numbers = numbers[np.isfinite(numbers)]
    return f"{numbers.min():g} to {numbers.max():g}" if len(numbers) else ""


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat(" ", "seconds").removesuffix("+00:00")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table.

    >>> table(["a", "b"], [["1", "long"]])
    ['a  b', '1  long']
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)]
