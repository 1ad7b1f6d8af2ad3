"""Options of the sinks: a Kafka topic or a file."""

from pathlib import Path

from pydantic import model_validator

from learnd.core.settings_base import Section


class SinkSettings(Section):
    """A topic of the source's Kafka cluster, or a JSON Lines file."""

    topic: str | None = None
    """Of the source's cluster; gets each line at least once."""
    path: Path | None = None
    """A JSON Lines file; has each line exactly once, also after a crash."""

    @model_validator(mode="after")
    def _one(self) -> "SinkSettings":
        if (self.topic is None) == (self.path is None):
            raise ValueError("name either a topic or a path")
        return self
