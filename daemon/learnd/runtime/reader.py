"""Polls and decodes ahead of the learner, on a thread of its own, into a bounded queue."""

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace

from learnd.core.protocols import Decoder, Source
from learnd.core.types import Batch, Offsets, Positions, Records, Reject, Samples, TopicPartition, offsets_of

BATCH_RECORDS = 4096
"""Most records in one batch: a backlog fills it, a slow stream never waits for it."""
FIRST_BATCH_RECORDS = 64
"""Until the cost of learning is known: the first batches of a slow model must not hold up a stop."""
QUEUE_BATCHES = 4
BATCH_S = 0.5
"""The time that learning one batch may take: signals and saves wait for its end."""
POLL_TIMEOUT_S = 0.2
_JOIN_S = 0.1


class Reader:
    """Batches in the order of the source, decoded. One thread reads; ``next`` belongs to the learner's thread.

    An error of the source is raised by ``next``, after every batch that was read before it.

    Parameters
    ----------
    max_records : stop after exactly so many records (None: no bound)
    once : stop at the offsets that were the ends when reading began
    keep_records : batches hold the undecoded records too, for a transform that may reject one
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
        """Most records of the next batch; the learner's thread sets it by what it can learn in time."""
        self.finished = False
        """True once ``next`` has handed over the last batch there will ever be."""

    def start(self, positions: Positions) -> None:
        """Open the source at *positions* and begin to read. Raises what the source raises; may then be called again."""
        self._source.open(positions)
        self._start = dict(self._source.positions())
        if self._once:
            self._ends = self._source.ends()
        self._thread = threading.Thread(target=self._run, name="learnd-reader", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> Batch | None:
        """The next batch, or None after *timeout_s* without one."""
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
        """Make batches as large as can be learned in `BATCH_S`, after *samples* took *duration_s*."""
        if samples:  # a batch that only filled windows says nothing about the cost of learning
            affordable = int(BATCH_S * samples / max(duration_s, 1e-9))
            self.batch_records = max(1, min(affordable, 2 * self.batch_records, BATCH_RECORDS))

    def stop(self) -> None:
        """Read no further; what was read already can still be taken with ``next``."""
        self._stopping.set()

    def acknowledge(self, offsets: Offsets) -> None:
        """See `Source.acknowledge`."""
        self._source.acknowledge(offsets)

    def positions(self) -> Positions:
        """Return where each partition stood when reading began."""
        return self._start

    def connected(self) -> bool:
        """See `Source.connected`."""
        return self._source.connected()

    def lags(self) -> Mapping[TopicPartition, int]:
        """See `Source.lags`."""
        return self._source.lags()

    def close(self) -> None:
        """Stop reading, forget what was not taken, and close the source."""
        self._stopping.set()
        if self._thread is not None:
            # The thread may be waiting for room in the queue, and nobody takes any more.
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
            polled = False  # what a start found of lost records comes with the first poll, also where none are left
            while not self._stopping.is_set() and not (self._at_end() and (polled or self._left == 0)):
                polled = True
                wanted = self.batch_records if self._left is None else min(self.batch_records, self._left)
                blocks = self._within_ends(self._source.poll(wanted, POLL_TIMEOUT_S))
                if blocks:
                    batch = decode(blocks, self._decoder, keep_records=self._keep_records)
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

    def _within_ends(self, blocks: Sequence[Records]) -> Sequence[Records]:
        """*blocks* without the records that arrived after reading began, where only older ones are wanted."""
        if not self._ends:
            return blocks
        kept = [(block, until(block, self._ends.get(block.origin, 0))) for block in blocks]
        return [new for old, new in kept if new is old or new.offsets or new.rejects or new.lost]


def until(block: Records, end: int) -> Records:
    """The records of *block* before offset *end*.

    >>> block = Records(TopicPartition("t", 0), [3, 4, 7], [b"a", b"b", b"c"], [None] * 3, [0] * 3, Position(8))
    >>> until(block, 5).values, until(block, 5).next.offset
    ([b'a', b'b'], 5)
    """
    if block.next.offset <= end:
        return block
    count = sum(1 for offset in block.offsets if offset < end)
    return replace(
        block,
        offsets=block.offsets[:count],
        values=block.values[:count],
        keys=block.keys[:count],
        timestamps_ms=block.timestamps_ms[:count],
        next=block.next._replace(offset=end),
    )


def decode(blocks: Sequence[Records], decoder: Decoder, *, keep_records: bool = False) -> Batch:
    """Return one batch of all *blocks* (at least one)."""
    samples: list[Samples] = []
    rejects: list[Reject] = []
    for block in blocks:
        good, bad = decoder.decode(block)
        samples.append(good)
        rejects.extend((*block.rejects, *bad))
    return Batch(
        Samples.concat(samples),
        tuple(rejects),
        {block.origin: block.next for block in blocks},
        record_count=sum(len(block) for block in blocks),
        byte_count=sum(len(value) for block in blocks for value in block.values if value is not None),
        unreadable=sum(block.unreadable for block in blocks),
        records=blocks if keep_records else (),
        lost=sum(block.lost for block in blocks),
    )
