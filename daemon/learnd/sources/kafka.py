"""Kafka topics through kafka-python: assigned and positioned by the checkpoint, never by a consumer group."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import kafka
import structlog
from kafka import OffsetAndMetadata
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    LogTruncationError,
    OffsetOutOfRangeError,
    RetriableError,
    UnknownError,
    UnsupportedCodecError,
)

from learnd.core.errors import BrokerUnavailableError, ConfigError, DataLossError, LearndError, UnreadableError
from learnd.core.layout import TextLayout
from learnd.core.reasons import RejectReason
from learnd.core.types import Offsets, Position, Positions, Records, Reject, TopicPartition, offsets_of
from learnd.sources import kafka_patches
from learnd.sources.kafka_auth import REFUSED_LOGIN, client_options, telling, unavailable
from learnd.sources.settings import KafkaSettings, SourceContext

log = structlog.get_logger()

TRIES = 3
"""A batch is fetched so often before it counts as unreadable: what broke on the way is whole the next time."""
SILENCE_S = 3.0
"""The broker counts as gone so long after an answer was due; it answers an idle fetch every `fetch_max_wait_ms`."""
METADATA_TIMEOUT_S = 5.0
LOOK_UP_MS = 5000
"""Of offsets. kafka-python's 30 s would hold up a clean end, which waits for a poll to come back."""
LAST_COMMIT_MS, CLOSE_MS = 1500, 1000
"""At a clean end, whose 25 s a broker that hangs must not use up: the commit is for lag tools alone."""
RECONNECT_MAX_MS = 2000
"""kafka-python's 30 s would keep learning from going on for as long after the broker came back."""


class _ConsumerRecord(Protocol):
    """A record as kafka-python gives it."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int
    leader_epoch: int


class KafkaSource:
    """Every partition of the configured topics, as raw bytes.

    Deserializers stay unset: one that raises would count as a batch that cannot be read.
    """

    def __init__(self, settings: KafkaSettings, *, group_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._group_id = settings.group_id or group_id
        self._clock = clock
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._changes: list[Records] = []
        self._failed: dict[TopicPartition, tuple[int, int]] = {}
        """Where a batch could not be read: its offset, and how often. Several broken ones are met in turn."""
        self._failure: Exception | None = None
        self._heard = False
        self._silent_s = 0.0
        self._topics_there = True
        self._lags: dict[TopicPartition, int] = {}
        self._acknowledged: dict[TopicPartition, int] | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: KafkaSettings, context: SourceContext) -> "KafkaSource":
        """Return the configured source; the group is only for lag tools."""
        return cls(settings, group_id=f"learnd-{context.name}")

    @staticmethod
    def layout(settings: KafkaSettings) -> TextLayout:
        """Return the layout of text records: the configuration has to name the columns."""
        return TextLayout()

    def open(self, positions: Positions) -> None:
        settings = self._settings
        self._failure = None
        kafka_patches.bound_decompression(settings.max_batch_bytes)
        try:
            self._consumer = kafka_patches.make_consumer(
                self._note_failure,
                **client_options(settings),
                client_id=self._group_id,
                group_id=self._group_id,
                enable_auto_commit=False,
                # An offset that has aged out must surface; jumping to either end would lose or repeat records.
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level=settings.isolation_level,
                max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
                fetch_max_wait_ms=settings.fetch_max_wait_ms,
                metadata_max_age_ms=int(settings.discover_every_s * 1000),
                reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            )
            kafka_patches.guard(self._consumer, self._hear)
            self._stand(positions)
        except KafkaError as error:
            self.close()
            # kafka-python itself only says that it took too long.
            cause = self._failure if isinstance(error, KafkaTimeoutError) and self._failure else error
            raise unavailable(self._settings, cause) from error
        except LearndError:
            self.close()
            raise

    def _hear(self) -> None:
        self._heard = True

    def _note_failure(self, error: Exception) -> None:
        # The last attempt is cut short by the deadline, and a broker that refuses may also just hang up.
        if self._failure is None or telling(error) >= telling(self._failure):
            self._failure = error
        if self._consumer is not None:  # before that, the start ends with it
            log.warning("connection_failed", error=f"{type(error).__name__}: {error}")

    def _stand(self, checkpointed: Positions) -> None:
        """Assign every partition and stand at its offset; where that is gone, as ``on_data_loss`` says."""
        partitions = self._partitions()
        offsets = offsets_of(checkpointed)
        self._topic_ids = {p.topic: known.topic_id for p, known in checkpointed.items() if known.topic_id is not None}
        self._changes = []
        self._failed = {}
        known = {partition.topic for partition in offsets}
        starts = {
            **self._starts([p for p in partitions if p.topic not in known]),
            # Younger than the checkpoint: every one of its records is still to be learned.
            **self._first([p for p in partitions if p.topic in known]),
        }
        histories = {p: known.history for p, known in checkpointed.items()}
        self._assign({p: offsets[p] if p in offsets else starts[p] for p in partitions}, histories)
        for topic in self._settings.topics:
            new_id = kafka_patches.topic_id(self._consumer, topic)
            if new_id is None or self._topic_ids.setdefault(topic, new_id) == new_id:
                continue
            self._positions |= {p: offset for p, offset in offsets.items() if p.topic == topic}
            self._changes += self._begin_anew(topic, new_id)
        for partition, first in starts.items():
            if self._positions[partition] < first and partition in offsets:
                self._changes.append(self._go_on(partition, first, f"the oldest one left is {first}"))

    def _assign(
        self, positions: Mapping[TopicPartition, int], histories: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Read these partitions and no others; those that were read already go on where they were."""
        self._consumer.assign([_theirs(p) for p in positions])
        for partition, offset in positions.items():
            if self._positions.get(partition) != offset:
                kafka_patches.seek(self._consumer, _theirs(partition), offset, (histories or {}).get(partition, -1))
        self._positions = dict(positions)

    def _first(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The oldest offset that is left of each."""
        found = self._consumer.beginning_offsets([_theirs(p) for p in partitions], LOOK_UP_MS) if partitions else {}
        return {TopicPartition(p.topic, p.partition): offset for p, offset in found.items()}

    def _partitions(self) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        deadline_s = self._clock() + self._settings.connect_timeout_s
        for topic in self._settings.topics:
            while not (numbers := self._consumer.partitions_for_topic(topic)):
                if self._clock() > deadline_s:
                    servers = ", ".join(self._settings.bootstrap_servers)
                    raise ConfigError(f"source.topics: {topic} does not exist on {servers}; create it first")
                time.sleep(0.2)
            found += [TopicPartition(topic, number) for number in self._owned(numbers)]
        if not found:
            shard = self._settings.shard
            raise ConfigError(
                f"source.shard: none of the partitions of {', '.join(self._settings.topics)} belongs to {shard}; "
                "use at most as many shards as there are partitions"
            )
        return found

    def _owned(self, numbers: Collection[int]) -> list[int]:
        """Return the partitions of this shard, ascending; all without a shard."""
        shard = self._settings.shard
        return sorted(numbers) if shard is None else sorted(filter(shard.owns, numbers))

    def _starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset to read of partitions that no checkpoint knows."""
        start_from = self._settings.start_from
        theirs = [_theirs(p) for p in partitions]
        if not theirs:
            return {}
        if isinstance(start_from, datetime):
            moment = start_from if start_from.tzinfo else start_from.replace(tzinfo=UTC)
            milliseconds = int(moment.timestamp() * 1000)
            found = self._consumer.offsets_for_times(dict.fromkeys(theirs, milliseconds))
            ends = self._consumer.end_offsets(theirs)
            offsets = {p: found[p].offset if found.get(p) else ends[p] for p in theirs}
        elif start_from == "latest":
            offsets = self._consumer.end_offsets(theirs)
        else:
            offsets = self._consumer.beginning_offsets(theirs)
        return {TopicPartition(p.topic, p.partition): offset for p, offset in offsets.items()}

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        self._commit()
        started_s = self._clock()
        try:
            return self._changed() or self._polled(max_records, timeout_s)
        except (RetriableError, UnknownError, *REFUSED_LOGIN) as error:
            # The broker is away or in trouble, or the token in force when it asked for a new one was old. Nothing was
            # taken, so the next poll asks for the same again.
            log.warning("poll_failed", error=f"{type(error).__name__}: {error}")
            time.sleep(timeout_s)
            return []
        except KafkaError as error:
            raise BrokerUnavailableError(
                f"the broker refuses to serve {', '.join(self._settings.topics)} (source.topics): "
                f"{type(error).__name__}: {error}; correct its access rights or its state, then start again"
            ) from error
        finally:
            # Answers come on kafka-python's own thread, between two polls too.
            heard, self._heard = self._heard, False
            self._silent_s = 0.0 if heard else self._silent_s + self._clock() - started_s

    def _polled(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except kafka_patches.UnreadableBatchError as broken:
            return self._pass_over(broken)
        except OffsetOutOfRangeError as error:
            theirs, _ = next(iter(error.args[0].items()))
            return self._out_of_range(_ours(theirs))
        except LogTruncationError as error:
            return self._cut_back({_ours(p): end for p, end in kafka_patches.truncations(error).items()})
        blocks = [self._records(_ours(theirs), records) for theirs, records in polled.items()]
        for block in blocks:
            self._positions[block.origin] = block.next.offset
            self._failed.pop(block.origin, None)
        blocks += self._stepped_over()
        for partition, position in self._positions.items():
            high = self._consumer.highwater(_theirs(partition))
            if high is not None:
                self._lags[partition] = max(0, high - position)
        return blocks

    def _stepped_over(self) -> list[Records]:
        """Where there were no records, but markers and aborted ones: retention would make a loss of them later."""
        blocks = []
        for partition, position in self._positions.items():
            reached, leader_epoch = kafka_patches.position(self._consumer, _theirs(partition))
            if reached > position:
                blocks.append(self._moved(partition, reached, history=leader_epoch))
        self._positions |= {block.origin: block.next.offset for block in blocks}
        return blocks

    def _changed(self) -> list[Records]:
        """What became of the topics since the last poll, as kafka-python's metadata tell; nearly always nothing."""
        self._topics_there = True
        for topic in self._settings.topics:
            numbers = kafka_patches.known_partitions(self._consumer, topic)
            new_id = kafka_patches.topic_id(self._consumer, topic)
            if not numbers:
                self._topics_there = False
                log.warning("topic_missing", topic=topic)
            elif new_id is not None and self._topic_ids.setdefault(topic, new_id) != new_id:
                self._changes += self._begin_anew(topic, new_id)
            elif new := {TopicPartition(topic, n) for n in self._owned(numbers)} - self._positions.keys():
                self._assign({**self._positions, **self._first(new)})
                log.info("partitions_found", topic=topic, partitions=sorted(p.partition for p in new))
        blocks, self._changes = self._changes, []
        return blocks

    def _begin_anew(self, topic: str, new_id: str) -> list[Records]:
        """Another topic bears the name now: from its beginning, if ``on_data_loss`` allows it."""
        numbers = kafka_patches.known_partitions(self._consumer, topic)
        first = self._first([TopicPartition(topic, number) for number in self._owned(numbers)])
        old = {p: offset for p, offset in self._positions.items() if p.topic == topic}
        if self._settings.on_data_loss == "stop":
            partition, offset = next(iter(old.items()))
            there_is = f"the topic was deleted and made anew, and begins at {first.get(partition, 0)}"
            raise _data_loss(partition, offset, f"{there_is} (its id was {self._topic_ids[topic]}, now {new_id})")
        log.error("topic_made_anew", topic=topic, old_id=self._topic_ids[topic], new_id=new_id, offsets=len(old))
        self._topic_ids[topic] = new_id
        others = {p: offset for p, offset in self._positions.items() if p.topic != topic}
        self._positions = others
        self._assign({**others, **first})
        # Partitions that are no more go back to 0 too: should they come back, they are others.
        return [self._moved(p, first.get(p, 0), lost=self._lags.pop(p, 0)) for p in sorted({*old, *first})]

    def _cut_back(self, ends: Mapping[TopicPartition, int | None]) -> list[Records]:
        """Logs ended below our offsets, and may have grown again since: what was learned is no longer what is there.

        kafka-python says so once, of all partitions together, and goes on at the old offsets.
        """
        kafka_patches.refresh(self._consumer, METADATA_TIMEOUT_S)
        if blocks := self._changed():
            return blocks
        gone = {p: end for p, end in ends.items() if end is None or end < self._positions[p]}
        ways = {
            p: f"the log was cut back to {'an offset that is not known' if end is None else end}"
            for p, end in gone.items()
        }
        return [self._go_on(p, self._positions[p] if end is None else end, ways[p]) for p, end in gone.items()]

    def _out_of_range(self, partition: TopicPartition) -> list[Records]:
        """The broker no longer holds the wanted offset: was it deleted, cut off, or is it another topic?"""
        kafka_patches.refresh(self._consumer, METADATA_TIMEOUT_S)
        if blocks := self._changed():
            return blocks
        first = self._first([partition])[partition]
        last = self._consumer.end_offsets([_theirs(partition)], LOOK_UP_MS)[_theirs(partition)]
        there_is = f"the broker holds {first} to {last}"
        if self._positions[partition] < first:
            return [self._go_on(partition, first, there_is)]
        if self._positions[partition] <= last:
            return []  # it came back meanwhile
        # Cut off, and the same topic: what is left was learned. Without topic ids it may be another one, and is not.
        return [self._go_on(partition, last if partition.topic in self._topic_ids else first, there_is)]

    def _go_on(self, partition: TopicPartition, resume: int, there_is: str) -> Records:
        """Go on at *resume*, and count the gap; or stop, if ``on_data_loss`` says so."""
        offset = self._positions[partition]
        if self._settings.on_data_loss == "stop":
            raise _data_loss(partition, offset, there_is)
        log.error("records_lost", topic=partition.topic, partition=partition.partition, offset=offset, resume=resume)
        self._seek(partition, resume)
        return self._moved(partition, resume, lost=abs(resume - offset))

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        self._consumer.seek(_theirs(partition), offset)
        self._positions[partition] = offset

    def _pass_over(self, broken: kafka_patches.UnreadableBatchError) -> list[Records]:
        """Try again, for it may have broken on the way; then stop or leave the batch out, as ``errors`` says."""
        partition, offset = _ours(broken.partition), broken.offset
        failed_at, tries = self._failed.get(partition, (offset, 0))
        tries = tries + 1 if failed_at == offset else 1
        self._failed[partition] = (offset, tries)
        if tries < TRIES:
            log.warning(
                "batch_failed", topic=partition.topic, partition=partition.partition, offset=offset, error=str(broken)
            )
            return []
        if self._settings.errors == "stop":
            raise _unreadable(partition, broken)
        self._seek(partition, broken.resume)
        count = broken.resume - offset
        detail = f"offsets {offset} to {broken.resume - 1} cannot be read: {broken}"
        reject = Reject(partition, offset, RejectReason.UNREADABLE, detail, None)
        return [replace(self._moved(partition, broken.resume), rejects=(reject,), unreadable=count)]

    def _records(self, partition: TopicPartition, records: Sequence[_ConsumerRecord]) -> Records:
        return Records(
            partition,
            [r.offset for r in records],
            [r.value for r in records],
            [r.key for r in records],
            [r.timestamp for r in records],
            self._position(partition, records[-1].offset + 1, records[-1].leader_epoch),
        )

    def _moved(self, partition: TopicPartition, offset: int, *, history: int = -1, lost: int = 0) -> Records:
        """Return a run without records, which moves the position alone."""
        return Records(partition, [], [], [], [], self._position(partition, offset, history), lost=lost)

    def _position(self, partition: TopicPartition, offset: int, history: int = -1) -> Position:
        return Position(offset, history, self._topic_ids.get(partition.topic))

    def connected(self) -> bool:
        patience_s = SILENCE_S + self._settings.fetch_max_wait_ms / 1000
        return self._consumer is not None and self._topics_there and self._silent_s < patience_s

    def ends(self) -> Offsets:
        ends = self._consumer.end_offsets([_theirs(p) for p in self._positions], LOOK_UP_MS)
        return {TopicPartition(p.topic, p.partition): offset for p, offset in ends.items()}

    def positions(self) -> Positions:
        return {partition: self._position(partition, offset) for partition, offset in self._positions.items()}

    def lags(self) -> Mapping[TopicPartition, int]:
        return dict(self._lags)

    def exhausted(self) -> bool:
        return False

    def acknowledge(self, offsets: Offsets) -> None:
        # The consumer belongs to the polling thread; the next poll (or close) commits.
        with self._lock:
            self._acknowledged = dict(offsets)

    def _commit(self, *, wait: bool = False) -> None:
        with self._lock:
            offsets, self._acknowledged = self._acknowledged, None
        if not offsets:
            return
        theirs = {_theirs(p): OffsetAndMetadata(o, "", -1) for p, o in offsets.items() if p in self._positions}
        try:
            if wait:
                self._consumer.commit(theirs, timeout_ms=LAST_COMMIT_MS)
            else:
                self._consumer.commit_async(theirs, callback=_log_failed_commit)
        except KafkaError as error:
            _log_failed_commit(theirs, error)

    def close(self) -> None:
        if self._consumer is not None:
            if self.connected():
                self._commit(wait=True)
            with contextlib.suppress(KafkaError):
                self._consumer.close(timeout_ms=CLOSE_MS)
            self._consumer = None
        self._positions = {}


def _log_failed_commit(_offsets: Any, response: Any) -> None:
    if isinstance(response, Exception):
        # Harmless: learnd never reads these offsets, lag tools do.
        log.warning("offset_commit_failed", error=type(response).__name__)


def _theirs(partition: TopicPartition) -> Any:
    return kafka.TopicPartition(partition.topic, partition.partition)


def _ours(theirs: Any) -> TopicPartition:
    return TopicPartition(theirs.topic, theirs.partition)


def _data_loss(partition: TopicPartition, offset: int, there_is: str) -> DataLossError:
    return DataLossError(
        f"{partition.topic}/{partition.partition}: the next offset to learn is {offset}, but {there_is}. "
        "Records were deleted before they were learned (retention, or the topic was made anew); lengthen the "
        "retention and say source.on_data_loss: continue for one start, or start afresh with another data_dir"
    )


def _unreadable(partition: TopicPartition, broken: kafka_patches.UnreadableBatchError) -> UnreadableError:
    cause = broken.__cause__
    if isinstance(cause, UnsupportedCodecError):
        way_out = "pip install 'learnd[codecs]'"
    elif isinstance(cause, kafka_patches.BatchTooLargeError):
        way_out = "raise that bound if the batch is an honest one"
    else:
        way_out = "bring a sound replica of the partition back"
    return UnreadableError(
        f"{partition.topic}/{partition.partition}: the batch at offset {broken.offset} cannot be read: {broken}. "
        f"Nothing was passed over: {way_out}, or say source.errors: dead_letter to leave out offsets {broken.offset} "
        f"to {broken.resume - 1}"
    )
