"""Sinks for alarms: one object when an alarm begins, and one when it ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from learnd.core.types import State
from learnd.sinks.files import LinesFile, log_dropped
from learnd.sinks.topics import TopicSink

Line = Mapping[str, Any]


class NoAlarmSink:
    """The sink used when none is configured: it writes nothing."""

    def open(self) -> None: ...

    def put(self, lines: Sequence[Line]) -> None: ...

    def flush(self) -> None: ...

    def pending(self) -> int:
        return 0

    def close(self) -> None: ...

    def state(self) -> State:
        return {}

    def restore(self, state: State) -> None:
        log_dropped(state, "alarm_sink")


class FileAlarmSink:
    """A file with one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._lines = LinesFile(path, key="alarm_sink.path")
        self.open, self.flush, self.close = self._lines.open, self._lines.flush, self._lines.close
        self.state, self.pending = self._lines.state, self._lines.pending

    def put(self, lines: Sequence[Line]) -> None:
        if lines:
            self._lines.append(lines)

    def restore(self, state: State) -> None:
        """Restore as `LinesFile.restore` does, then append what a topic in this place had not confirmed."""
        self._lines.restore(state)
        self._lines.append(msgspec.Raw(value) for value, _, _ in state.get("pending", ()))


class TopicAlarmSink:
    """A topic with one record per event. Its key is the alarm's identifier: compaction keeps the last event."""

    def __init__(self, sink: TopicSink) -> None:
        self._sink = sink
        self._encode = msgspec.json.Encoder().encode
        self.open, self.flush, self.close = sink.open, sink.flush, sink.close
        self.state, self.restore, self.pending = sink.state, sink.restore, sink.pending

    def put(self, lines: Sequence[Line]) -> None:
        if lines:
            self._sink.send([(self._encode(line), str(line["id"]).encode(), ()) for line in lines])
