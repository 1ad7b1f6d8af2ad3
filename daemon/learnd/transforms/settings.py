"""Options of the transforms. Quick to import: no NumPy."""

from learnd.core.settings_base import Count, Positive, Section


class TruthSettings(Section):
    """Truths that come later than the records that they belong to. A record without its target is answered at once. It
    is learned, with the features and the answer that it had, when its truth comes: a record with the same key, the
    same `id`, and the target."""

    id: str | None = None
    """Field that names a record. Its truth has the same. Absent: the truth has the event time of the record."""
    within_s: Positive = 86_400.0
    """Event time for which a record waits for its truth, or a truth for its record, in seconds. Then it is dropped, and
    counted."""
    max_pending: Count = 100_000
    """Maximum number of records that wait for their truth, to bound memory. Beyond it the one that has waited longest
    is dropped, and counted. The same limit holds for truths that wait, and for those that are remembered to recognise
    a repeated one."""
    topic: str | None = None
    """Topic with the truths, which is one of `source.topics`. Absent: truths are records of the same topics."""
