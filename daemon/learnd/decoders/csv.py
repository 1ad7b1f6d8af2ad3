"""The decoder for lines of delimited text."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from learnd.core.delimited import WHITESPACE, other_delimiters, splitter
from learnd.core.errors import ConfigError
from learnd.core.layout import TextLayout
from learnd.core.numbers import ParseNumber, fitting_examples, number_parser
from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples
from learnd.decoders.fields import Field, Fields
from learnd.decoders.settings import RECORD_KEY, CsvSettings
from learnd.decoders.text import FLAGS, bad_text_hint
from learnd.decoders.validation import BadRecord, Rows, decode_records, missing_hint


class CsvDecoder:
    """Decoder of one sample per line. Each line is parsed by itself, so a stray quote spoils only its own record.

    Parameters
    ----------
    parse : reads a number; see `learnd.core.numbers`
    booleans : read true and false as 1 and 0
    encoding : of the records

    Raises
    ------
    KeyError
        if a field is not among *columns*; `from_settings` checks that first.
    """

    def __init__(
        self,
        fields: Fields,
        columns: Sequence[str],
        delimiter: str = ",",
        *,
        parse: ParseNumber | None = None,
        booleans: bool = False,
        encoding: str = "utf-8",
    ) -> None:
        self._fields = fields
        self._delimiter = delimiter
        self._plain_delimiter = None if delimiter == WHITESPACE else delimiter
        self._split = splitter(delimiter)
        self._has_formats = bool(fields.time_reader.formats)
        self._encoding = encoding
        self._parse = parse
        self._booleans = booleans
        self._width = len(columns)
        position = {name: i for i, name in enumerate(columns)}
        self._position = {name: position[name] for name in fields.names}
        self._numbers = [position[field.name] for field in fields.numbers]
        self._stop = position[fields.stop.name] if fields.stop is not None else None
        # nan stands for an optional target.
        self._missing = [
            np.nan if fields.targets_optional and field in fields.targets else field.missing for field in fields.numbers
        ]
        self._time = position[fields.time] if fields.time is not None else None
        self._time_of_day = position[fields.time_of_day] if fields.time_of_day is not None else None
        self._clocks = [position[name] for name in fields.clocks]
        self._key = position[fields.key] if fields.key not in (None, RECORD_KEY) else None
        self._label = position[fields.label] if fields.label is not None else None

    @classmethod
    def from_settings(cls, fields: Fields, settings: CsvSettings, layout: TextLayout) -> "CsvDecoder":
        """Return the configured decoder.

        Raises
        ------
        ConfigError
            if a configured field is not among the columns, or is the name of two.
        """
        delimiter = settings.delimiter or layout.delimiter
        columns = settings.columns or _columns(settings, layout)
        place = "decode.columns" if settings.columns is not None or layout.columns is None else "source.path"
        _check_columns(fields.names, columns, place, layout, delimiter)
        return cls(
            fields,
            columns,
            delimiter,
            parse=number_parser(settings.number_format) if settings.number_format else None,
            booleans=settings.booleans == "numbers",
            encoding=settings.encoding or "utf-8",
        )

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def fields_of(self, value: bytes) -> Mapping[str, object]:
        try:
            cells = self._split(value.decode(self._encoding))
        except ValueError:
            return {}
        return {name: cells[i].strip() for name, i in self._position.items() if i < len(cells)}

    def _fast(self, values: Sequence[bytes]) -> Rows:
        texts = [value.decode(self._encoding) for value in values]
        lines = [self._split(text) if '"' in text else text.split(self._plain_delimiter) for text in texts]
        if any(len(cells) != self._width for cells in lines):
            raise ValueError
        if self._stop is not None:
            for cells in lines:
                cells[self._stop] = _flag(cells[self._stop])
        return self._rows(lines, self._numbers_of(lines))

    def _numbers_of(self, lines: Sequence[Sequence[str]]) -> list[list[float]]:
        try:
            if self._parse is not None:
                return [[self._parse(cells[i]) for i in self._numbers] for cells in lines]
            if not any("_" in cells[i] for cells in lines for i in self._numbers):  # float() reads 1_0 as 10
                return [[float(cells[i]) for i in self._numbers] for cells in lines]
        except ValueError:
            pass
        fields = list(zip(self._numbers, self._fields.numbers, self._missing, strict=True))
        return [[self._number(cells[i], field, missing) for i, field, missing in fields] for cells in lines]

    def _rows(self, lines: Sequence[list[str]], numbers: list[list[float]]) -> Rows:
        times: list[float | str] | None = None
        if self._time is not None and self._time_of_day is not None:
            times = [f"{cells[self._time].strip()} {cells[self._time_of_day].strip()}" for cells in lines]
        elif self._time is not None:
            times = [self._time_cell(cells[self._time]) for cells in lines]
        clocks = [[self._time_cell(cells[i]) for cells in lines] for i in self._clocks]
        keys = [cells[self._key].strip() for cells in lines] if self._key is not None else None
        labels = [self._class_label(cells) for cells in lines] if self._label is not None else None
        stacked = np.array(numbers, dtype=np.float64).reshape(len(lines), len(self._numbers))
        return Rows(stacked, times, keys, range(len(lines)), clocks, labels)

    def _slow(self, value: bytes) -> Rows:
        try:
            text = value.decode(self._encoding)
        except UnicodeDecodeError as error:
            detail = f"byte {error.start}: {error.reason}{bad_text_hint(value)}"
            raise BadRecord(RejectReason.BAD_UTF8, detail) from None
        try:
            cells = self._split(text)
        except ValueError as error:
            raise BadRecord(RejectReason.UNPARSABLE, str(error) or "an empty line") from None
        if len(cells) != self._width:
            raise BadRecord(RejectReason.UNPARSABLE, self._width_problem(text, cells) + bad_text_hint(value))
        return self._fast([value])

    def _number(self, text: str, field: Field, missing: float | None) -> float:
        """Return the number in a cell, or what stands for a missing one. NaN stays: it is looked at later."""
        try:
            if "_" not in text:
                return float(text) if self._parse is None else self._parse(text)
        except ValueError:
            pass
        if self._fields.is_missing(text):
            if missing is None:
                what = f"is {field.shown(text)}" if text.strip() else "is empty"
                raise BadRecord(RejectReason.MISSING_FIELD, f"{field.name} {what}{missing_hint(field, self._fields)}")
            return missing
        if self._booleans and (flag := FLAGS.get(text.strip().lower())) is not None:
            return flag
        detail = f"{field.name} is {field.shown(text)}, not a number{self._number_hint(text)}"
        raise BadRecord(RejectReason.WRONG_TYPE, detail)

    def _number_hint(self, text: str) -> str:
        if (examples := fitting_examples(text)) and len(text) <= 64:
            return "; set decode.number_format: " + " or ".join(f'"{example}"' for example in examples)
        if other := next((mark for mark in ";\t|" if mark in text), None):
            return f"; set decode.delimiter: {json.dumps(other)}, if that stands between two cells"
        if text.strip().lower() in FLAGS:
            return "; set decode.booleans: numbers"
        if any(character.isdigit() for character in text):
            return "; a unit or a sign around a number is not read: leave it out where the records are written"
        return "; a word for a missing value belongs into decode.missing_values, a line of units is left out by " + (
            "source.skip_after_header"
        )

    def _width_problem(self, text: str, cells: Sequence[str]) -> str:
        problem = f"{len(cells)} columns, expected {self._width}"
        for delimiter, others in other_delimiters(text, self._delimiter).items():
            if len(others) == self._width:
                return f'{problem}; set decode.delimiter: "{delimiter}"'
        if not cells[-1].strip() and len(cells) == self._width + 1:
            return f"{problem}; the last is empty: name it too, in decode.columns"
        return problem

    def _time_cell(self, text: str) -> float | str:
        """Return the time cell as a number if it is one and no pattern is set; otherwise as text."""
        if self._has_formats or "_" in text:
            return text
        try:
            return float(text) if self._parse is None else self._parse(text)
        except ValueError:
            return text.strip()

    def _class_label(self, cells: list[str]) -> str | None:
        label = cells[self._label or 0].strip()
        if not label:
            if self._fields.targets_optional:
                return None
            raise BadRecord(RejectReason.MISSING_FIELD, f"{self._fields.label} is empty")
        return label


def _columns(settings: CsvSettings, layout: TextLayout) -> Sequence[str]:
    """Return the columns of the header; split by the decoder's own delimiter, if it has one."""
    if layout.header is None or settings.delimiter in (None, layout.delimiter):
        return layout.columns or ()
    return [name.strip() for name in splitter(settings.delimiter)(layout.header)]


def _check_columns(
    names: Sequence[str], columns: Sequence[str], place: str, layout: TextLayout, delimiter: str
) -> None:
    """Raise `ConfigError` if one of *names* is no column, or is the name of two."""
    header = layout.header if place == "source.path" else None
    where = f"{place}: {layout.place}: " if header is not None and layout.place else f"{place}: "
    if missing := [name for name in names if name not in columns]:
        message = f"{where}no column {', '.join(missing)}; the columns are {', '.join(columns)}"
        for other, cells in other_delimiters(header or "", delimiter).items():
            if sum(name in cells for name in names) > sum(name in columns for name in names):
                message += f'; with source.delimiter: "{other}" they are {", ".join(cells)}'
        if header is not None and len(missing) == len(names) and "they are" not in message:
            message += "; if the names stand on another line, set source.skip_lines, or source.comment"
        alike = {name.casefold(): name for name in columns}
        if found := [f"{name} is written {alike[name.casefold()]}" for name in missing if name.casefold() in alike]:
            message += f"; {', '.join(found)}"
        raise ConfigError(message)
    counts = Counter(columns)
    if twice := [name for name in names if counts[name] > 1]:
        numbers = {name: [i + 1 for i, column in enumerate(columns) if column == name] for name in dict.fromkeys(twice)}
        places = "; ".join(f"{name} is the name of the columns {', '.join(map(str, n))}" for name, n in numbers.items())
        way_out = "give each its own name" + ("" if header is None else ", or name all columns in decode.columns")
        raise ConfigError(f"{where}{places}; {way_out}")


def _flag(text: str) -> str:
    """Return the text of a number for the text of a flag.

    >>> _flag("true"), _flag(" False "), _flag(""), _flag("2")
    ('1', '0', '0', '2')
    """
    return {"true": "1", "false": "0", "": "0"}.get(text.strip().lower(), text)
