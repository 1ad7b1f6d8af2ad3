"""Options of the decoders."""

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, field_validator

from learnd.core.numbers import EXAMPLES
from learnd.core.paths import parse_path
from learnd.core.settings_base import Count, Delimiter, Encoding, Positive, Section
from learnd.core.times import EPOCH_FIRST_S, EPOCH_LAST_S, TimeReader, problem_of

RECORD_KEY = "__key__"
"""The value of ``decode.key`` that stands for the record's own (Kafka) key, instead of a field of its value."""


TimeUnit = Literal["s", "ms", "us", "ns"]
"""The unit of a numeric time."""
MISSING_VALUES = ("nan", "-nan", "null", "none", "na", "n/a", "<na>", "#n/a", "#na", "#n/a n/a", "nil")
"""Words for a missing value, in lower case, that exports of common programs hold."""


def _known_format(example: str) -> str:
    if example not in EXAMPLES:
        raise ValueError(f"must be one of {', '.join(map(repr, EXAMPLES))}: how the records write this number")
    return example


def _path(text: str) -> str:
    parse_path(text)
    return text


Path = Annotated[str, AfterValidator(_path)]
"""The place of a value inside a JSON record; see `learnd.core.paths`."""


class LongSettings(Section):
    """Records with one value each: a name and a value. Those of one key and time are gathered into a row.

    A row is complete once all features and targets have a value, or once a record of the key has a later time. Records
    with other names are counted and left out."""

    name: str
    """Field with the name of the feature or target."""
    value: str
    """Field with its value."""
    every_s: Positive | None = None
    """Length in seconds of the intervals whose values belong together; within one, the last value of a name counts.
    Absent: only values of the same time belong together."""
    gaps: Literal["missing", "hold"] = "missing"
    """Replacement of a value that a row lacks: `missing` treats it as `features.<name>.missing` says; `hold` takes the
    key's last value of that name. Without either, the row is counted and left out. A row without its target is treated
    as `missing_target` says."""


class DecoderSettings(Section):
    """The options of all decoders, and their properties for the wiring."""

    kind: str
    needs_lines: ClassVar[bool] = False
    """True if records are delimited text, whose columns have names."""
    is_binary: ClassVar[bool] = False
    """True if records are packed bytes, which a file of lines cannot hold."""
    time: str | None = None
    """Field with the event time: ISO 8601 text (UTC unless it names a zone, or `time_zone` is set), a number in
    `time_unit` (also as text), or what `time_format` says. Absent: the time of the Kafka record."""
    time_of_day: str | None = None
    """Field with the time of day, if `time` is only the date. Both are read as one text, with a space between."""
    time_unit: TimeUnit = "s"
    """Unit of a numeric `time`, which counts from 1970-01-01 UTC."""
    time_format: str | list[str] | None = None
    """Pattern of the times, as Python's `strptime` takes it, such as `%d.%m.%Y %H:%M:%S`; several are tried in order.
    `excel`: serial dates, days since 1899-12-30. Absent: ISO 8601 or a number."""
    time_zone: str | None = None
    """Zone of times that name none, such as `Europe/Berlin`. A time that its clocks skip is rejected. Absent: UTC."""
    ambiguous_time: Literal["reject", "first", "second"] = "reject"
    """Meaning of a time that the clocks of `time_zone` showed twice, when they were set back: reject the record, or
    take the `first` or the `second` moment."""
    time_numbers: Literal["epoch", "any"] = "epoch"
    """`epoch`: a numeric time outside of the years 1980 to 2099 is rejected, because it is a date in another form or in
    another unit. `any`: every number is accepted, such as seconds since the start of a test."""
    missing_values: list[str] = list(MISSING_VALUES)
    """Texts that stand for a missing value, as an empty cell does (`features.<name>.missing`); capitals do not matter.
    A number, such as `-999`, is compared as a number. NaN is always one of them."""
    max_rejected: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of rejected records, from 0 to 1, above which a run that ends by itself has the exit code 65."""
    long: LongSettings | None = None
    """Names the two fields of records that hold one value each (long format): `{name: tag, value: v}`. Absent: a record
    holds all values of its time."""
    key: str | None = None
    """Field with the name of the machine; `__key__`: the key of the Kafka record. Windows and limits apply per key.
    Absent: all records of a partition belong to one machine."""
    missing_target: Literal["predict", "reject"] = "predict"
    """Action on a record without its target or label: predict it without learning from it, or reject it. The target is
    missing if the JSON field is absent or null, the CSV cell is empty, or the number in a float32 row is NaN. A target
    that is no number is rejected in any case. A run that never sees a target ends with the exit code 65."""
    max_bytes: Count = 1_048_576
    """Maximum size of a record in bytes, by default 1 MiB. A longer record is rejected without being decoded."""
    max_ahead_s: Positive | None = 86_400.0
    """Maximum lead of the event time over the time of the Kafka record, in seconds; beyond it the record is rejected.
    The default of one day tolerates times without a zone. null: no limit."""

    @field_validator("time_format")
    @classmethod
    def _known_pattern(cls, value: str | list[str] | None) -> str | list[str] | None:
        for pattern in [value] if isinstance(value, str) else value or ():
            if problem := problem_of(pattern):
                raise ValueError(problem)
        return value

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    f"{value!r} is no time zone; they have names such as Europe/Berlin, America/New_York or UTC"
                ) from None
        return value

    @field_validator("missing_values", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """Return numbers as text: YAML reads ``-999`` as one, and ``null`` as nothing."""
        if not isinstance(value, list):
            return value
        return ["null" if v is None else str(v) if isinstance(v, int | float) else v for v in value]

    @property
    def quotes_names(self) -> bool:
        """True if a record holds the names of its fields in double quotes."""
        return False

    @property
    def named_columns(self) -> list[str] | None:
        """The configured column names; None if there are none."""
        return None

    @property
    def paths_of_fields(self) -> dict[str, str]:
        """The places of fields inside nested records."""
        return {}

    @property
    def reads_paths(self) -> bool:
        """True if records can be nested."""
        return False

    @property
    def text_encoding(self) -> str | None:
        """The configured encoding of text; None: UTF-8."""
        return None

    @property
    def numbers_as(self) -> str | None:
        """The configured way to write numbers, by example; None: as usual."""
        return None

    def time_reader(self) -> TimeReader:
        """Return the configured way to read a time."""
        formats = (self.time_format,) if isinstance(self.time_format, str) else tuple(self.time_format or ())
        reader = TimeReader(self.time_unit, formats, self.time_zone, self.ambiguous_time)
        if self.time_numbers == "any":
            return reader
        return TimeReader(
            self.time_unit, formats, self.time_zone, self.ambiguous_time, first_s=EPOCH_FIRST_S, last_s=EPOCH_LAST_S
        )


class TextSettings(DecoderSettings):
    """The options of the decoders of text."""

    encoding: Encoding | None = None
    """Encoding of the records, such as `cp1252`, `latin-1` or `utf-16`. Absent: UTF-8. For a file, set
    `source.encoding` instead."""
    number_format: Annotated[str, AfterValidator(_known_format)] | None = None
    """Form of numbers in texts, given as 1234.56 written in that form: `"1234,56"`, `"1.234,56"`, `"1,234.56"`,
    `"1 234,56"` (any kind of space), `"1'234,56"`, `"1'234.56"` or `"1 234.56"`. Absent: `"1234.56"`. Another
    form is rejected, never guessed."""
    booleans: Literal["reject", "numbers"] = "reject"
    """`numbers`: true and false count as 1 and 0 where a number is expected; as text also yes, no, on and off."""

    @property
    def text_encoding(self) -> str | None:
        return self.encoding

    @property
    def numbers_as(self) -> str | None:
        return self.number_format


class JsonSettings(TextSettings):
    """One JSON object per record."""

    kind: Literal["json"]
    paths: dict[str, Path] = {}
    """Places of fields in nested records, by field: `{power: payload.after.power, ts: payload.ts_ms}`, for features,
    the target, the time, the key and every other field. `values[2]` is the third element of a list,
    `metrics[name=temp].value` a value of the element with that name, `a["b.c"]` a name with a dot. A field without a
    path is a name at the top, dots and all. `features.<name>.path` says the same of one feature."""
    text_numbers: Literal["reject", "accept"] = "reject"
    """`accept`: a text such as `"21.5"` is a number, where one is expected, in the form of `number_format`."""

    @property
    def paths_of_fields(self) -> dict[str, str]:
        return self.paths

    @property
    def reads_paths(self) -> bool:
        return True

    @property
    def quotes_names(self) -> bool:
        return self.encoding is None


class CsvSettings(TextSettings):
    """One line of delimited text per record. Spaces around a cell and its quotes are ignored, in the header too."""

    kind: Literal["csv"]
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    """Column names in order. Absent: the header line of the CSV file."""
    delimiter: Delimiter | None = None
    """Character between two cells, or `whitespace`. Absent: the delimiter of the file source; for other sources, a
    comma."""

    needs_lines: ClassVar[bool] = True

    @property
    def named_columns(self) -> list[str] | None:
        return self.columns


class Float32Settings(DecoderSettings):
    """Packed little-endian float32 rows: the features in order, then the targets. A record has one or more rows."""

    kind: Literal["float32"]
    is_binary: ClassVar[bool] = True
    time: None = None
    """Cannot be set: such records have no time field, so the time of the Kafka record is used."""
    time_of_day: None = None
    """Cannot be set: such records have no time field."""
    long: None = None
    """Cannot be set: such records have no names."""
    max_ahead_s: None = None
    """Cannot be set: there is no event time to check."""
    key: Literal["__key__"] | None = None
    """`__key__`: the Kafka record's key names the machine. Absent: all records of a partition belong to one machine."""


AnyDecoder = Annotated[JsonSettings | CsvSettings | Float32Settings, Field(discriminator="kind")]
