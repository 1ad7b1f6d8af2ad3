"""The decoder for streams in which truths come later: it accepts records that only bring a truth."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from learnd.core.protocols import Decoder
from learnd.core.reasons import RejectReason
from learnd.core.types import Position, Records, Reject, Samples
from learnd.decoders.fields import Fields

_REASONS = (RejectReason.MISSING_FIELD, RejectReason.BAD_TIME, RejectReason.WRONG_TYPE, RejectReason.NOT_FINITE)
"""The reasons for which a record that only brings a truth is no whole record."""


def truth_fields(fields: Fields, *, own_topic: bool) -> Fields:
    """Return the fields of a record that only brings a truth.

    In a topic of its own it has an event time too: it tells how far that topic has come. Elsewhere it may lack one,
    unless truths are found by it.
    """
    timed = own_topic or fields.id is None
    return replace(
        fields,
        features=(),
        weight=None,
        stop=None,
        seasons=(),
        upstream=(),
        targets_optional=False,
        time=fields.time if timed else None,
        time_of_day=fields.time_of_day if timed else None,
        arrays={},
        max_ahead_s=fields.max_ahead_s if timed else None,
    )


class LateTruthDecoder:
    """Decodes a record that has the target and no feature at all into a sample whose features are all nan.

    Parameters
    ----------
    whole : decodes records with features
    truths : decodes records that only bring a truth
    fields : those of *whole*
    topic : the topic that holds truths only; None: they are among the records
    quotes_names : the bytes of a record hold the names of its fields in double quotes, if they are ASCII. Then most
        truths are told from records without decoding them twice.
    """

    def __init__(
        self, whole: Decoder, truths: Decoder, fields: Fields, *, topic: str | None, quotes_names: bool = False
    ) -> None:
        self._whole = whole
        self._truths = truths
        self._fields = fields
        self._topic = topic
        self._names = [field.name for field in fields.features]
        self._tokens: list[bytes] = []
        if quotes_names and not fields.paths and not fields.arrays and all(map(_is_plain, self._names)):
            self._tokens = [f'"{name}"'.encode() for name in self._names]

    def decode(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        if self._topic is not None and records.origin.topic == self._topic:
            samples, rejects = self._truths.decode(records)
            return self._widened(samples), rejects
        if self._topic is None and self._tokens:
            bare = [self._has_no_name(value) for value in records.values]
            if any(bare):
                return self._decode_apart(records, bare)
        return self._decode_together(records)

    def _has_no_name(self, value: bytes | None) -> bool:
        """Return whether none of the features can be in a record; an escaped character may hide a name."""
        return value is not None and b"\\" not in value and not any(token in value for token in self._tokens)

    def _decode_apart(self, records: Records, bare: Sequence[bool]) -> tuple[Samples, Sequence[Reject]]:
        """Return the samples and rejects of a run of which some records are *bare* of features."""
        rows = [[i for i, b in enumerate(bare) if b is wanted] for wanted in (False, True)]
        samples, rejects = self._decode_together(_rows_of(records, rows[0]))
        truths, bad = self._truths.decode(_rows_of(records, rows[1]))
        if bad:  # some bring no truth either: they say why they are no records
            return self._decode_together(records)
        return _in_order([samples, self._widened(truths)]), rejects

    def _decode_together(self, records: Records) -> tuple[Samples, Sequence[Reject]]:
        samples, rejects = self._whole.decode(records)
        if self._topic is not None or not any(self._may_be_truth(reject) for reject in rejects):
            return samples, rejects
        bare = [reject for reject in rejects if self._may_be_truth(reject)]
        truths, bad = self._truths.decode(_as_records(records, bare))
        first = {reject.offset: reject for reject in bare}
        remaining = [reject for reject in rejects if reject.offset not in first]
        # One that brings no truth either is what it was.
        bad = [first[reject.offset] if reject.reason is RejectReason.MISSING_FIELD else reject for reject in bad]
        both = _in_order([samples, self._widened(truths)])
        return both, sorted([*remaining, *bad], key=lambda reject: reject.offset)

    def fields_of(self, value: bytes) -> Mapping[str, object]:
        return self._whole.fields_of(value)

    def _may_be_truth(self, reject: Reject) -> bool:
        """Return whether the record has none of the features; one that lacks some of them has a wrong name."""
        if reject.reason not in _REASONS or reject.value is None:
            return False
        present = self._fields_in(reject.value)
        return not any(name in present for name in self._names)

    def _fields_in(self, value: bytes) -> set[str]:
        """Return the names of the fields that have a value."""
        found = self._whole.fields_of(value)
        return {
            name
            for name, cell in found.items()
            if cell is not None and not (isinstance(cell, str) and self._fields.is_missing(cell))
        }

    def _widened(self, samples: Samples) -> Samples:
        """Return *samples* with the columns of features, all nan."""
        count, columns = len(samples), len(self._fields.features) + len(self._fields.seasons)
        upstream = np.full((count, len(self._fields.upstream)), np.nan) if self._fields.upstream else None
        return replace(samples, x=np.full((count, columns), np.nan), upstream=upstream)


def _is_plain(name: str) -> bool:
    """Return whether JSON holds a name as it is, in double quotes."""
    return name.isascii() and name.isprintable() and not set(name) & set('"\\/')


def _in_order(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all *parts* of one run in the order of their offsets."""
    both = Samples.concat(parts)
    return both.take(np.argsort(both.offsets, kind="stable"))


def _rows_of(run: Records, rows: Sequence[int]) -> Records:
    """Return some of the records of a run."""
    return Records(
        run.origin,
        [run.offsets[i] for i in rows],
        [run.values[i] for i in rows],
        [run.keys[i] for i in rows],
        [run.timestamps_ms[i] for i in rows],
        Position(run.next.offset),
    )


def _as_records(run: Records, rejects: Sequence[Reject]) -> Records:
    """Return the records of *rejects*, which belong to *run*."""
    return Records(
        run.origin,
        [reject.offset for reject in rejects],
        [reject.value for reject in rejects],
        [reject.key for reject in rejects],
        [reject.timestamp_ms for reject in rejects],
        Position(run.next.offset),
    )
