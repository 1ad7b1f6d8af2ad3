"""Options of the decoders."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from learnd.core.settings_base import Count, Positive, Section

RECORD_KEY = "__key__"
"""As ``decode.key``: the record's own (Kafka) key, rather than a field of its value."""


class DecoderSettings(Section):
    """The options and answers that all decoders share."""

    kind: str
    needs_lines: ClassVar[bool] = False
    """Whether records are delimited text, whose columns have names."""
    is_binary: ClassVar[bool] = False
    """Whether records are packed bytes, which a file of lines cannot hold."""
    time: str | None = None
    """The field with the event time: ISO 8601, or a number of `time_unit`; the record's own time where absent."""
    time_unit: Literal["s", "ms", "us", "ns"] = "s"
    """Of a `time` that is a number, since 1970 UTC."""
    key: str | None = None
    """The field that names the machine; `__key__` is the record's own key. Absent: one series a partition."""
    missing_target: Literal["reject", "predict"] = "reject"
    """A record without its target or label is rejected; or it is predicted and not learned. In JSON the field is absent
    or null, in CSV the cell is empty, in float32 rows the target is NaN."""
    max_bytes: Count = 1_048_576
    """A longer record is rejected undecoded."""
    max_ahead_s: Positive | None = 86_400.0
    """An event time further ahead of the record's own (Kafka's) is a reject; a day, for unwritten zones."""

    @property
    def named_columns(self) -> list[str] | None:
        """The column names that the configuration gives."""
        return None


class JsonSettings(DecoderSettings):
    """One JSON object a record."""

    kind: Literal["json"]


class CsvSettings(DecoderSettings):
    """One line of delimited text a record."""

    kind: Literal["csv"]
    columns: Annotated[list[str], Field(min_length=1)] | None = None
    """Column names in order; a CSV file with a header line brings its own."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Absent: that of the file source, otherwise a comma."""

    needs_lines: ClassVar[bool] = True

    @property
    def named_columns(self) -> list[str] | None:
        return self.columns


class Float32Settings(DecoderSettings):
    """Packed little-endian float32 rows: the features in order, then the targets; one or more rows a record."""

    kind: Literal["float32"]
    is_binary: ClassVar[bool] = True
    time: None = None
    """There is none in such a record; its own time counts."""
    max_ahead_s: None = None
    """Without effect."""
    key: Literal["__key__"] | None = None
    """The record's own key. Absent: one series a partition."""


AnyDecoder = Annotated[JsonSettings | CsvSettings | Float32Settings, Field(discriminator="kind")]
