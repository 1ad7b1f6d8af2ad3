"""The decoder for JSON objects, by way of a struct with the configured fields."""

import json
import math
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from learnd.core.labels import label_text
from learnd.core.layout import TextLayout
from learnd.core.reasons import RejectReason
from learnd.core.types import Records, Reject, Samples
from learnd.decoders.fields import Fields
from learnd.decoders.settings import RECORD_KEY, JsonSettings
from learnd.decoders.validation import BadRecord, Rows, decode_records


class JsonDecoder:
    """Decoder of one sample per object.

    Unknown fields are ignored. Numbers must be JSON numbers, not strings or booleans. Nested objects are not
    read: a dot in a field's name is part of that name.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
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
        self._decode = msgspec.json.Decoder(struct).decode
        # With a single name, attrgetter returns the value itself rather than a tuple.
        single = attrgetter(attributes[0])
        self._numbers = attrgetter(*attributes) if len(attributes) > 1 else lambda reading: (single(reading),)
        self._fill = np.array([np.nan if f.missing is None else f.missing for f in fields.numbers])
        self._has_fill = any(f.missing is not None for f in fields.numbers)

    @classmethod
    def from_settings(cls, fields: Fields, settings: JsonSettings, layout: TextLayout) -> "JsonDecoder":
        """Return the configured decoder; JSON objects name their own fields, so *layout* is not used."""
        return cls(fields)

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def _fast(self, values: Sequence[bytes]) -> Rows:
        # The parser skips unknown fields without checking their bytes, so invalid UTF-8 is refused here.
        for value in values:
            if not value.isascii():
                value.decode()
        readings: list[Any] = list(map(self._decode, values))
        numbers = np.array(list(map(self._numbers, readings)), dtype=np.float64)
        numbers = numbers.reshape(len(readings), len(self._names))
        if self._has_fill:
            # None became nan above. JSON itself has no nan.
            numbers = np.where(np.isnan(numbers), self._fill, numbers)
        times = [reading.t for reading in readings] if self._fields.time is not None else None
        keys = [str(reading.k) for reading in readings] if self._field_key is not None else None
        clocks = [[getattr(reading, f"c{i}") for reading in readings] for i in range(len(self._fields.clocks))]
        labels = [_label(reading.l) for reading in readings] if self._fields.label is not None else None
        return Rows(numbers, times, keys, range(len(readings)), clocks, labels)

    def _slow(self, value: bytes) -> Rows:
        try:
            value.decode()
        except UnicodeDecodeError as error:
            raise BadRecord(RejectReason.BAD_UTF8, f"byte {error.start}: {error.reason}") from None
        try:
            return self._fast([value])
        except msgspec.ValidationError as error:
            self._raise_not_finite(value)
            reason = RejectReason.MISSING_FIELD if "missing required field" in str(error) else RejectReason.WRONG_TYPE
            raise BadRecord(reason, str(error)) from None
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            self._raise_not_finite(value)
            raise BadRecord(RejectReason.UNPARSABLE, str(error) or type(error).__name__) from None

    def _raise_not_finite(self, value: bytes) -> None:
        """Raise `BadRecord` if *value* is unparsable only because of NaN or Infinity.

        JSON has neither, but some producers write them.
        """
        try:
            reading = json.loads(value)
        except (ValueError, RecursionError):
            return
        if not isinstance(reading, dict):
            return
        for name in self._names:
            number = reading.get(name)
            if isinstance(number, float) and not math.isfinite(number):
                raise BadRecord(RejectReason.NOT_FINITE, f"{name} is {number}") from None


def _label(value: str | bool | float | None) -> str | None:
    return None if value is None else label_text(value)
