"""Options of the sources."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, model_validator

from learnd.section import Count, Positive, Section


class KafkaSettings(Section):
    """Records of one or more Kafka topics."""

    kind: Literal["kafka"]
    bootstrap_servers: Annotated[list[str], Field(min_length=1)]
    topics: Annotated[list[str], Field(min_length=1)]
    start_from: Literal["earliest", "latest"] | datetime = "earliest"
    """Where a partition begins that no checkpoint holds an offset for; a timestamp without zone is UTC."""
    group_id: str | None = None
    """Offsets are committed to this group after each checkpoint, for lag tools; learnd never reads them."""
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    max_partition_fetch_bytes: Count = 4_194_304
    """Kafka's own default of 1 MiB leaves the consumer waiting for half the time (`tests/bench/kafka_path.py`)."""
    fetch_max_wait_ms: Count = 100
    connect_timeout_s: Positive = 10.0
    startup: Literal["retry", "fail"] = "fail"
    """Without a broker at the start: wait for it, not ready, or end with status 69 after ``connect_timeout_s``."""
    discover_every_s: Positive = 60.0
    """New partitions of the topics are looked for so often, and learned from their beginning."""
    errors: Literal["stop", "dead_letter"] = "stop"
    """What to do with a record batch that cannot be read: damaged, too large, of a codec that is not installed."""
    on_data_loss: Literal["stop", "continue"] = "stop"
    """What to do when the broker no longer holds the offset that is wanted next."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 67_108_864
    """Of a record batch once decompressed; a larger one is not read. Memory for two copies of it is needed."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    allow_insecure: bool = False
    """Lets a password travel unencrypted (SASL_PLAINTEXT)."""

    @model_validator(mode="after")
    def _secure(self) -> "KafkaSettings":
        if self.security_protocol == "SASL_PLAINTEXT" and not self.allow_insecure:
            raise ValueError(
                "security_protocol SASL_PLAINTEXT sends the password in the clear; "
                "use SASL_SSL, or say allow_insecure: true"
            )
        if self.security_protocol.startswith("SASL") and not (
            self.sasl_mechanism and self.sasl_username and self.sasl_password
        ):
            raise ValueError(f"{self.security_protocol} needs sasl_mechanism, sasl_username and sasl_password")
        return self

    def client_options(self) -> dict[str, Any]:
        """What every Kafka client of this cluster is made with, consumer or producer; holds the secret."""
        options: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "bootstrap_timeout_ms": int(self.connect_timeout_s * 1000),
            "security_protocol": self.security_protocol,
        }
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
            if (path := getattr(self, name)) is not None:
                options[name] = str(path)
        if self.sasl_mechanism is not None and self.sasl_password is not None:
            options["sasl_mechanism"] = self.sasl_mechanism
            options["sasl_plain_username"] = self.sasl_username
            options["sasl_plain_password"] = self.sasl_password.get_secret_value()
        return options


class FileSettings(Section):
    """Lines of a CSV or JSON Lines file, gzipped if the name ends in .gz; stops at the end of the file."""

    kind: Literal["file"]
    path: Path
    format: Literal["csv", "jsonl"] | None = None
    """Read off the file's name where absent."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """A tab for a name in .tsv, else a comma, where absent."""
    header: bool = True
    """Whether the first line of a CSV file names its columns."""
    speed: Positive | None = None
    """Replays in event time, this many times faster than it happened; flat out where absent."""

    def separator(self) -> str:
        """The delimiter, from the option or the name.

        >>> FileSettings(kind="file", path=Path("a.tsv.gz")).separator()
        '\\t'
        """
        return self.delimiter or ("\t" if ".tsv" in self.path.suffixes else ",")

    def resolved_format(self) -> str | None:
        """``csv`` or ``jsonl``, from the option or the name; None where neither tells.

        >>> FileSettings(kind="file", path=Path("a.csv.gz")).resolved_format()
        'csv'
        """
        if self.format is not None:
            return self.format
        suffixes = [s for s in self.path.suffixes if s != ".gz"]
        by_suffix = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
        return by_suffix.get(suffixes[-1]) if suffixes else None


class SimulatorSettings(Section):
    """A fleet of machines that wear, drift and fail, with the truth beside each reading (see the README)."""

    kind: Literal["simulator"]
    seed: int = 0
    machines: Count = 5
    sensors: Count = 6
    interval_s: Positive = 60.0
    """Event time between two readings of one machine."""
    records: Count | None = None
    """The stream ends after so many; endless where absent."""
    rate_per_s: Positive | None = None
    """Records a second of real time; flat out where absent."""
    drift: Annotated[float, Field(ge=0)] = 1.0
    """Size of the lasting shifts of a sensor, in its standard deviations; 0 turns drift off."""
    fault_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of a machine's time in which one sensor is at fault."""
    noise: Annotated[float, Field(ge=0)] = 0.3


AnySource = Annotated[KafkaSettings | FileSettings | SimulatorSettings, Field(discriminator="kind")]
