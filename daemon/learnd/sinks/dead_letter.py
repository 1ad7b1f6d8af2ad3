"""Sinks for rejected records: each complete record, with its origin and the reason."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from learnd.core.types import Reject, State
from learnd.sinks.files import LinesFile, log_dropped
from learnd.sinks.reject_log import RejectLog
from learnd.sinks.topics import TopicSink

_PREFIX = "__connect.errors."


def headers(reject: Reject, connector: str) -> list[tuple[str, bytes]]:
    """Return the headers that Kafka Connect gives to its dead letters (KIP-298), so that its tools can read ours.

    >>> from learnd.core.types import TopicPartition
    >>> reject = Reject(TopicPartition("a", 1), 7, "not_finite", "x is nan", b"{}")
    >>> headers(reject, "press-7")[0]
    ('__connect.errors.topic', b'a')
    """
    fields = {
        "topic": reject.origin.topic,
        "partition": str(reject.origin.partition),
        "offset": str(reject.offset),
        "connector.name": connector,
        "task.id": "0",
        "stage": "VALUE_CONVERTER",
        "class.name": "learnd",
        "exception.class.name": reject.reason,
        "exception.message": reject.detail,
    }
    return [(_PREFIX + name, value.encode("utf-8", "replace")) for name, value in fields.items()]


class DroppedDeadLetters:
    """The sink used when no dead-letter sink is configured: rejects are only counted and logged."""

    def __init__(self) -> None:
        self._log = RejectLog()

    def open(self) -> None: ...

    def put(self, rejects: Sequence[Reject]) -> None:
        self._log.put(rejects)

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        log_dropped(state, "dead_letter")


class FileDeadLetters:
    """A file with one JSON object per line: ``headers``, ``key`` and ``value`` (base64 if they are not UTF-8)."""

    def __init__(self, path: Path, connector: str) -> None:
        self._lines = LinesFile(path, key="dead_letter.path")
        self._connector = connector
        self._log = RejectLog()
        self.open, self.flush, self.close = self._lines.open, self._lines.flush, self._lines.close
        self.state = self._lines.state

    def put(self, rejects: Sequence[Reject]) -> None:
        self._log.put(rejects)
        if rejects:
            self._lines.append(_line(r.value, r.key, headers(r, self._connector), r.timestamp_ms) for r in rejects)

    def restore(self, state: State) -> None:
        """Restore as `LinesFile.restore` does, then append what a topic in this place had not confirmed.

        Those records have lost their timestamps.
        """
        self._lines.restore(state)
        pending = state.get("pending", ())
        self._lines.append(_line(value, key, record_headers, -1) for value, key, record_headers in pending)


def _line(
    value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes]], timestamp_ms: int
) -> dict[str, Any]:
    line: dict[str, Any] = {
        "headers": {name: text.decode(errors="replace") for name, text in headers},
        "timestamp_ms": timestamp_ms,
    }
    for name, data in (("key", key), ("value", value)):
        line.update(_text_or_base64(name, data))
    return line


class TopicDeadLetters:
    """A topic that gets each record unchanged, with the headers."""

    def __init__(self, sink: TopicSink, connector: str) -> None:
        self._sink = sink
        self._connector = connector
        self._log = RejectLog()
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close
        self.state, self.restore = sink.state, sink.restore

    def put(self, rejects: Sequence[Reject]) -> None:
        self._log.put(rejects)
        self._sink.send([(r.value, r.key, headers(r, self._connector)) for r in rejects])


def _text_or_base64(name: str, data: bytes | None) -> Mapping[str, str | None]:
    """Return *data* as text under *name*; if it is not UTF-8, as base64 under another name.

    >>> _text_or_base64("value", b"ok"), _text_or_base64("value", bytes([255]))
    ({'value': 'ok'}, {'value_base64': '/w=='})
    """
    if data is None:
        return {name: None}
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}
