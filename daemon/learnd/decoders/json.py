"""The decoder for JSON objects, by way of a struct with the configured fields."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from learnd.core.labels import label_text
from learnd.core.layout import TextLayout
from learnd.core.numbers import ParseNumber, number_parser
from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples
from learnd.decoders.fields import Fields
from learnd.decoders.nested import Adapter, parsed
from learnd.decoders.settings import RECORD_KEY, JsonSettings
from learnd.decoders.text import bad_text_hint
from learnd.decoders.validation import BadRecord, Rows, decode_records


class JsonDecoder:
    """Decoder of one sample per object.

    Unknown fields are ignored. Numbers must be JSON numbers, unless an option accepts texts or booleans. A field is
    read at the top of the record, dots and all, unless it has a path.

    Parameters
    ----------
    parse : reads a number in a text; None: a text is no number
    booleans : read true and false as 1 and 0
    encoding : of the records; None: UTF-8
    """

    def __init__(
        self, fields: Fields, *, parse: ParseNumber | None = None, booleans: bool = False, encoding: str | None = None
    ) -> None:
        self._fields = fields
        self._encoding = encoding
        self._adapter = Adapter(fields, parse=parse, booleans=booleans)
        self._names = [field.name for field in fields.numbers]
        definitions: list[Any] = []
        optional: list[Any] = []
        renamed: dict[str, str] = {}
        attributes: list[str] = []
        for i, field in enumerate(fields.numbers):
            attributes.append(f"n{self._names.index(field.name)}")
            if attributes[-1] in renamed:
                continue  # a forecast made upstream that is a feature too
            renamed[f"n{i}"] = field.name
            if field is fields.stop:
                optional.append((f"n{i}", float | bool | None, field.missing))
            elif fields.targets_optional and field in fields.targets:
                optional.append((f"n{i}", float | None, None))
            elif field.missing is None:
                definitions.append((f"n{i}", float))
            elif not field.may_be_absent:
                definitions.append((f"n{i}", float | None))
            else:
                optional.append((f"n{i}", float | None, field.missing))
        if fields.time is not None:
            renamed["t"] = fields.time
            definitions.append(("t", float | int | str))
        if fields.time_of_day is not None:
            renamed["d"] = fields.time_of_day
            definitions.append(("d", int | str))
        for i, name in enumerate(fields.clocks):
            renamed[f"c{i}"] = name
            definitions.append((f"c{i}", float | int | str))
        self._field_key = fields.key if fields.key != RECORD_KEY else None
        if self._field_key is not None:
            renamed["k"] = self._field_key
            definitions.append(("k", str | int))
        if fields.label is not None:
            renamed["l"] = fields.label
            kinds = str | bool | int | float
            if fields.targets_optional:
                optional.append(("l", kinds | None, None))
            else:
                definitions.append(("l", kinds))
        struct = msgspec.defstruct("Reading", definitions + optional, rename=renamed, gc=False)
        decode = msgspec.json.Decoder(struct).decode
        # Only options that ask for it pay for a detour through dicts.
        self._struct = struct
        self._decode = self._adapted if self._adapter.always else decode
        # With a single name, attrgetter returns the value itself rather than a tuple.
        single = attrgetter(attributes[0])
        self._numbers = attrgetter(*attributes) if len(attributes) > 1 else lambda reading: (single(reading),)
        self._fill = np.array([np.nan if f.missing is None else f.missing for f in fields.numbers])
        self._has_fill = any(f.missing is not None for f in fields.numbers)

    @classmethod
    def from_settings(cls, fields: Fields, settings: JsonSettings, layout: TextLayout) -> "JsonDecoder":
        """Return the configured decoder; JSON objects name their own fields, so *layout* is not used."""
        return cls(
            fields,
            parse=number_parser(settings.number_format) if settings.text_numbers == "accept" else None,
            booleans=settings.booleans == "numbers",
            encoding=settings.encoding,
        )

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def fields_of(self, value: bytes) -> Mapping[str, object]:
        try:
            return self._adapter.values(json.loads(value.decode(self._encoding or "utf-8")))
        except (ValueError, RecursionError, BadRecord):
            return {}

    def _fast(self, values: Sequence[bytes]) -> Rows:
        if self._encoding is not None:
            values = [value.decode(self._encoding).encode() for value in values]
        # The parser skips unknown fields without checking their bytes, so invalid UTF-8 is refused here.
        for value in values:
            if not value.isascii():
                value.decode()
        return self._rows(list(map(self._decode, values)))

    def _rows(self, readings: list[Any]) -> Rows:
        numbers = np.array(list(map(self._numbers, readings)), dtype=np.float64)
        numbers = numbers.reshape(len(readings), len(self._names))
        if self._has_fill:
            # None became nan above. JSON itself has no nan.
            numbers = np.where(np.isnan(numbers), self._fill, numbers)
        times = [reading.t for reading in readings] if self._fields.time is not None else None
        if times is not None and self._fields.time_of_day is not None:
            times = [f"{reading.t} {reading.d}" for reading in readings]
        keys = [str(reading.k) for reading in readings] if self._field_key is not None else None
        clocks = [[getattr(reading, f"c{i}") for reading in readings] for i in range(len(self._fields.clocks))]
        labels = [_label(reading.l) for reading in readings] if self._fields.label is not None else None
        return Rows(numbers, times, keys, range(len(readings)), clocks, labels)

    def _adapted(self, value: bytes) -> object:
        """Return the reading of one record by way of a dict, as the options say."""
        return msgspec.convert(self._adapter.flat(parsed(value)), self._struct)

    def _slow(self, value: bytes) -> Rows:
        try:
            text = value.decode(self._encoding or "utf-8")
        except UnicodeDecodeError as error:
            detail = f"byte {error.start}: {error.reason}{bad_text_hint(value)}"
            raise BadRecord(RejectReason.BAD_UTF8, detail) from None
        try:
            return self._fast([value])
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            return self._second_look(text, error)

    def _second_look(self, text: str, error: Exception) -> Rows:
        """Return the record's row, if it was refused only because of texts or NaN that mean a missing value.

        Raises
        ------
        BadRecord
            otherwise, with the field, its value and the option that accepts it.
        """
        record: object = None
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(text)
        if isinstance(record, dict) or (self._adapter.always and record is not None):
            flat = self._adapter.flat(record)
            if self._adapter.has_missing(record):
                try:
                    return self._rows([msgspec.convert(flat, self._struct)])
                except (msgspec.ValidationError, OverflowError) as second:
                    error = second
            self._adapter.explain(record, flat)
        detail = str(error) or type(error).__name__
        if not isinstance(error, msgspec.ValidationError):
            if text.strip()[:1] == "[" or text.strip()[-1:] in ("[", "{", ","):
                detail += "; a record is one object on one line: `jq -c '.[]' FILE` makes such lines of an array"
            raise BadRecord(RejectReason.UNPARSABLE, detail + bad_text_hint(text.encode())) from None
        reason = RejectReason.MISSING_FIELD if "missing required field" in detail else RejectReason.WRONG_TYPE
        raise BadRecord(reason, detail) from None


def _label(value: str | bool | float | None) -> str | None:
    return None if value is None else label_text(value)
