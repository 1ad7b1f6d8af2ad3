"""Packed little-endian float32 rows: the cheapest format there is."""

from collections.abc import Sequence

import numpy as np

from learnd.decoders.admission import UNPARSABLE, BadRecord, Fields, Rows, decode_records
from learnd.types import Records, Reject, Samples


class Float32Decoder:
    """One sample per row of ``4 * (features + targets)`` bytes; one bad row spoils its whole record."""

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._width = len(fields.numbers)

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        return decode_records(records, self._fields, self._fast, self._slow)

    def _fast(self, values: Sequence[bytes]) -> Rows:
        size = 4 * self._width
        if any(not value or len(value) % size for value in values):
            raise ValueError
        numbers = np.frombuffer(b"".join(values), dtype="<f4").reshape(-1, self._width)
        index = np.repeat(np.arange(len(values)), [len(value) // size for value in values])
        return Rows(numbers.astype(np.float64), None, None, index.tolist())

    def _slow(self, value: bytes) -> Rows:
        try:
            return self._fast([value])
        except ValueError:
            detail = f"{len(value)} bytes are not a whole number of rows of {4 * self._width} bytes"
            raise BadRecord(UNPARSABLE, detail) from None
