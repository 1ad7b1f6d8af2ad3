"""The decoder for lines of delimited text."""

import csv
from collections.abc import Sequence

import numpy as np

from learnd.core.errors import ConfigError, Problem
from learnd.core.layout import TextLayout
from learnd.core.names import suggestion
from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples
from learnd.decoders.fields import Fields
from learnd.decoders.settings import RECORD_KEY, CsvSettings
from learnd.decoders.validation import BadRecord, Rows, decode_records


def missing_columns(missing: Sequence[str], columns: Sequence[str], place: str) -> list[Problem]:
    """Return a problem for each name that is no column, with the nearest column.

    >>> print(missing_columns(["tmp"], ["temp", "flow"], "source.path")[0])
    source.path: no column tmp; did you mean temp? The columns are temp, flow
    """
    problems = []
    for name in missing:
        hint = suggestion(name, columns)
        message = f"no column {name}{f'{hint} The' if hint else '; the'} columns are {', '.join(columns)}"
        problems.append(Problem(place, message, field=name))
    return problems


class CsvDecoder:
    """Decoder of one sample per line. Each line is parsed by itself, so a stray quote spoils only its own record.

    Raises
    ------
    KeyError
        if a field is not among *columns*; `from_settings` checks that first.
    """

    def __init__(self, fields: Fields, columns: Sequence[str], delimiter: str = ",") -> None:
        self._fields = fields
        self._delimiter = delimiter
        self._width = len(columns)
        position = {name: i for i, name in enumerate(columns)}
        self._numbers = [position[field.name] for field in fields.numbers]
        self._stop = position[fields.stop.name] if fields.stop is not None else None
        # Only the slow path accepts an empty cell; nan stands for an optional target.
        self._missing = [
            np.nan if fields.targets_optional and field in fields.targets else field.missing for field in fields.numbers
        ]
        self._time = position[fields.time] if fields.time is not None else None
        self._clocks = [position[name] for name in fields.clocks]
        self._key = position[fields.key] if fields.key not in (None, RECORD_KEY) else None
        self._label = position[fields.label] if fields.label is not None else None

    @classmethod
    def from_settings(cls, fields: Fields, settings: CsvSettings, layout: TextLayout) -> "CsvDecoder":
        """Return the configured decoder.

        Raises
        ------
        ConfigError
            if a configured field is not among the columns.
        """
        columns = settings.columns or layout.columns or ()
        missing = [name for name in fields.names if name not in columns]
        if missing:
            place = "source.path" if settings.columns is None and layout.columns is not None else "decode.columns"
            raise ConfigError(*missing_columns(missing, columns, place))
        return cls(fields, columns, settings.delimiter or layout.delimiter)

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def _fast(self, values: Sequence[bytes]) -> Rows:
        lines = [self._cells(value.decode()) for value in values]
        if self._stop is not None:
            for cells in lines:
                cells[self._stop] = _flag(cells[self._stop])
        numbers = [[float(cells[i]) for i in self._numbers] for cells in lines]
        if any(len(cells) != self._width for cells in lines):
            raise ValueError
        if any("_" in cells[i] for cells in lines for i in self._numbers):
            raise ValueError  # float() reads 1_0 as 10
        times = [_time_cell(cells[self._time]) for cells in lines] if self._time is not None else None
        clocks = [[_time_cell(cells[i]) for cells in lines] for i in self._clocks]
        keys = [cells[self._key] for cells in lines] if self._key is not None else None
        labels = [self._class_label(cells) for cells in lines] if self._label is not None else None
        stacked = np.array(numbers, dtype=np.float64).reshape(len(lines), len(self._numbers))
        return Rows(stacked, times, keys, range(len(lines)), clocks, labels)

    def _slow(self, value: bytes) -> Rows:
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise BadRecord(RejectReason.BAD_UTF8, f"byte {error.start}: {error.reason}") from None
        try:
            cells = self._cells(text)
        except (csv.Error, StopIteration) as error:
            raise BadRecord(RejectReason.UNPARSABLE, str(error) or "an empty line") from None
        if len(cells) != self._width:
            raise BadRecord(RejectReason.UNPARSABLE, f"{len(cells)} columns, expected {self._width}")
        if self._stop is not None:
            cells[self._stop] = _flag(cells[self._stop])
        numbers = []
        for position, field, missing in zip(self._numbers, self._fields.numbers, self._missing, strict=True):
            numbers.append(_number(cells[position], field.name, missing))
        times = [_time_cell(cells[self._time])] if self._time is not None else None
        clocks = [[_time_cell(cells[i])] for i in self._clocks]
        keys = [cells[self._key]] if self._key is not None else None
        labels = [self._class_label(cells)] if self._label is not None else None
        return Rows(np.array([numbers], dtype=np.float64), times, keys, [0], clocks, labels)

    def _cells(self, line: str) -> list[str]:
        if '"' in line:
            return next(csv.reader([line], delimiter=self._delimiter, strict=True))
        return line.split(self._delimiter)

    def _class_label(self, cells: list[str]) -> str | None:
        label = cells[self._label or 0].strip()
        if not label:
            if self._fields.targets_optional:
                return None
            raise BadRecord(RejectReason.MISSING_FIELD, f"{self._fields.label} is empty")
        return label


def _time_cell(text: str) -> float | str:
    """Return the time cell as a number if it is one, otherwise as text, which must then be ISO 8601."""
    try:
        return _float(text)
    except ValueError:
        return text


def _number(text: str, name: str, missing: float | None) -> float:
    if not text.strip():
        if missing is None:
            raise BadRecord(RejectReason.MISSING_FIELD, f"{name} is empty")
        return missing
    try:
        return _float(text)
    except ValueError:
        raise BadRecord(RejectReason.WRONG_TYPE, f"{name} is {text[:64]!r}, not a number") from None


def _flag(text: str) -> str:
    """Return the text of a number for the text of a flag.

    >>> _flag("true"), _flag(" False "), _flag(""), _flag("2")
    ('1', '0', '0', '2')
    """
    return {"true": "1", "false": "0", "": "0"}.get(text.strip().lower(), text)


def _float(text: str) -> float:
    """Return *text* as a number; refuse digits with underscores (``1_0``), which only Python accepts.

    >>> _float("1.5")
    1.5
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)
