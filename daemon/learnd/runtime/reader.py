"""The reading thread, which polls and decodes ahead of the learner into a bounded queue."""

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from learnd.core.protocols import Decoder, Source
from learnd.core.types import Batch, Offsets, Positions, Records, Reject, Samples, TopicPartition, offsets_of

BATCH_RECORDS = 4096
"""Maximum number of records per batch. A backlog fills batches; a slow stream does not wait for full ones."""
FIRST_BATCH_RECORDS = 64
"""Maximum number of records per batch until the speed of learning is known: a slow model must not delay a stop."""
QUEUE_BATCHES = 4
"""Maximum number of decoded batches that wait for the learner."""
BATCH_S = 0.5
"""Target duration of learning one batch, in seconds: signals and checkpoints wait for its end."""
POLL_TIMEOUT_S = 0.2
_JOIN_S = 0.1


class Reader:
    """Decoded batches in the order of the source. A thread of its own reads; the learner's thread calls ``next``.

    ``next`` raises an error of the source after all batches that were read before it.

    Parameters
    ----------
    max_records : stop after exactly this many records; None: no limit
    once : stop at the ends of the partitions as they were when reading began
    keep_records : keep the undecoded records in batches, for a transform that may reject one
    """

    def __init__(
        self,
        source: Source,
        decoder: Decoder,
        *,
        max_records: int | None = None,
        once: bool = False,
        keep_records: bool = False,
    ) -> None:
        self._keep_records = keep_records
        self._source = source
        self._decoder = decoder
        self._left = max_records
        self._once = once
        self._queue: queue.Queue[Batch | BaseException | None] = queue.Queue(QUEUE_BATCHES)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._ends: Offsets | None = None
        self._start: Positions = {}
        self.batch_records = FIRST_BATCH_RECORDS
        """Maximum number of records of the next batch; set by ``pace``."""
        self.finished = False
        """True once ``next`` has returned the last batch of the stream."""

    def start(self, positions: Positions) -> None:
        """Open the source at *positions* and start reading. May be called again after an error of the source."""
        self._source.open(positions)
        self._start = dict(self._source.positions())
        if self._once:
            self._ends = self._source.ends()
        self._thread = threading.Thread(target=self._run, name="learnd-reader", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> Batch | None:
        """Return the next batch, or None if none arrives within *timeout_s*."""
        try:
            item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        if item is None:
            self.finished = True
        return item

    def pace(self, samples: int, duration_s: float) -> None:
        """Set the size of batches to what can be learned in `BATCH_S`, after *samples* samples took *duration_s*."""
        if samples:  # without samples, as when windows fill, the speed of learning is unknown
            affordable = int(BATCH_S * samples / max(duration_s, 1e-9))
            self.batch_records = max(1, min(affordable, 2 * self.batch_records, BATCH_RECORDS))

    def stop(self) -> None:
        """Stop reading. ``next`` still returns the batches that were already read."""
        self._stopping.set()

    def acknowledge(self, offsets: Offsets) -> None:
        """Call `Source.acknowledge`."""
        self._source.acknowledge(offsets)

    def positions(self) -> Positions:
        """Return the positions at which reading began."""
        return self._start

    def connected(self) -> bool:
        """Return the result of `Source.connected`."""
        return self._source.connected()

    def lags(self) -> Mapping[TopicPartition, int]:
        """Return the result of `Source.lags`."""
        return self._source.lags()

    def close(self) -> None:
        """Stop reading, drop the batches that wait, and close the source."""
        self._stopping.set()
        if self._thread is not None:
            # The thread may wait for room in the queue, which ``next`` no longer empties.
            while self._thread.is_alive():
                self._drop_queued()
                self._thread.join(_JOIN_S)
        self._source.close()

    def _drop_queued(self) -> None:
        try:
            while True:
                self._queue.get_nowait()
        except queue.Empty:
            pass

    def _run(self) -> None:
        try:
            polled = False  # at least one poll: it reports records lost before the start
            while not self._stopping.is_set() and not (self._at_end() and (polled or self._left == 0)):
                polled = True
                limit = self.batch_records if self._left is None else min(self.batch_records, self._left)
                runs = self._within_ends(self._source.poll(limit, POLL_TIMEOUT_S))
                if runs:
                    batch = decode(runs, self._decoder, keep_records=self._keep_records)
                    if self._left is not None:
                        self._left -= batch.record_count
                    self._queue.put(batch)
            self._queue.put(None)
        except BaseException as error:
            self._queue.put(error)

    def _at_end(self) -> bool:
        if self._left == 0 or self._source.exhausted():
            return True
        if not self._ends:
            return False
        reached = offsets_of(self._source.positions())
        return all(reached.get(partition, 0) >= end for partition, end in self._ends.items())

    def _within_ends(self, runs: Sequence[Records]) -> Sequence[Records]:
        """Return *runs* without the records that arrived after reading began, with ``once``; otherwise all."""
        if not self._ends:
            return runs
        pairs = [(run, until(run, self._ends.get(run.origin, 0))) for run in runs]
        return [new for old, new in pairs if new is old or new.offsets or new.rejects or new.lost]


def until(run: Records, end: int) -> Records:
    """Return the records of *run* before offset *end*.

    >>> from learnd.core.types import Position
    >>> run = Records(TopicPartition("t", 0), [3, 4, 7], [b"a", b"b", b"c"], [None] * 3, [0] * 3, Position(8))
    >>> until(run, 5).values, until(run, 5).next.offset
    ([b'a', b'b'], 5)
    """
    if run.next.offset <= end:
        return run
    count = sum(1 for offset in run.offsets if offset < end)
    return replace(
        run,
        offsets=run.offsets[:count],
        values=run.values[:count],
        keys=run.keys[:count],
        timestamps_ms=run.timestamps_ms[:count],
        next=run.next._replace(offset=end),
    )


def decode(runs: Sequence[Records], decoder: Decoder, *, keep_records: bool = False) -> Batch:
    """Return one batch of all *runs* (at least one)."""
    samples: list[Samples] = []
    rejects: list[Reject] = []
    for run in runs:
        good, bad = decoder.decode(run)
        samples.append(good)
        rejects.extend((*run.rejects, *bad))
    return Batch(
        Samples.concat(samples),
        tuple(rejects),
        {run.origin: run.next for run in runs},
        record_count=sum(len(run) for run in runs),
        byte_count=sum(len(value) for run in runs for value in run.values if value is not None),
        unreadable=sum(run.unreadable for run in runs),
        records=runs if keep_records else (),
        lost=sum(run.lost for run in runs),
    )
