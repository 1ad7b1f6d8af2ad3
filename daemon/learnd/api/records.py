"""Records in memory: dicts or bytes to what a decoder reads."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeAlias

from learnd.config.settings import Settings
from learnd.core.errors import UsageError
from learnd.decoders.settings import DecoderSettings, JsonSettings

Record: TypeAlias = Mapping[str, Any] | bytes | str
"""One record: a mapping of field names to values, or what the configured decoder reads."""


def as_values(records: Iterable[Record], settings: Settings) -> tuple[Iterator[bytes], Settings]:
    """Return *records* as bytes, and settings whose decoder reads them. Mappings are read as JSON.

    Only the first record is looked at now; the others are converted when they are taken.

    Raises
    ------
    UsageError
        if *records* is not an iterable of records; while they are taken, if one cannot be converted.
    """
    if isinstance(records, str | bytes | Mapping) or hasattr(records, "to_dict"):
        raise UsageError(
            f"records: is {_type(records)}, but must be an iterable of records: for one record, pass a list of it; for "
            'a DataFrame, pass frame.to_dict("records")'
        )
    iterator = iter(records)
    first = list(islice(iterator, 1))
    together = chain(first, iterator)
    if first and isinstance(first[0], Mapping):
        return _mappings(together), settings.model_copy(update={"decode": _json_decoder(settings.decode)})
    return _texts(together), settings


def _mappings(records: Iterable[Record]) -> Iterator[bytes]:
    for number, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise UsageError(f"records[{number}]: is {_type(record)}, but the first one is a mapping; do not mix them")
        try:
            yield as_json(record)
        except (TypeError, ValueError) as error:
            raise UsageError(f"records[{number}]: cannot be written as JSON: {error}; convert it first") from error


def _texts(records: Iterable[Record]) -> Iterator[bytes]:
    for number, record in enumerate(records):
        if isinstance(record, str):
            yield record.encode()
        elif isinstance(record, bytes):
            yield record
        else:
            raise UsageError(f"records[{number}]: is {_type(record)}, but the first one is not; do not mix them")


def as_json(record: Mapping[str, Any]) -> bytes:
    """Return *record* as a JSON object. NaN becomes null, which means a missing value in tables.

    Infinity stays, because it is a faulty reading: the decoder rejects it as ``not_finite``. Scalars of NumPy become
    numbers, and times become ISO 8601.

    >>> from datetime import datetime
    >>> as_json({"a": 1.5, "b": float("nan"), "t": datetime(2026, 1, 31)})
    b'{"a": 1.5, "b": null, "t": "2026-01-31T00:00:00"}'
    """
    return json.dumps({name: _scalar(value) for name, value in record.items()}, default=_text).encode()


def _scalar(value: object) -> object:
    if isinstance(value, str | int):
        return value
    if hasattr(value, "item"):  # a scalar of NumPy
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def _text(value: Any) -> str:
    """Return the ISO 8601 text of a time of whatever class."""
    if not hasattr(value, "isoformat"):
        raise TypeError(f"a value {_type(value)} is neither a number, nor a text, nor a time")
    text: str = value.isoformat()
    return text


def _type(value: object) -> str:
    return f"of type {type(value).__name__}"


def _json_decoder(decode: DecoderSettings) -> DecoderSettings:
    """Return the JSON decoder with the options that *decode* shares with it."""
    if isinstance(decode, JsonSettings):
        return decode
    shared = {name: getattr(decode, name) for name in DecoderSettings.model_fields if name != "kind"}
    return JsonSettings(kind="json", **shared)
