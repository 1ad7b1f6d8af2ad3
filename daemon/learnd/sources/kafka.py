"""The source for Kafka topics. The checkpoint, never a consumer group, assigns partitions and positions."""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

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
)

from learnd.core.errors import BrokerUnavailableError, ConfigError, LearndError
from learnd.core.layout import TextLayout
from learnd.core.names import missing_topic
from learnd.core.reasons import RejectReason
from learnd.core.types import Offsets, Position, Positions, Records, Reject, TopicPartition, offsets_of
from learnd.sources import kafka_patches
from learnd.sources.kafka_auth import REFUSED_LOGIN, client_options, informativeness, unavailable
from learnd.sources.kafka_errors import data_loss, unreadable
from learnd.sources.kafka_types import Consumer, ConsumerRecord, Partition
from learnd.sources.settings import KafkaSettings, SourceContext

log = structlog.get_logger()

TRIES = 3
"""Attempts to fetch a batch before it counts as unreadable: one damaged in transit is intact the next time."""
SILENCE_S = 3.0
"""Seconds by which an answer may be late before the broker counts as gone. It answers an idle fetch every
`fetch_max_wait_ms`."""
METADATA_TIMEOUT_S = 5.0
LOOK_UP_MS = 5000
"""Timeout of an offset look-up. A clean shutdown waits for the poll to return, so kafka-python's 30 s are too long."""
LAST_COMMIT_MS, CLOSE_MS = 1500, 1000
"""Timeouts at a clean shutdown. A broker that hangs must not use up its 25 s; only lag tools need the last commit."""
RECONNECT_MAX_MS = 2000
"""Longest pause between attempts to connect. With kafka-python's 30 s, learning would resume that much later after the
broker came back."""


class KafkaSource:
    """Records of every partition of the configured topics, or of one shard of them, as raw bytes.

    No deserializers are set: an error in one would count as an unreadable batch.
    """

    def __init__(self, settings: KafkaSettings, *, group_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._group_id = settings.group_id or group_id
        self._clock = clock
        self._consumer: Consumer | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._changes: list[Records] = []
        self._failed: dict[TopicPartition, tuple[int, int]] = {}
        """The offset of an unreadable batch and the attempts so far, per partition, because several may be damaged."""
        self._failure: Exception | None = None
        self._answered = False
        self._silent_s = 0.0
        self._topics_exist = True
        self._lags: dict[TopicPartition, int] = {}
        self._acknowledged: dict[TopicPartition, int] | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_settings(cls, settings: KafkaSettings, context: SourceContext) -> "KafkaSource":
        """Return the configured source. Only lag tools use the consumer group."""
        return cls(settings, group_id=f"learnd-{context.name}")

    @staticmethod
    def layout(settings: KafkaSettings) -> TextLayout:
        """Return an empty layout of text records: the configuration must name the columns."""
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
                # An offset that retention removed must raise: a jump to either end would lose or repeat records.
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level=settings.isolation_level,
                max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
                fetch_max_wait_ms=settings.fetch_max_wait_ms,
                metadata_max_age_ms=int(settings.discover_every_s * 1000),
                reconnect_backoff_max_ms=RECONNECT_MAX_MS,
            )
            kafka_patches.guard(self._client, self._note_answer)
            self._assign_all(positions)
        except KafkaError as error:
            self.close()
            # kafka-python itself reports only a timeout.
            cause = self._failure if isinstance(error, KafkaTimeoutError) and self._failure else error
            raise unavailable(self._settings, cause) from error
        except LearndError:
            self.close()
            raise

    @property
    def _client(self) -> Consumer:
        """The open consumer."""
        assert self._consumer is not None, "open() comes first"
        return self._consumer

    def _note_answer(self) -> None:
        self._answered = True

    def _note_failure(self, error: Exception) -> None:
        # The last error is not always the best one: the deadline cuts the last attempt short, and a broker that refuses
        # a login may also just close the connection.
        if self._failure is None or informativeness(error) >= informativeness(self._failure):
            self._failure = error
        if self._consumer is not None:  # before that, `open` raises the error
            log.warning("connection_failed", error=f"{type(error).__name__}: {error}")

    def _assign_all(self, checkpointed: Positions) -> None:
        """Assign every partition at its offset. If that offset is gone, do as ``on_data_loss`` says."""
        partitions = self._partitions()
        offsets = offsets_of(checkpointed)
        self._topic_ids = {p.topic: known.topic_id for p, known in checkpointed.items() if known.topic_id is not None}
        self._changes = []
        self._failed = {}
        known = {partition.topic for partition in offsets}
        starts = {
            **self._starts([p for p in partitions if p.topic not in known]),
            # Added since the checkpoint: all of their records are still to be learned.
            **self._first_offsets([p for p in partitions if p.topic in known]),
        }
        histories = {p: known.history for p, known in checkpointed.items()}
        self._assign({p: offsets[p] if p in offsets else starts[p] for p in partitions}, histories)
        for topic in self._settings.topics:
            new_id = kafka_patches.topic_id(self._client, topic)
            if new_id is None or self._topic_ids.setdefault(topic, new_id) == new_id:
                continue
            self._positions |= {p: offset for p, offset in offsets.items() if p.topic == topic}
            self._changes += self._restart_topic(topic, new_id)
        for partition, first in starts.items():
            if self._positions[partition] < first and partition in offsets:
                self._changes.append(self._continue_at(partition, first, f"the oldest one left is {first}"))

    def _assign(
        self, positions: Mapping[TopicPartition, int], histories: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Read exactly these partitions. Those that were read before continue at their position."""
        self._client.assign([_theirs(p) for p in positions])
        for partition, offset in positions.items():
            if self._positions.get(partition) != offset:
                kafka_patches.seek(self._client, _theirs(partition), offset, (histories or {}).get(partition, -1))
        self._positions = dict(positions)

    def _first_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the oldest available offset of each partition."""
        offsets = self._client.beginning_offsets([_theirs(p) for p in partitions], LOOK_UP_MS) if partitions else {}
        return {_ours(p): offset for p, offset in offsets.items()}

    def _partitions(self) -> list[TopicPartition]:
        """Return the partitions to read. Wait for a topic that does not exist, up to ``connect_timeout_s``."""
        partitions: list[TopicPartition] = []
        deadline_s = self._clock() + self._settings.connect_timeout_s
        for topic in self._settings.topics:
            while not (numbers := self._client.partitions_for_topic(topic)):
                if self._clock() > deadline_s:
                    message = missing_topic(topic, self._settings.bootstrap_servers, self._client.topics())
                    raise ConfigError(f"source.topics: {message}")
                time.sleep(0.2)
            partitions += [TopicPartition(topic, number) for number in self._owned(numbers)]
        if not partitions:
            topics = ", ".join(self._settings.topics)
            raise ConfigError(
                f"source.shard: no partition of {topics} belongs to this shard ({self._settings.shard}); "
                "use at most as many shards as there are partitions"
            )
        return partitions

    def _owned(self, numbers: Collection[int]) -> list[int]:
        """Return the partitions of this shard, ascending; without a shard, all."""
        shard = self._settings.shard
        return sorted(numbers) if shard is None else sorted(filter(shard.owns, numbers))

    def _starts(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the offset at ``start_from`` for each of *partitions*, which are not in the checkpoint."""
        start_from = self._settings.start_from
        theirs = [_theirs(p) for p in partitions]
        if not theirs:
            return {}
        if isinstance(start_from, datetime):
            start = start_from if start_from.tzinfo else start_from.replace(tzinfo=UTC)
            answers = self._client.offsets_for_times(dict.fromkeys(theirs, int(start.timestamp() * 1000)))
            ends = self._client.end_offsets(theirs)
            offsets = {p: ends[p] if (answer := answers.get(p)) is None else answer.offset for p in theirs}
        elif start_from == "latest":
            offsets = dict(self._client.end_offsets(theirs))
        else:
            offsets = dict(self._client.beginning_offsets(theirs))
        return {_ours(p): offset for p, offset in offsets.items()}

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        self._commit()
        started_s = self._clock()
        try:
            return self._topic_changes() or self._fetched(max_records, timeout_s)
        except (RetriableError, UnknownError, *REFUSED_LOGIN) as error:
            # The broker is down or in trouble, or the token had expired when the broker asked for a new one. No record
            # was consumed, so the next poll requests the same ones.
            log.warning("poll_failed", error=f"{type(error).__name__}: {error}")
            time.sleep(timeout_s)
            return []
        except KafkaError as error:
            raise BrokerUnavailableError(
                f"the broker refuses to serve {', '.join(self._settings.topics)} (source.topics): "
                f"{type(error).__name__}: {error}; correct the access rights or the broker, then start again"
            ) from error
        finally:
            # Answers arrive on kafka-python's own thread, also between two polls.
            answered, self._answered = self._answered, False
            self._silent_s = 0.0 if answered else self._silent_s + self._clock() - started_s

    def _fetched(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        try:
            polled = self._client.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except kafka_patches.UnreadableBatchError as error:
            return self._unreadable_batch(error)
        except OffsetOutOfRangeError as error:
            theirs, _ = next(iter(error.args[0].items()))
            return self._out_of_range(_ours(theirs))
        except LogTruncationError as error:
            return self._truncated({_ours(p): end for p, end in kafka_patches.truncations(error).items()})
        runs = [self._records(_ours(theirs), records) for theirs, records in polled.items()]
        for run in runs:
            self._positions[run.origin] = run.next.offset
            self._failed.pop(run.origin, None)
        runs += self._empty_runs()
        for partition, position in self._positions.items():
            high = self._client.highwater(_theirs(partition))
            if high is not None:
                self._lags[partition] = max(0, high - position)
        return runs

    def _empty_runs(self) -> list[Records]:
        """Return runs without records for offsets of transaction markers and aborted records.

        The positions must advance past them: otherwise retention would later make them look like lost records.
        """
        runs = []
        for partition, position in self._positions.items():
            reached, leader_epoch = kafka_patches.position(self._client, _theirs(partition))
            if reached > position:
                runs.append(self._moved(partition, reached, history=leader_epoch))
        self._positions |= {run.origin: run.next.offset for run in runs}
        return runs

    def _topic_changes(self) -> list[Records]:
        """Apply changes of the topics since the last poll, and return the runs that move positions; usually none.

        The changes are new partitions, deleted topics and recreated topics, from kafka-python's metadata.
        """
        self._topics_exist = True
        for topic in self._settings.topics:
            numbers = kafka_patches.known_partitions(self._client, topic)
            new_id = kafka_patches.topic_id(self._client, topic)
            if not numbers:
                self._topics_exist = False
                log.warning("topic_missing", topic=topic)
            elif new_id is not None and self._topic_ids.setdefault(topic, new_id) != new_id:
                self._changes += self._restart_topic(topic, new_id)
            elif new := {TopicPartition(topic, n) for n in self._owned(numbers)} - self._positions.keys():
                self._assign({**self._positions, **self._first_offsets(new)})
                log.info("partitions_found", topic=topic, partitions=sorted(p.partition for p in new))
        runs, self._changes = self._changes, []
        return runs

    def _restart_topic(self, topic: str, new_id: str) -> list[Records]:
        """Start at the beginning of a topic that was deleted and recreated, if ``on_data_loss`` allows it."""
        numbers = kafka_patches.known_partitions(self._client, topic)
        first = self._first_offsets([TopicPartition(topic, number) for number in self._owned(numbers)])
        old = {p: offset for p, offset in self._positions.items() if p.topic == topic}
        if self._settings.on_data_loss == "stop":
            partition, offset = next(iter(old.items()))
            reason = f"the topic was deleted and recreated, and begins at {first.get(partition, 0)}"
            raise data_loss(partition, offset, f"{reason} (its id was {self._topic_ids[topic]}, now {new_id})")
        log.error("topic_recreated", topic=topic, old_id=self._topic_ids[topic], new_id=new_id, offsets=len(old))
        self._topic_ids[topic] = new_id
        others = {p: offset for p, offset in self._positions.items() if p.topic != topic}
        self._positions = others
        self._assign({**others, **first})
        # Deleted partitions go back to 0 too: if they reappear, they have other records.
        return [self._moved(p, first.get(p, 0), lost=self._lags.pop(p, 0)) for p in sorted({*old, *first})]

    def _truncated(self, ends: Mapping[TopicPartition, int | None]) -> list[Records]:
        """Handle logs that were truncated below our offsets, and may have grown since with other records.

        kafka-python reports that once, for all partitions together, and continues at the old offsets.
        """
        kafka_patches.refresh(self._client, METADATA_TIMEOUT_S)
        if runs := self._topic_changes():
            return runs
        gone = {p: end for p, end in ends.items() if end is None or end < self._positions[p]}
        reasons = {
            p: f"the log was cut back to {'an unknown offset' if end is None else end}" for p, end in gone.items()
        }
        return [self._continue_at(p, self._positions[p] if end is None else end, reasons[p]) for p, end in gone.items()]

    def _out_of_range(self, partition: TopicPartition) -> list[Records]:
        """Handle an offset that the broker does not have: retention, truncation, or a recreated topic."""
        kafka_patches.refresh(self._client, METADATA_TIMEOUT_S)
        if runs := self._topic_changes():
            return runs
        first = self._first_offsets([partition])[partition]
        last = self._client.end_offsets([_theirs(partition)], LOOK_UP_MS)[_theirs(partition)]
        reason = f"the broker holds {first} to {last}"
        if self._positions[partition] < first:
            return [self._continue_at(partition, first, reason)]
        if self._positions[partition] <= last:
            return []  # the offset is available again
        # The log was truncated. If the topic is still the same one, the remaining records were learned. Without topic
        # ids it may be a recreated topic, whose records were not.
        return [self._continue_at(partition, last if partition.topic in self._topic_ids else first, reason)]

    def _continue_at(self, partition: TopicPartition, resume: int, reason: str) -> Records:
        """Continue at *resume* and count the gap; or raise, if ``on_data_loss`` is ``stop``."""
        offset = self._positions[partition]
        if self._settings.on_data_loss == "stop":
            raise data_loss(partition, offset, reason)
        log.error("records_lost", topic=partition.topic, partition=partition.partition, offset=offset, resume=resume)
        self._seek(partition, resume)
        return self._moved(partition, resume, lost=abs(resume - offset))

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        self._client.seek(_theirs(partition), offset)
        self._positions[partition] = offset

    def _unreadable_batch(self, error: kafka_patches.UnreadableBatchError) -> list[Records]:
        """Retry, because the batch may have been damaged in transit; then stop or skip it, as ``errors`` says."""
        partition, offset = _ours(error.partition), error.offset
        failed_at, tries = self._failed.get(partition, (offset, 0))
        tries = tries + 1 if failed_at == offset else 1
        self._failed[partition] = (offset, tries)
        if tries < TRIES:
            log.warning(
                "batch_failed", topic=partition.topic, partition=partition.partition, offset=offset, error=str(error)
            )
            return []
        if self._settings.errors == "stop":
            raise unreadable(partition, error)
        self._seek(partition, error.resume)
        count = error.resume - offset
        detail = f"offsets {offset} to {error.resume - 1} cannot be read: {error}"
        reject = Reject(partition, offset, RejectReason.UNREADABLE, detail, None)
        return [replace(self._moved(partition, error.resume), rejects=(reject,), unreadable=count)]

    def _records(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> Records:
        return Records(
            partition,
            [r.offset for r in records],
            [r.value for r in records],
            [r.key for r in records],
            [r.timestamp for r in records],
            self._position(partition, records[-1].offset + 1, records[-1].leader_epoch),
        )

    def _moved(self, partition: TopicPartition, offset: int, *, history: int = -1, lost: int = 0) -> Records:
        """Return a run without records, which only moves the position."""
        return Records(partition, [], [], [], [], self._position(partition, offset, history), lost=lost)

    def _position(self, partition: TopicPartition, offset: int, history: int = -1) -> Position:
        return Position(offset, history, self._topic_ids.get(partition.topic))

    def connected(self) -> bool:
        patience_s = SILENCE_S + self._settings.fetch_max_wait_ms / 1000
        return self._consumer is not None and self._topics_exist and self._silent_s < patience_s

    def ends(self) -> Offsets:
        ends = self._client.end_offsets([_theirs(p) for p in self._positions], LOOK_UP_MS)
        return {_ours(p): offset for p, offset in ends.items()}

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
                self._client.commit(theirs, timeout_ms=LAST_COMMIT_MS)
            else:
                self._client.commit_async(theirs, callback=_log_failed_commit)
        except KafkaError as error:
            _log_failed_commit(theirs, error)

    def close(self) -> None:
        if self._consumer is not None:
            if self.connected():
                self._commit(wait=True)
            with contextlib.suppress(KafkaError):
                self._client.close(timeout_ms=CLOSE_MS)
            self._consumer = None
        self._positions = {}


def _log_failed_commit(_offsets: object, response: object) -> None:
    if isinstance(response, Exception):
        # Harmless: only lag tools read these offsets.
        log.warning("offset_commit_failed", error=type(response).__name__)


def _theirs(partition: TopicPartition) -> Partition:
    theirs: Partition = kafka.TopicPartition(partition.topic, partition.partition)
    return theirs


def _ours(theirs: Partition) -> TopicPartition:
    return TopicPartition(theirs.topic, theirs.partition)
