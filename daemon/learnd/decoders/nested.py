"""Records of JSON that need more than a struct: values inside nested objects, texts for numbers, words for nothing."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn

import msgspec

from learnd.core.numbers import ParseNumber, fitting_examples
from learnd.core.paths import NoValueError, follow, parse_path
from learnd.core.reasons import RejectReason
from learnd.decoders.fields import Field, Fields
from learnd.decoders.text import FLAGS
from learnd.decoders.validation import BadRecord, missing_hint

_DEEPEST, _MOST = 4, 200
"""Depth and number of the values that are searched for a field, to name its path in a message."""


def parsed(value: bytes) -> object:
    """Return a JSON record; NaN and Infinity, which JSON does not have, are accepted here."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        if b"NaN" in value or b"Infinity" in value:
            return json.loads(value)
        raise


class Adapter:
    """The way from a parsed record to a flat dict of the configured fields."""

    def __init__(self, fields: Fields, *, parse: ParseNumber | None, booleans: bool) -> None:
        self._fields = fields
        self._parse = parse
        self._booleans = booleans
        self._arrays = fields.arrays
        elements = {f"{name}[{i}]" for name, shape in fields.arrays.items() for i in range(math.prod(shape))}
        self._names = tuple(name for name in dict.fromkeys(fields.names) if name not in elements)
        self._names += tuple(fields.arrays)
        self._numbers = {field.name: field for field in fields.numbers}
        self._steps = {name: parse_path(fields.paths[name]) for name in self._names if name in fields.paths}
        all_steps = {name: self._steps.get(name, (name,)) for name in self._names}
        # Most paths are names alone: those are followed without the care that indices and choices need.
        self._plain = {
            name: steps if all(isinstance(s, str) for s in steps) else () for name, steps in all_steps.items()
        }
        self.always = bool(self._steps) or parse is not None or booleans or bool(fields.arrays)
        """True if an option needs it for every record."""

    def flat(self, record: object) -> dict[str, object]:
        """Return the values of the configured fields, without those that the record lacks.

        Raises
        ------
        BadRecord
            if a value is no number, and an option that accepts texts does not accept this one.
        """
        if not isinstance(record, dict | list):
            raise BadRecord(RejectReason.WRONG_TYPE, f"the record is {_kind(record)}, not an object")
        flat: dict[str, object] = {}
        for name, value in self._elements(record):
            field = self._numbers.get(name)
            if field is not None:
                if type(value) is not float or math.isnan(value):
                    value = self._number(field, value)
            elif isinstance(value, str) and not value.isascii() and not _is_text(value):
                raise BadRecord(RejectReason.UNPARSABLE, f"{name} has half of a surrogate pair")
            flat[name] = value
        return flat

    def values(self, record: object) -> dict[str, object]:
        """Return the values of the configured fields as they are in the record."""
        return dict(self._values(record))

    def has_missing(self, record: object) -> bool:
        """Return whether a text or NaN stands for a missing value that the options accept."""
        return any(
            name in self._numbers and self._may_lack(self._numbers[name]) and self._is_missing(value)
            for name, value in self._elements(record)
        )

    def explain(self, record: object, flat: Mapping[str, object]) -> None:
        """Raise `BadRecord` for the first field that is wrong, if one is."""
        for name in self._names:
            if name in self._arrays:
                self._explain_array(record, flat, name)
            elif name not in flat:
                self._explain_absent(record, flat, name)
            elif name in self._numbers:
                self._explain_number(self._numbers[name], flat[name])
            elif not isinstance(flat[name], str | int | float):
                where = "" if name in self._steps else _path_hint(record, [name])
                raise BadRecord(RejectReason.WRONG_TYPE, f"{name} is {_kind(flat[name])}{where}")

    def _values(self, record: object) -> Iterator[tuple[str, object]]:
        for name, plain in self._plain.items():
            value: Any = record
            try:
                for step in plain:
                    value = value[step]
                if not plain:
                    value = follow(record, self._steps[name])
            except (KeyError, TypeError, NoValueError):
                continue
            except ValueError as error:
                raise BadRecord(RejectReason.UNPARSABLE, f"{name}: {error}") from None
            yield name, value

    def _elements(self, record: object) -> Iterator[tuple[str, object]]:
        """Yield the values of the configured fields; of an array, those of its elements."""
        for name, value in self._values(record):
            shape = self._arrays.get(name)
            if shape is None:
                yield name, value
                continue
            for i, element in enumerate(flat_elements(name, value, shape)):
                yield f"{name}[{i}]", element

    def _explain_array(self, record: object, flat: Mapping[str, object], name: str) -> None:
        """Raise `BadRecord` for an array that is absent, or for its first element that is no number."""
        for i in range(math.prod(self._arrays[name])):
            element = f"{name}[{i}]"
            if element not in flat:
                self._explain_absent(record, flat, name)
            else:
                self._explain_number(self._numbers[element], flat[element])

    def _may_lack(self, field: Field) -> bool:
        """Return whether null is accepted for this field."""
        return field.missing is not None or (self._fields.targets_optional and field in self._fields.targets)

    def _is_missing(self, value: object) -> bool:
        if isinstance(value, str):
            return self._fields.is_missing(value)
        return isinstance(value, float) and math.isnan(value)

    def _number(self, field: Field, value: object) -> object:
        """Return a number, or None if it is missing; leave what the struct has to refuse as it is."""
        if isinstance(value, str) and self._parse is not None:
            try:
                number = self._parse(value)
                if not math.isnan(number):
                    return number
            except ValueError:
                pass  # it may be a word for a missing value
        if self._may_lack(field) and self._is_missing(value):
            return None
        if isinstance(value, bool) and self._booleans:
            return float(value)
        if isinstance(value, str) and self._parse is not None and not self._is_missing(value):
            if self._booleans and (flag := FLAGS.get(value.strip().lower())) is not None:
                return flag
            self._refuse_text(field, value)
        if isinstance(value, int) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise BadRecord(RejectReason.NOT_FINITE, f"{field.name} is beyond all numbers") from None
        return value

    def _explain_number(self, field: Field, value: object) -> None:
        name = field.name
        if value is None and not self._may_lack(field):
            raise BadRecord(RejectReason.WRONG_TYPE, f"{name} is null{missing_hint(field, self._fields)}")
        if isinstance(value, float) and not math.isfinite(value):
            hint = missing_hint(field, self._fields) if math.isnan(value) else ""
            raise BadRecord(RejectReason.NOT_FINITE, f"{name} is {field.shown(value)}{hint}")
        if isinstance(value, str):
            if self._fields.is_missing(value):
                detail = f"{name} is {field.shown(value)}{missing_hint(field, self._fields)}"
                raise BadRecord(RejectReason.MISSING_FIELD if value.strip() else RejectReason.WRONG_TYPE, detail)
            self._refuse_text(field, value)
        if isinstance(value, bool) and field is not self._fields.stop:
            shown = field.shown(str(value).lower())
            raise BadRecord(RejectReason.WRONG_TYPE, f"{name} is {shown}, a boolean; set decode.booleans: numbers")
        if isinstance(value, dict | list):
            raise BadRecord(RejectReason.WRONG_TYPE, f"{name} is {_kind(value)}; name a value in it by its path")

    def _refuse_text(self, field: Field, value: str) -> NoReturn:
        examples = fitting_examples(value) if len(value) <= 64 else []
        options = ["decode.text_numbers: accept"] if self._parse is None and examples else []
        if examples and (self._parse is not None or "1234.56" not in examples):
            options.append("decode.number_format: " + " or ".join(f'"{example}"' for example in examples))
        if not examples and value.strip().lower() in FLAGS:
            options = ["decode.text_numbers: accept", "decode.booleans: numbers"]
        hint = f"; set {' and '.join(options)}" if options else ""
        shown = field.shown(value)
        raise BadRecord(RejectReason.WRONG_TYPE, f"{field.name} is the text {shown}, not a number{hint}")

    def _is_required(self, name: str) -> bool:
        field = self._numbers.get(name)
        if field is not None and self._may_lack(field):
            return not (field.may_be_absent or field in self._fields.targets)
        return not (name == self._fields.label and self._fields.targets_optional)

    def _explain_absent(self, record: object, flat: Mapping[str, object], name: str) -> None:
        if not self._is_required(name):
            return
        if name in self._steps:
            detail = f"{name}: its path {self._fields.paths[name]} leads to nothing"
            try:
                follow(record, self._steps[name])
            except (NoValueError, ValueError) as error:
                detail = f"{name}: {error}; its path is {self._fields.paths[name]}"
            raise BadRecord(RejectReason.MISSING_FIELD, detail)
        absent = [other for other in self._names if other not in flat and self._is_required(other)]
        plain = [other for other in absent if other not in self._steps]
        raise BadRecord(RejectReason.MISSING_FIELD, f"the record has no {', '.join(plain)}{_path_hint(record, plain)}")


def _path_hint(record: object, names: Sequence[str]) -> str:
    """Return the option that names the places of fields that stand deeper in the record, or are written otherwise."""
    places = {name: path for name in names if (path := _place_of(record, name)) is not None}
    if places:
        where = "they are those" if len(places) > 1 else "it is the one"
        return f"; if {where} at {', '.join(places.values())}, set decode.paths: {json.dumps(places)}"
    keys = [str(key) for key in record] if isinstance(record, dict) else []
    alike = [key for key in keys for name in names if key.strip().casefold() == name.casefold()]
    return f"; it is written {alike[0]!r} there" if alike else ""


def _place_of(record: object, name: str) -> str | None:
    """Return the path of a field deeper in the record; None if there is none."""
    try:
        follow(record, parse_path(name))
        return name if len(parse_path(name)) > 1 else None
    except (NoValueError, ValueError):
        return next((path for path, key in islice(_places(record), _MOST) if key == name), None)


def _places(value: object, path: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield the paths and names of the values inside a record."""
    if depth > _DEEPEST or not isinstance(value, dict):
        return
    for key, inner in value.items():
        if any(mark in key for mark in ".[]\"'"):
            continue
        place = f"{path}.{key}" if path else key
        yield place, key
        yield from _places(inner, place, depth + 1)


def _kind(value: object) -> str:
    """Return what JSON calls a value.

    >>> _kind([1]), _kind({}), _kind(None), _kind(True)
    ('a list', 'an object', 'null', 'a boolean')
    """
    if value is None:
        return "null"
    kinds = {list: "a list", dict: "an object", bool: "a boolean", str: "a text"}
    return kinds.get(type(value), "a number")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def flat_elements(name: str, value: object, shape: tuple[int, ...]) -> list[object]:
    """Return the elements of an array in a record, which is a nested list of its *shape*, or a flat list.

    Raises
    ------
    BadRecord
        for another shape.

    >>> flat_elements("image", [[1, 2], [3, 4]], (2, 2))
    [1, 2, 3, 4]
    """
    count = math.prod(shape)
    if isinstance(value, list) and len(value) == count and not any(isinstance(part, list) for part in value):
        return value
    parts: list[object] = [value]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in parts):
            found = f"a list of {len(value)}" if isinstance(value, list) else _kind(value)
            message = f"{name} is {found}, not a list of {count} numbers or a nested list of the shape {list(shape)}"
            raise BadRecord(RejectReason.WRONG_TYPE, message)
        parts = [element for part in parts if isinstance(part, list) for element in part]
    return parts
