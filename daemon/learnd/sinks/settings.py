"""Options of the sinks: a Kafka topic or a file."""

from pathlib import Path

from pydantic import model_validator

from learnd.section import Section


class SinkSettings(Section):
    """A topic of the source's Kafka cluster, or a JSON Lines file."""

    topic: str | None = None
    path: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> "SinkSettings":
        if (self.topic is None) == (self.path is None):
            raise ValueError("name either a topic or a path")
        return self
