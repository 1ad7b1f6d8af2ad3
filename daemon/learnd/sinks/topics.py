"""A Kafka topic as a sink. Delivery is at least once: after a crash, messages since the checkpoint are sent again.

Messages that the broker has not confirmed are part of the checkpoint, so an unavailable topic does not delay one.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError, RecordListTooLargeError

from learnd.core.errors import BrokerUnavailableError, ConfigError, SaveFailedError
from learnd.core.names import missing_topic
from learnd.core.types import State

log = structlog.get_logger()

FLUSH_TIMEOUT_S = 4.0
"""Flushing two topics and the rest of a clean stop must fit into the promised 25 s."""
CLOSE_TIMEOUT_S = 0.5
"""Short: a flush came before, and undelivered messages are in the checkpoint. kafka-python waits for it twice."""
MAX_REQUEST_BYTES = 64 << 20
CUT_BYTES = 1000
"""Size to which the value and the key of a message that is too large are cut."""
MAX_BLOCK_S = 5.0
"""Limit on the time one message may block the learner's thread. Those after it then wait for the next save."""
MAX_UNCONFIRMED_BYTES = 64 << 20
"""Limit on the memory for unconfirmed messages. Beyond it saves fail, and learning continues without being saved."""
Message = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
"""Value, key, headers."""


class TopicSink:
    """A producer for one topic. Unconfirmed messages are in `state`, and are sent again after `restore`.

    A message that is too large for the broker is delivered with its value and its key cut, and with headers that state
    the original sizes.

    Parameters
    ----------
    client_options : options of kafka-python's clients: the servers and how to log in
    key : the configuration's key for the topic, for error messages
    """

    def __init__(self, topic: str, client_options: Mapping[str, Any], *, key: str) -> None:
        self._topic = topic
        self._key = key
        self._options = client_options
        self._producer: _Producer | None = None
        self._unconfirmed: dict[int, Message] = {}
        self._unconfirmed_bytes = 0
        self._number = 0
        self._to_retry: list[int] = []
        self._blocked = False
        """True once the broker blocked one message for `MAX_BLOCK_S`; others are not tried before the next flush."""
        self._lock = threading.Lock()

    def open(self) -> None:
        """Connect.

        Raises
        ------
        BrokerUnavailableError
            if no broker answers.
        ConfigError
            if the topic does not exist.
        """
        try:
            self._producer = _Producer(
                **self._options,
                acks="all",
                # An idempotent producer refuses every record after the first one that is too large.
                enable_idempotence=False,
                max_in_flight_requests_per_connection=1,
                linger_ms=20,
                max_block_ms=int(MAX_BLOCK_S * 1000),
                max_request_size=MAX_REQUEST_BYTES,
            )
            partitions = self._producer.partitions_for(self._topic)
        except KafkaError as error:
            # kafka-python raises the same error for a missing topic and for a broker that does not answer.
            topics = self._known_topics() if self._producer is not None else None
            self.close()  # otherwise each attempt would leave one more producer
            if topics is None or self._topic in topics:
                raise BrokerUnavailableError(f"no broker for the topic {self._topic}: {error}") from error
            partitions = None
        if not partitions:
            servers = self._options["bootstrap_servers"]
            brokers = [servers] if isinstance(servers, str) else servers
            message = missing_topic(self._topic, brokers, self._known_topics() or ())
            raise ConfigError(f"{self._key}: {message}")

    def _known_topics(self) -> Sequence[str] | None:
        """Return the topics of the broker; None if it does not answer."""
        try:
            admin = KafkaAdminClient(**self._options)
        except KafkaError:
            return None
        try:
            return list(admin.list_topics())
        except KafkaError:
            return None
        finally:
            admin.close()

    def send(self, messages: Iterable[Message]) -> None:
        """Send *messages* in order. Failures are retried by `flush` and never raised."""
        for message in messages:
            with self._lock:
                self._number += 1
                number = self._number
                self._unconfirmed[number] = message
                self._unconfirmed_bytes += _size(message)
            self._try(number, message)

    def _try(self, number: int, message: Message) -> None:
        if self._blocked:
            with self._lock:
                self._to_retry.append(number)
            return
        assert self._producer is not None
        value, key, headers = message
        if value is None and key is None:
            key = b""  # kafka-python refuses a record without value and key, and a tombstone must keep its null value
        try:
            sent = self._producer.send(self._topic, value=value, key=key, headers=list(headers))
            sent.add_callback(self._confirm, number)
            sent.add_errback(self._fail, number)
        except KafkaTimeoutError as error:
            self._blocked = True  # the next one would block for as long
            self._fail(number, error)
        except KafkaError as error:
            self._fail(number, error)

    def _confirm(self, number: int, _metadata: object) -> None:
        with self._lock:
            self._unconfirmed_bytes -= _size(self._unconfirmed.pop(number))

    def _fail(self, number: int, error: Exception) -> None:
        """Keep a message that was not delivered, cut if it was too large; the next flush tries it again."""
        log.warning("delivery_failed", topic=self._topic, error=type(error).__name__)
        with self._lock:
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                self._unconfirmed_bytes -= _size(self._unconfirmed[number])
                self._unconfirmed[number] = _cut(self._unconfirmed[number])
                self._unconfirmed_bytes += _size(self._unconfirmed[number])
            self._to_retry.append(number)

    def flush(self) -> None:
        """Wait up to `FLUSH_TIMEOUT_S` for confirmations. Failed messages are sent again within the same flush.

        Raises
        ------
        SaveFailedError
            if more than `MAX_UNCONFIRMED_BYTES` remain unconfirmed.
        """
        assert self._producer is not None
        deadline_s = time.monotonic() + FLUSH_TIMEOUT_S
        self._blocked = False
        for _ in range(3):
            with contextlib.suppress(KafkaError):
                self._producer.flush(timeout=max(0.0, deadline_s - time.monotonic()))
            with self._lock:
                retries = [(number, self._unconfirmed[number]) for number in self._to_retry]
                self._to_retry = []
            if not retries:
                break
            for number, message in retries:
                self._try(number, message)
        if self._unconfirmed:
            count, size_bytes = len(self._unconfirmed), self._unconfirmed_bytes
            log.warning("deliveries_pending", topic=self._topic, records=count, bytes=size_bytes)
        if self._unconfirmed_bytes > MAX_UNCONFIRMED_BYTES:
            raise SaveFailedError(
                f"{self._key}: the topic {self._topic} has not confirmed {len(self._unconfirmed)} records; learnd "
                "saves no checkpoint until it does, and sends them again; check the broker and the topic"
            )

    def pending(self) -> int:
        """Return the number of unconfirmed messages."""
        return len(self._unconfirmed)

    def state(self) -> State:
        """Return the unconfirmed messages."""
        with self._lock:
            return {"pending": list(self._unconfirmed.values())}

    def restore(self, state: State) -> None:
        """Send the messages that the checkpoint holds. The sink must be open."""
        pending = [(value, key, [tuple(h) for h in headers]) for value, key, headers in state.get("pending", ())]
        if pending:
            log.info("deliveries_resumed", topic=self._topic, records=len(pending))
        self.send(pending)

    def close(self) -> None:
        """Close the producer. Undelivered messages stay in `state`."""
        if self._producer is not None:
            self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None


class _Producer(KafkaProducer):  # type: ignore[misc]
    """A producer that can be closed with undelivered records. kafka-python's raises then, and again when collected."""

    _closing = False

    def close(self, *arguments: object, **options: object) -> None:
        self._closing = True
        super().close(*arguments, **options)

    def flush(self, *arguments: object, **options: object) -> None:
        try:
            super().flush(*arguments, **options)
        except KafkaTimeoutError:
            if not self._closing:
                raise


def _size(message: Message) -> int:
    """Return the memory that a message takes, in bytes; 200 stand for its headers and overhead."""
    value, key, _ = message
    return len(value or b"") + len(key or b"") + 200


def _cut(message: Message) -> Message:
    """Return the message with its value and its key cut to a size that every broker accepts.

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
        return message  # not too large itself, but in a batch with one that is
    return _head(value), _head(key), [*headers, *sizes]


def _head(part: bytes | None) -> bytes | None:
    return None if part is None else part[:CUT_BYTES]
