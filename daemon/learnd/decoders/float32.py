"""The decoder for packed little-endian float32 rows, the format that is cheapest to decode."""

from collections.abc import Mapping, Sequence

import numpy as np

from learnd.core.layout import TextLayout
from learnd.core.reasons import RejectReason
from learnd.core.types import Float32Array, Records, Reject, Samples
from learnd.decoders.fields import Fields
from learnd.decoders.settings import Float32Settings
from learnd.decoders.validation import BadRecord, Rows, decode_records


class Float32Decoder:
    """Decoder of one sample per row: features, then targets, then the weight if configured.

    A bad row spoils its record.

    With classes, the class number is the last number of the row; it must be a whole number.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._numbers = len(fields.numbers)
        self._width = self._numbers + (fields.label is not None)

    @classmethod
    def from_settings(cls, fields: Fields, settings: Float32Settings, layout: TextLayout) -> "Float32Decoder":
        """Return the configured decoder; a row has its numbers in the order of *fields*."""
        return cls(fields)

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def fields_of(self, value: bytes) -> Mapping[str, object]:
        if not value or len(value) % (4 * self._width):
            return {}
        row = np.frombuffer(value[: 4 * self._width], dtype="<f4").tolist()
        return dict(zip(self._fields.names, row, strict=True))

    def _fast(self, values: Sequence[bytes]) -> Rows:
        size = 4 * self._width
        if any(not value or len(value) % size for value in values):
            raise ValueError
        numbers = np.frombuffer(b"".join(values), dtype="<f4").reshape(-1, self._width)
        index = np.repeat(np.arange(len(values)), [len(value) // size for value in values])
        labels = None
        if self._width > self._numbers:
            labels = self._labels(numbers[:, -1])
        with np.errstate(invalid="ignore"):  # a signalling nan is rejected later, as any nan is
            wide = numbers[:, : self._numbers].astype(np.float64)
        return Rows(wide, None, None, index.tolist(), labels=labels)

    def _labels(self, classes: Float32Array) -> list[str | None]:
        missing = np.isnan(classes) if self._fields.targets_optional else np.zeros(len(classes), np.bool_)
        # Infinity equals its rounded value, but is not an integer.
        whole = np.isfinite(classes) & (classes == np.round(classes))
        if not (whole | missing).all():
            raise ValueError
        return [None if absent else str(int(number)) for number, absent in zip(classes, missing, strict=True)]

    def _slow(self, value: bytes) -> Rows:
        try:
            return self._fast([value])
        except ValueError:
            detail = f"{len(value)} bytes are not a whole number of rows of {4 * self._width} bytes"
            if not len(value) % (4 * self._width):
                detail = f"{self._fields.label} is not a whole number"
            raise BadRecord(RejectReason.UNPARSABLE, detail) from None
