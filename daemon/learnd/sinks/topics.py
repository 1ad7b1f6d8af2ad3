"""A Kafka topic as a sink. Delivery is at least once: after a crash, what followed the checkpoint is sent again.

What the broker has not confirmed is part of the checkpoint, so that a topic that takes nothing cannot hold one up.
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
from learnd.core.types import State

log = structlog.get_logger()

FLUSH_TIMEOUT_S = 4.0
"""Two topics and the rest of a clean end must fit into the 25 s that it is promised in."""
CLOSE_TIMEOUT_S = 0.5
"""There was a flush before, and what it did not deliver is in the checkpoint. kafka-python takes it twice."""
MAX_REQUEST_BYTES = 64 << 20
CUT_BYTES = 1000
MAX_BLOCK_S = 5.0
"""How long one record may wait for the broker on the learner's thread; those behind it then wait for the next save."""
MAX_HELD_BYTES = 64 << 20
"""What is not confirmed may take so much memory; a save beyond that fails, and learning goes on without saves."""
Message = tuple[bytes | None, bytes | None, Sequence[tuple[str, bytes]]]
"""Value, key, headers."""


class TopicSink:
    """Sends to one topic; what is not confirmed yet is in `state`, and sent again after `restore`.

    What the broker finds too large is delivered with its value and its key cut, and headers that tell their real sizes.
    """

    def __init__(self, topic: str, client_options: Mapping[str, Any], *, key: str) -> None:
        self._topic = topic
        self._key = key
        self._options = client_options
        self._producer: Any = None
        self._held: dict[int, Message] = {}
        self._held_bytes = 0
        self._number = 0
        self._again: list[int] = []
        self._stuck = False
        self._lock = threading.Lock()

    def open(self) -> None:
        try:
            self._producer = _Producer(
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
            # kafka-python waits for a topic that is not there as for a broker that does not answer.
            missing = self._producer is not None and self._is_missing()
            self.close()  # or one more would be there after each attempt
            if not missing:
                raise BrokerUnavailableError(f"no broker for the topic {self._topic}: {error}") from error
            partitions = None
        if not partitions:
            raise ConfigError(f"{self._key}: {self._topic} does not exist; create it first")

    def _is_missing(self) -> bool:
        """Whether the broker answers, and says that there is no such topic."""
        try:
            admin = KafkaAdminClient(**self._options)
        except KafkaError:
            return False
        try:
            return self._topic not in admin.list_topics()
        except KafkaError:
            return False
        finally:
            admin.close()

    def send(self, messages: Iterable[Message]) -> None:
        for message in messages:
            with self._lock:
                self._number += 1
                number = self._number
                self._held[number] = message
                self._held_bytes += _size(message)
            self._try(number, message)

    def _try(self, number: int, message: Message) -> None:
        if self._stuck:
            with self._lock:
                self._again.append(number)
            return
        value, key, headers = message
        if value is None and key is None:
            key = b""  # kafka-python refuses a record with neither; a tombstone must stay one
        try:
            sent = self._producer.send(self._topic, value=value, key=key, headers=list(headers))
            sent.add_callback(self._confirm, number)
            sent.add_errback(self._fail, number)
        except KafkaTimeoutError as error:
            self._stuck = True  # the next one would block as long
            self._fail(number, error)
        except KafkaError as error:
            self._fail(number, error)

    def _confirm(self, number: int, _metadata: Any) -> None:
        with self._lock:
            self._held_bytes -= _size(self._held.pop(number))

    def _fail(self, number: int, error: Exception) -> None:
        """Holds on to what was not delivered; the next flush tries again."""
        log.warning("delivery_failed", topic=self._topic, error=type(error).__name__)
        with self._lock:
            if isinstance(error, MessageSizeTooLargeError | RecordListTooLargeError):
                self._held_bytes -= _size(self._held[number])
                self._held[number] = _cut(self._held[number])
                self._held_bytes += _size(self._held[number])
            self._again.append(number)

    def flush(self) -> None:
        """Wait a while for confirmations; what failed is sent once more within the same flush, cut if too large."""
        deadline_s = time.monotonic() + FLUSH_TIMEOUT_S
        self._stuck = False
        for _ in range(3):
            with contextlib.suppress(KafkaError):
                self._producer.flush(timeout=max(0.0, deadline_s - time.monotonic()))
            with self._lock:
                again = [(number, self._held[number]) for number in self._again]
                self._again = []
            if not again:
                break
            for number, message in again:
                self._try(number, message)
        if self._held:
            log.warning("deliveries_pending", topic=self._topic, records=len(self._held), bytes=self._held_bytes)
        if self._held_bytes > MAX_HELD_BYTES:
            raise SaveFailedError(
                f"{self._key}: {len(self._held)} records have not reached the topic {self._topic}; they are sent again "
                "until it takes them, and no checkpoint is made before"
            )

    def state(self) -> State:
        with self._lock:
            return {"pending": list(self._held.values())}

    def restore(self, state: State) -> None:
        """Send what the checkpoint holds; only once open."""
        pending = [(value, key, [tuple(h) for h in headers]) for value, key, headers in state.get("pending", ())]
        if pending:
            log.info("deliveries_resumed", topic=self._topic, records=len(pending))
        self.send(pending)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=CLOSE_TIMEOUT_S)
            self._producer = None


class _Producer(KafkaProducer):  # type: ignore[misc]
    """Closes with records undelivered, too: kafka-python's own raises then, and once more when it is collected."""

    _closing = False

    def close(self, *arguments: Any, **options: Any) -> None:
        self._closing = True
        super().close(*arguments, **options)

    def flush(self, *arguments: Any, **options: Any) -> None:
        try:
            super().flush(*arguments, **options)
        except KafkaTimeoutError:
            if not self._closing:
                raise


def _size(message: Message) -> int:
    value, key, _ = message
    return len(value or b"") + len(key or b"") + 200


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
