"""A Kafka topic as a sink. Delivery is at least once: after a crash, what followed the checkpoint is sent again."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from learnd.errors import BrokerUnavailableError, ConfigError, SaveFailedError

log = structlog.get_logger()

FLUSH_TIMEOUT_S = 20.0
MAX_BLOCK_S = 5.0
"""How long one record may wait for the broker on the learner's thread before the next save is made to fail."""
Message = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
"""Value, key, headers."""


class TopicSink:
    """Sends to one topic; ``flush`` raises unless everything since the last flush was delivered."""

    def __init__(self, topic: str, client_options: Mapping[str, Any], *, key: str) -> None:
        self._topic = topic
        self._key = key
        self._options = client_options
        self._producer: Any = None
        self._failed: Exception | None = None
        self._lock = threading.Lock()

    def open(self) -> None:
        try:
            self._producer = KafkaProducer(
                **self._options, acks="all", linger_ms=20, max_block_ms=int(MAX_BLOCK_S * 1000)
            )
            partitions = self._producer.partitions_for(self._topic)
        except KafkaError as error:
            raise BrokerUnavailableError(f"no broker for the topic {self._topic}: {error}") from error
        if not partitions:
            raise ConfigError(f"{self._key}: {self._topic} does not exist; create it first")

    def send(self, messages: Sequence[Message]) -> None:
        for value, key, headers in messages:
            if value is None and key is None:
                key = b""  # kafka-python refuses a record with neither; a tombstone must stay one
            try:
                sent = self._producer.send(self._topic, value=value, key=key, headers=list(headers))
                sent.add_errback(self._fail)
            except KafkaError as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._failed = error
        log.warning("delivery_failed", topic=self._topic, error=type(error).__name__)

    def flush(self) -> None:
        self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        with self._lock:
            failed, self._failed = self._failed, None
        if failed is not None:
            raise SaveFailedError(f"not everything reached the topic {self._topic}: {failed}") from failed

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=5.0)
            self._producer = None
