"""Settings of the sinks: a Kafka topic or a file."""

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from learnd.core.settings_base import Section


class SinkSettings(Section):
    """A topic of the source's Kafka cluster, or a JSON Lines file."""

    topic: str | None = None
    """A topic of the source's Kafka cluster. Each record is delivered at least once."""
    path: Path | None = None
    """A JSON Lines file. It holds each line exactly once, even after a crash."""

    @model_validator(mode="after")
    def _check_one_destination(self) -> "SinkSettings":
        if (self.topic is None) == (self.path is None):
            raise ValueError("set either topic or path")
        return self


class PredictionsSettings(SinkSettings):
    """The sink for predictions, and whose predictions it gets."""

    serve: Literal["live", "averaged", "best"] = "live"
    """The weights that answer. `live`: those that learn; in the mode `auto` the mixture of all members and rules.
    `averaged`: the averaged weights. `best`: the weights that an export would publish now, live or averaged."""
    forecasts: Literal["at_once", "with_truth"] = "at_once"
    """Moment of a forecast. `at_once`: when its window is full; its evaluation is a line of its own, `horizon` readings
    later. `with_truth`: only then, in one line, which costs less."""
