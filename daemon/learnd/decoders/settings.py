"""Options of the decoders."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from learnd.core.settings_base import Count, Positive, Section

RECORD_KEY = "__key__"
"""The value of ``decode.key`` that stands for the record's own (Kafka) key, instead of a field of its value."""


TimeUnit = Literal["s", "ms", "us", "ns"]
"""The unit of a numeric time."""


class DecoderSettings(Section):
    """The options of all decoders, and their properties for the wiring."""

    kind: str
    needs_lines: ClassVar[bool] = False
    """True if records are delimited text, whose columns have names."""
    is_binary: ClassVar[bool] = False
    """True if records are packed bytes, which a file of lines cannot hold."""
    time: str | None = None
    """Field with the event time: ISO 8601 text (UTC unless it names a zone), or a number in `time_unit`. Absent: the
    time of the Kafka record."""
    time_unit: TimeUnit = "s"
    """Unit of a numeric `time`, which counts from 1970-01-01 UTC."""
    key: str | None = None
    """Field with the name of the machine; `__key__`: the key of the Kafka record. Windows and limits apply per key.
    Absent: all records of a partition belong to one machine."""
    missing_target: Literal["reject", "predict"] = "reject"
    """Action on a record without its target or label: reject it, or predict it without learning from it. The target is
    missing if the JSON field is absent or null, the CSV cell is empty, or the number in a float32 row is NaN."""
    max_bytes: Count = 1_048_576
    """Maximum size of a record in bytes, by default 1 MiB. A longer record is rejected without being decoded."""
    max_ahead_s: Positive | None = 86_400.0
    """Maximum lead of the event time over the time of the Kafka record, in seconds; beyond it the record is rejected.
    The default of one day tolerates times without a zone. null: no limit."""

    @property
    def named_columns(self) -> list[str] | None:
        """The configured column names; None if there are none."""
        return None


class JsonSettings(DecoderSettings):
    """One JSON object per record."""

    kind: Literal["json"]


class CsvSettings(DecoderSettings):
    """One line of delimited text per record."""

    kind: Literal["csv"]
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    """Column names in order. Absent: the header line of the CSV file."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Character between two cells. Absent: the delimiter of the file source; for other sources, a comma."""

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
    max_ahead_s: None = None
    """Cannot be set: there is no event time to check."""
    key: Literal["__key__"] | None = None
    """`__key__`: the Kafka record's key names the machine. Absent: all records of a partition belong to one machine."""


AnyDecoder = Annotated[JsonSettings | CsvSettings | Float32Settings, Field(discriminator="kind")]
