"""A Kafka topic as a sink. Delivery is at least once: after a crash, what followed the checkpoint is sent again."""

import contextlib
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from learnd.errors import BrokerUnavailableError, ConfigError, SaveFailedError

log = structlog.get_logger()

FLUSH_TIMEOUT_S = 6.0
CLOSE_TIMEOUT_S = 2.0
MAX_REQUEST_BYTES = 64 << 20
CUT_BYTES = 1000
MAX_BLOCK_S = 5.0
"""How long one record may wait for the broker on the learner's thread before the next save is made to fail."""
Message = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
"""Value, key, headers."""


class TopicSink:
    """Sends to one topic; ``flush`` raises unless everything taken so far was delivered, and tries again next time.

    What the broker finds too large is delivered with its value and its key cut, and headers that tell their real sizes.
    """

    def __init__(self, topic: str, client_options: Mapping[str, Any], *, key: str) -> None:
        self._topic = topic
        self._key = key
        self._options = client_options
        self._producer: Any = None
        self._undelivered: list[Message] = []
        self._lock = threading.Lock()

    def open(self) -> None:
        try:
            self._producer = KafkaProducer(
                **self._options,
                acks="all",
                # An idempotent producer refuses everything after the first record that is too large.
                enable_idempotence=False,
                max_in_flight_requests_per_connection=1,
                linger_ms=20,
                max_block_ms=int(MAX_BLOCK_S * 1000),
                max_request_size=MAX_REQUEST_BYTES,
            )
            partitions = self._producer.partitions_for(self._topic)
        except KafkaError as error:
            raise BrokerUnavailableError(f"no broker for the topic {self._topic}: {error}") from error
        if not partitions:
            raise ConfigError(f"{self._key}: {self._topic} does not exist; create it first")

    def send(self, messages: Sequence[Message]) -> None:
        for message in messages:
            value, key, headers = message
            if value is None and key is None:
                key = b""  # kafka-python refuses a record with neither; a tombstone must stay one
            try:
                sent = self._producer.send(self._topic, value=value, key=key, headers=list(headers))
                sent.add_errback(functools.partial(self._keep, message))
            except KafkaError as error:
                self._keep(message, error)

    def _keep(self, message: Message, error: Exception) -> None:
        """Holds on to what was not delivered; the checkpoint waits for it."""
        log.warning("delivery_failed", topic=self._topic, error=type(error).__name__)
        if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
            message = _cut(message)
        with self._lock:
            self._undelivered.append(message)

    def flush(self) -> None:
        for _ in range(2):  # what failed is sent once more within the same flush, cut if it was too large
            try:
                self._producer.flush(timeout=FLUSH_TIMEOUT_S)
            except KafkaError as error:
                raise SaveFailedError(f"the topic {self._topic} does not take records: {error}") from error
            with self._lock:
                again, self._undelivered = self._undelivered, []
            if not again:
                return
            self.send(again)
        self._producer.flush(timeout=FLUSH_TIMEOUT_S)
        with self._lock:
            count = len(self._undelivered)
        if count:
            raise SaveFailedError(f"{count} records have not reached the topic {self._topic}; they are sent again")

    def close(self) -> None:
        if self._producer is not None:
            with contextlib.suppress(KafkaError):  # what was not delivered is not in a checkpoint either
                self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None


def _cut(message: Message) -> Message:
    """The message with its value and its key cut to a size that any broker takes.

    >>> value, key, headers = _cut((b"x" * 5000, b"k", [("a", b"b")]))
    >>> len(value), key, headers[-1]
    (1000, b'k', ('learnd.value.bytes', b'5000'))
    """
    value, key, headers = message
    sizes = [
        (f"learnd.{name}.bytes", str(len(part)).encode())
        for name, part in (("value", value), ("key", key))
        if part is not None and len(part) > CUT_BYTES
    ]
    if not sizes:
        return message  # it only shared a batch with one that is too large
    return _head(value), _head(key), [*headers, *sizes]


def _head(part: bytes | None) -> bytes | None:
    return None if part is None else part[:CUT_BYTES]
