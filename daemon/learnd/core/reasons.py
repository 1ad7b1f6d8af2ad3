"""The reasons why a record is rejected, a sample is skipped, or a reading is replaced.

Metrics have one label value per member, so that a reason cannot be forgotten there. Members are strings: they go into
dead letters, logs and state as they are.
"""

from enum import StrEnum


class RejectReason(StrEnum):
    """The reason why a record goes to the dead letters."""

    TOMBSTONE = "tombstone"
    OVERSIZED = "oversized"
    BAD_UTF8 = "bad_utf8"
    UNPARSABLE = "unparsable"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    NOT_FINITE = "not_finite"
    OUT_OF_RANGE = "out_of_range"
    BAD_TIME = "bad_time"
    AHEAD_OF_TIME = "ahead_of_time"
    UNKNOWN_LABEL = "unknown_label"
    SUDDEN_CHANGE = "sudden_change"
    STUCK = "stuck"
    UNREADABLE = "unreadable"
    """A whole batch that the source could not read."""


FAULTS = (RejectReason.OUT_OF_RANGE, RejectReason.SUDDEN_CHANGE, RejectReason.STUCK)
"""The faults of a sensor: a reading with one of them is replaced if its rule says so, and rejected otherwise."""


class SkipReason(StrEnum):
    """The reason why a good record makes no sample."""

    DUPLICATE_TIME = "duplicate_time"
    WINDOW_FILLING = "window_filling"
    ROW_FILLING = "row_filling"
    """A record with one value, which adds to a row that is not complete yet."""
    ROW_INCOMPLETE = "row_incomplete"
    """A row of such records that lacks a value when the next one begins."""
    OTHER_NAME = "other_name"
    """A record with one value whose name is not configured."""
    TOO_MANY_KEYS = "too_many_keys"
    TOO_MANY_CLASSES = "too_many_classes"


class TruthOutcome(StrEnum):
    """The outcome of a truth that came later than its record, or of a record that waited for one."""

    MATCHED = "matched"
    """The record is learned with it."""
    EXPIRED = "expired"
    """The record has waited too long for its truth."""
    UNMATCHED = "unmatched"
    """The truth has waited too long for its record, or its record was rejected or skipped."""
    EVICTED = "evicted"
    """Too many records, or too many truths, were waiting."""
    DUPLICATE = "duplicate"
    """The same truth had come before."""
    CORRECTED = "corrected"
    """Another truth had come before. What was learned of it stays learned."""
