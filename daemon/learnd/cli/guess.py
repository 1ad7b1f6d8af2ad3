"""A configuration that fits given records, for ``learnd init --from``. Each guess is stated, to be checked."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnd.core.delimited import WHITESPACE, splitter
from learnd.core.errors import UsageError
from learnd.core.numbers import EXAMPLES, number_parser
from learnd.core.times import EPOCH_FIRST_S, EPOCH_LAST_S, EXCEL, UNITS_S, TimeReader, fitting_patterns
from learnd.decoders.settings import MISSING_VALUES
from learnd.decoders.text import FLAGS

_DELIMITERS = (";", "\t", "|", ",", WHITESPACE)
_TIME_NAMES = ("time", "date", "ts", "stamp", "zeit", "datum")
_KEY_NAMES = ("id", "key", "machine", "device", "sensor", "unit", "name", "asset", "station")
_TARGET_NAMES = ("target", "label", "y", "class")
_MOST_ELEMENTS = 32
_ZONE = re.compile(r"(Z|UTC|[+-]\d\d:?\d\d)$")
_CLOCK = re.compile(r"\d{1,2}[:.]\d\d([:.]\d\d)?( [AaPp][Mm])?")
_NAMED_VALUE = re.compile(r"\[name=([^=\[\]]+)\]\.value$")


@dataclass(slots=True)
class Guess:
    """Sections of a configuration, and what is to be checked about them."""

    source: dict[str, Any] = field(default_factory=dict)
    decode: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def guess_encoding(start: bytes) -> str | None:
    """Return the encoding of a file without a byte order mark, by its first bytes; None: UTF-8.

    >>> [guess_encoding("größe".encode(name)) for name in ("utf-8", "cp1252", "utf-16-le")]
    [None, 'cp1252', 'utf-16-le']
    """
    if b"\0" in start:
        return "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
    try:
        start[: start.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        return "cp1252"
    return None


def guess_csv(lines: Sequence[str], *, tabs: bool = False) -> Guess:
    """Return the configuration for the first lines of a CSV file.

    Raises
    ------
    UsageError
        if there are no columns in it.
    """
    guess = Guess()
    kept = [(i, line) for i, line in enumerate(lines) if line.strip()]
    if (
        kept
        and kept[0][1].lstrip().startswith("#")
        and sum(line.lstrip().startswith("#") for _, line in kept) < len(kept)
    ):
        guess.source["comment"] = "#"
        kept = [(i, line) for i, line in kept if not line.lstrip().startswith("#")]
    delimiter, width = _delimiter([line for _, line in kept])
    if delimiter not in (",", "\t" if tabs else ","):
        guess.source["delimiter"] = delimiter
    rows = [(i, _cells(line, delimiter)) for i, line in kept]
    first = next((n for n, (_, cells) in enumerate(rows) if len(cells) == width), None)
    if first is None:
        raise UsageError("--from: the file has no lines yet; there is nothing to look at")
    if first:
        guess.source["skip_lines"] = rows[first][0]
    names, body = rows[first][1], [cells for _, cells in rows[first + 1 :] if len(cells) == width]
    if any(_is_number(cell) for cell in names if cell):
        guess.source["header"] = False
        names, body = [f"column_{n + 1}" for n in range(width)], [names, *body]
        guess.decode["columns"] = names
        guess.notes.append("the file has no line of names; decode.columns has made-up ones")
    elif len(body) > 1 and not any(map(_is_number, body[0])) and any(map(_is_number, body[1])):
        guess.source["skip_after_header"] = 1
        body = body[1:]
    guess.decode = {"kind": "csv", **guess.decode}
    if double := [name for name, n in Counter(names).items() if n > 1 and name]:
        guess.notes.append(f"more than one column is called {', '.join(double)}; they are left out")
    columns = {name: [cells[n] for cells in body] for n, name in enumerate(names) if name and name not in double}
    _choose(guess, columns)
    return guess


def guess_json(records: Sequence[object]) -> Guess:
    """Return the configuration for the first records of JSON, nested or not.

    Raises
    ------
    UsageError
        if they hold no numbers.
    """
    guess = Guess(decode={"kind": "json"})
    flat = [dict(_leaves(record)) for record in records]
    paths = list(dict.fromkeys(path for record in flat for path in record))
    short = {path: m[1] if (m := _NAMED_VALUE.search(path)) else path.rpartition(".")[2] for path in paths}
    taken = Counter(short.values())
    names = {path: short[path] if taken[short[path]] == 1 and "[" not in short[path] else path for path in paths}
    columns = {names[path]: [record.get(path) for record in flat] for path in paths}
    _choose(guess, columns)
    used = {
        guess.decode.get("time"),
        guess.decode.get("key"),
        *guess.sections["features"],
        guess.sections.get("target"),
    }
    nested = {name: path for path, name in names.items() if name in used and ("." in path or "[" in path)}
    if nested:
        guess.decode["paths"] = nested
    return guess


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values inside a record with their paths."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            step = f'["{key}"]' if any(mark in key for mark in ".[]\"'") else key
            yield from _leaves(inner, f"{path}.{step}" if path and not step.startswith("[") else f"{path}{step}")
    elif isinstance(value, list):
        elements = value[:_MOST_ELEMENTS]
        # Elements with names are found by them, because their order may change.
        named = [str(inner["name"]) for inner in elements if isinstance(inner, Mapping) and inner.get("name")]
        use_names = len({*named}) == len(elements) and not any(mark in name for name in named for mark in "[]=")
        for i, inner in enumerate(elements):
            if use_names:
                rest = {key: item for key, item in inner.items() if key != "name"}
                yield from _leaves(rest, f"{path}[name={named[i]}]")
            else:
                yield from _leaves(inner, f"{path}[{i}]")
    else:
        yield path, value


def _choose(guess: Guess, columns: Mapping[str, Sequence[object]]) -> None:
    """Choose the time, the key, the features and the target among *columns*."""
    filled = {name: [v for v in values if not _is_missing(v)] for name, values in columns.items()}
    filled = {name: values for name, values in filled.items() if values}
    time = _time(guess, filled)
    rest = {n: values for n, values in filled.items() if n not in (time, guess.decode.get("time_of_day"))}
    numeric = _number_format(guess, rest)
    flags = [name for name, values in rest.items() if name not in numeric and all(map(_is_flag, values))]
    if flags:
        guess.decode["booleans"] = "numbers"
    texts = {name: values for name, values in rest.items() if name not in numeric and name not in flags}
    if any(isinstance(value, str) for name in numeric for value in rest[name]) and guess.decode["kind"] == "json":
        guess.decode["text_numbers"] = "accept"
    key = next(
        (n for n in texts if any(k in n.lower() for k in _KEY_NAMES) and len({*map(str, texts[n])}) < len(texts[n])),
        None,
    )
    if key is not None:
        guess.decode["key"] = key
        guess.notes.append(
            f"key: {key} has {len({*map(str, texts[key])})} values; windows and limits apply to each of them"
        )
    inputs = [name for name in rest if name in numeric or name in flags]
    if not inputs:
        raise UsageError("--from: no column of numbers; there is nothing to learn from")
    if others := [name for name in texts if name != key]:
        guess.notes.append(f"left out, because they are texts: {', '.join(others)}")
    target = next((n for n in inputs if n.lower() in _TARGET_NAMES), inputs[-1])
    if len(inputs) == 1:
        guess.sections = {"features": inputs, "task": {"kind": "forecast", "window": 8}}
    else:
        guess.sections = {"features": [name for name in inputs if name != target], "target": target}
        guess.notes.append(f"target: {target} is a guess; name the field that shall be predicted")


def _time(guess: Guess, columns: Mapping[str, Sequence[object]]) -> str | None:
    """Return the field with the time, and note how it is read; None: there is none."""
    named = sorted(columns, key=lambda name: not any(part in name.lower() for part in _TIME_NAMES))
    for name in named:
        values = columns[name]
        if all(isinstance(value, str) and not _is_number(value) and not _CLOCK.fullmatch(value) for value in values):
            texts = [str(value) for value in values]
            patterns: list[str] = []
            clock = next((other for other in named if other != name and _is_clock(columns[other], len(texts))), None)
            if clock is not None and not any(":" in text for text in texts):
                texts = [f"{text} {time}" for text, time in zip(texts, map(str, columns[clock]), strict=True)]
                guess.decode["time_of_day"] = clock
            if not _reads(TimeReader().seconds, texts):
                patterns = [p for p in fitting_patterns(texts[0]) if _reads(TimeReader(formats=(p,)).seconds, texts)]
                if not patterns:
                    guess.decode.pop("time_of_day", None)
                    continue
                guess.decode["time_format"] = patterns[0]
                if len(patterns) > 1:
                    guess.notes.append(f"time_format: {' or '.join(patterns[:2])}; these times fit both, so check it")
            guess.decode["time"] = name
            if not all(_ZONE.search(text) for text in texts):
                guess.notes.append("times without a zone are taken for UTC; otherwise set decode.time_zone")
            return name
    for name in named:
        if not any(part in name.lower() for part in _TIME_NAMES):
            break
        numbers: list[Any] = list(columns[name])
        for unit in UNITS_S:
            if _reads(TimeReader(unit, first_s=EPOCH_FIRST_S, last_s=EPOCH_LAST_S).seconds, numbers):
                guess.decode |= {"time": name} if unit == "s" else {"time": name, "time_unit": unit}
                return name
        for pattern in ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d", EXCEL):
            if _reads(TimeReader(formats=(pattern,)).seconds, numbers):
                guess.decode |= {"time": name, "time_format": pattern}
                return name
        if _reads(TimeReader().seconds, numbers):
            guess.decode |= {"time": name, "time_numbers": "any"}
            guess.notes.append(f"time: {name} is no date, so it is taken for a number of seconds since a start")
            return name
    return None


def _is_clock(values: Sequence[object], count: int) -> bool:
    """Return whether all of *count* values are times of day."""
    return len(values) == count and all(isinstance(value, str) and _CLOCK.fullmatch(value) for value in values)


def _number_format(guess: Guess, columns: Mapping[str, Sequence[object]]) -> set[str]:
    """Return the names of the columns of numbers; note a format that is not the usual one."""
    best: tuple[int, str, set[str]] = (-1, EXAMPLES[0], set())
    fitting = []
    for example in EXAMPLES:
        parse = number_parser(example)
        fits = {name for name, values in columns.items() if all(_is_numeric(value, parse) for value in values)}
        fitting.append((example, fits))
        if len(fits) > best[0]:
            best = (len(fits), example, fits)
    alike = [example for example, fits in fitting if len(fits) == best[0]]
    example = best[1]
    if example != EXAMPLES[0]:
        if guess.source.get("delimiter") == ";":
            example = next((other for other in alike if other[-3] == ","), example)
        guess.decode["number_format"] = example
        if len(alike) > 1:
            guess.notes.append(f"number_format: the numbers can be read as {' or as '.join(alike)}; check it")
    return next(fits for other, fits in fitting if other == example)


def _is_numeric(value: object, parse: Callable[[str], float]) -> bool:
    if isinstance(value, str):
        return _reads(parse, [value])
    return isinstance(value, int | float) and not isinstance(value, bool)


def _reads(parse: Callable[[Any], float], values: Sequence[Any]) -> bool:
    """Return whether *parse* reads all values."""
    try:
        for value in values:
            parse(value)
    except (ValueError, TypeError):
        return False
    return True


def _is_number(value: object) -> bool:
    return isinstance(value, str) and any(_reads(number_parser(example), [value]) for example in EXAMPLES)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in FLAGS)


def _is_missing(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip() or value.strip().lower() in MISSING_VALUES
    return value is None or isinstance(value, dict | list) or value != value


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in splitter(delimiter)(line)]
    except ValueError:
        return []


def _delimiter(lines: Sequence[str]) -> tuple[str, int]:
    """Return the delimiter by which most lines have the same number of cells, more than one, and that number."""
    best, found = 0.0, (",", 1)
    for delimiter in _DELIMITERS:
        widths = Counter(len(_cells(line, delimiter)) for line in lines)
        width, count = max(((w, n) for w, n in widths.items() if w > 1), key=lambda pair: pair[1], default=(1, 0))
        if count > best:
            best, found = count, (delimiter, width)
    return found


def first_bytes(path: Path) -> bytes:
    """Return the start of a file, gzipped or not.

    Raises
    ------
    UsageError
        if it cannot be read.
    """
    import gzip

    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            return file.read(1 << 16)
    except (OSError, EOFError) as error:
        raise UsageError(f"--from: {path} cannot be read: {error}") from None


def parsed_records(values: Sequence[bytes]) -> list[object]:
    """Return the JSON records among *values*; those that cannot be parsed are left out."""
    records = []
    for value in values:
        try:
            records.append(json.loads(value))
        except ValueError:
            continue
    return records
