"""Kafka topics through kafka-python: assigned and positioned by the checkpoint, never by a consumer group."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import kafka
import structlog
from kafka import KafkaConsumer, OffsetAndMetadata
from kafka.errors import KafkaError, OffsetOutOfRangeError

from learnd.errors import BrokerUnavailableError, ConfigError, DataLossError
from learnd.sources.settings import KafkaSettings
from learnd.types import Offsets, Records, TopicPartition

log = structlog.get_logger()


class KafkaSource:
    """Every partition of the configured topics, as raw bytes.

    Deserializers stay unset: one that raises would make kafka-python's next poll spin for ever.
    """

    def __init__(self, settings: KafkaSettings, *, group_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._group_id = settings.group_id or group_id
        self._clock = clock
        self._consumer: Any = None
        self._positions: dict[TopicPartition, int] = {}
        self._lags: dict[TopicPartition, int] = {}
        self._acknowledged: dict[TopicPartition, int] | None = None
        self._lock = threading.Lock()

    def open(self, offsets: Offsets) -> None:
        settings = self._settings
        try:
            self._consumer = KafkaConsumer(
                **settings.client_options(),
                client_id=self._group_id,
                group_id=self._group_id,
                enable_auto_commit=False,
                # An offset that has aged out must surface; jumping to either end would lose or repeat records.
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                isolation_level=settings.isolation_level,
                max_partition_fetch_bytes=settings.max_partition_fetch_bytes,
                fetch_max_wait_ms=settings.fetch_max_wait_ms,
            )
            partitions = self._partitions()
            self._consumer.assign([_theirs(p) for p in partitions])
            starts = self._starts([p for p in partitions if p not in offsets])
            earliest = self._consumer.beginning_offsets([_theirs(p) for p in partitions])
        except KafkaError as error:
            servers = ", ".join(settings.bootstrap_servers)
            raise BrokerUnavailableError(
                f"no broker answers at {servers} (source.bootstrap_servers) within "
                f"{settings.connect_timeout_s:g} s; start it, or correct the address or credentials ({error})"
            ) from error
        for partition in partitions:
            offset = offsets.get(partition, starts.get(partition, 0))
            first = earliest[_theirs(partition)]
            if offset < first:
                raise _data_loss(partition, offset, f"the oldest one left is {first}")
            self._consumer.seek(_theirs(partition), offset)
            self._positions[partition] = offset

    def _partitions(self) -> list[TopicPartition]:
        found: list[TopicPartition] = []
        deadline_s = self._clock() + self._settings.connect_timeout_s
        for topic in self._settings.topics:
            while not (numbers := self._consumer.partitions_for_topic(topic)):
                if self._clock() > deadline_s:
                    servers = ", ".join(self._settings.bootstrap_servers)
                    raise ConfigError(f"source.topics: {topic} does not exist on {servers}; create it first")
                time.sleep(0.2)
            found += [TopicPartition(topic, number) for number in sorted(numbers)]
        return found

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
        try:
            polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
        except OffsetOutOfRangeError as error:
            theirs, offset = next(iter(error.args[0].items()))
            first = self._consumer.beginning_offsets([theirs])[theirs]
            last = self._consumer.end_offsets([theirs])[theirs]
            partition = TopicPartition(theirs.topic, theirs.partition)
            raise _data_loss(partition, offset, f"the broker holds {first} to {last}") from error
        blocks = [_records(theirs, records) for theirs, records in polled.items()]
        for block in blocks:
            self._positions[block.origin] = block.next_offset
        for partition, position in self._positions.items():
            high = self._consumer.highwater(_theirs(partition))
            if high is not None:
                self._lags[partition] = max(0, high - position)
        return blocks

    def ends(self) -> Offsets:
        ends = self._consumer.end_offsets([_theirs(p) for p in self._positions])
        return {TopicPartition(p.topic, p.partition): offset for p, offset in ends.items()}

    def positions(self) -> Offsets:
        # kafka-python's own position also steps over transaction markers, which no record ever shows.
        for partition, position in self._positions.items():
            theirs = self._consumer.position(_theirs(partition))
            self._positions[partition] = max(position, theirs or 0)
        return dict(self._positions)

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
                self._consumer.commit(theirs, timeout_ms=3000)
            else:
                self._consumer.commit_async(theirs, callback=_log_failed_commit)
        except KafkaError as error:
            _log_failed_commit(theirs, error)

    def close(self) -> None:
        if self._consumer is not None:
            self._commit(wait=True)
            with contextlib.suppress(KafkaError):
                self._consumer.close(timeout_ms=2000)
            self._consumer = None


def _log_failed_commit(_offsets: Any, response: Any) -> None:
    if isinstance(response, Exception):
        # Harmless: learnd never reads these offsets, lag tools do.
        log.warning("offset_commit_failed", error=type(response).__name__)


def _theirs(partition: TopicPartition) -> Any:
    return kafka.TopicPartition(partition.topic, partition.partition)


def _records(theirs: Any, records: Sequence[Any]) -> Records:
    return Records(
        TopicPartition(theirs.topic, theirs.partition),
        [r.offset for r in records],
        [r.value for r in records],
        [r.key for r in records],
        [r.timestamp for r in records],
        records[-1].offset + 1,
    )


def _data_loss(partition: TopicPartition, offset: int, there_is: str) -> DataLossError:
    return DataLossError(
        f"{partition.topic}/{partition.partition}: the next offset to learn is {offset}, but {there_is}. "
        "Records were deleted before they were learned (retention, or the topic was made anew); lengthen the "
        "retention, or start afresh with another data_dir"
    )
