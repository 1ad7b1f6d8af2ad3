"""Lines of delimited text."""

import csv
from collections.abc import Sequence
from typing import Any

import numpy as np

from learnd.core.errors import ConfigError
from learnd.core.layout import TextLayout
from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples
from learnd.decoders.settings import RECORD_KEY, CsvSettings
from learnd.decoders.validation import BadRecord, Fields, Rows, decode_records


class CsvDecoder:
    """One sample per line. Each line stands alone, so that a stray quote spoils its own record only.

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
        # An optional target is read one by one where it is empty: nan takes its place.
        self._missing = [
            np.nan if fields.targets_optional and field in fields.targets else field.missing for field in fields.numbers
        ]
        self._time = position[fields.time] if fields.time is not None else None
        self._key = position[fields.key] if fields.key not in (None, RECORD_KEY) else None
        self._label = position[fields.label] if fields.label is not None else None

    @classmethod
    def from_settings(cls, fields: Fields, settings: CsvSettings, layout: TextLayout) -> "CsvDecoder":
        """Return the configured decoder.

        Raises
        ------
        ConfigError
            if a field is not among the columns.
        """
        columns = settings.columns or layout.columns or ()
        missing = [name for name in fields.names if name not in columns]
        if missing:
            place = "source.path" if settings.columns is None and layout.columns is not None else "decode.columns"
            raise ConfigError(f"{place}: no column {', '.join(missing)}; there are {', '.join(columns)}")
        return cls(fields, columns, settings.delimiter or layout.delimiter)

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def _fast(self, values: Sequence[bytes]) -> Rows:
        lines = [self._cells(value.decode()) for value in values]
        numbers = [[float(cells[i]) for i in self._numbers] for cells in lines]
        if any(len(cells) != self._width for cells in lines):
            raise ValueError
        if any("_" in cells[i] for cells in lines for i in self._numbers):
            raise ValueError  # float() would read 1_0 as 10
        times = [self._moment(cells) for cells in lines] if self._time is not None else None
        keys = [cells[self._key] for cells in lines] if self._key is not None else None
        labels = [self._class(cells) for cells in lines] if self._label is not None else None
        stacked = np.array(numbers, dtype=np.float64).reshape(len(lines), len(self._numbers))
        return Rows(stacked, times, keys, range(len(lines)), labels)

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
        numbers = []
        for position, field, missing in zip(self._numbers, self._fields.numbers, self._missing, strict=True):
            numbers.append(_number(cells[position], field.name, missing))
        times = [self._moment(cells)] if self._time is not None else None
        keys = [cells[self._key]] if self._key is not None else None
        labels = [self._class(cells)] if self._label is not None else None
        return Rows(np.array([numbers], dtype=np.float64), times, keys, [0], labels)

    def _cells(self, line: str) -> list[str]:
        if '"' in line:
            return next(csv.reader([line], delimiter=self._delimiter, strict=True))
        return line.split(self._delimiter)

    def _class(self, cells: list[str]) -> str | None:
        label = cells[self._label or 0].strip()
        if not label:
            if self._fields.targets_optional:
                return None
            raise BadRecord(RejectReason.MISSING_FIELD, f"{self._fields.label} is empty")
        return label

    def _moment(self, cells: list[str]) -> Any:
        """A number where the cell is one, else the text, which then must be ISO 8601."""
        text = cells[self._time or 0]
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


def _float(text: str) -> float:
    """The number, with nothing in it that only Python takes for one (``1_0``).

    >>> _float("1.5")
    1.5
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)
