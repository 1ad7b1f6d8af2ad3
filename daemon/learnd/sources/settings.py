"""Options of the sources."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from learnd.core.settings_base import Address, Count, Positive, Section


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may need to know of the rest of the configuration.

    Attributes
    ----------
    name : the configured name of this daemon
    max_record_bytes : longer records are rejected by the decoder, so a source need not read on
    event_time_s : the event time of an undecoded record in seconds; None where it has none
    """

    name: str
    max_record_bytes: int
    event_time_s: Callable[[bytes], float | None]


class SourceSettings(Section):
    """The answers that all sources share."""

    kind: str
    has_record_times: ClassVar[bool] = True
    """Whether a record has a time of its own, besides what is in its value."""
    has_lines: ClassVar[bool] = False
    """Whether records are lines of text, so that packed bytes cannot be among them."""

    @property
    def topics_read(self) -> list[str]:
        """The Kafka topics that are read; a sink must not write to them."""
        return []

    @property
    def path_read(self) -> Path | None:
        """The file that is read; a sink must not write to it."""
        return None

    @property
    def connection(self) -> "KafkaSettings | None":
        """How to reach the Kafka cluster of the source, for sinks; None where there is none."""
        return None

    @property
    def names_columns(self) -> bool:
        """Whether the records come with column names."""
        return False

    @property
    def waits_for_broker(self) -> bool:
        """Whether a start without a broker waits for it."""
        return False

    @property
    def has_present_end(self) -> bool:
        """Whether the stream, as it is now, has an end that ``--once`` can stop at."""
        return True

    def fingerprint(self) -> dict[str, Any]:
        """Return what a checkpoint's positions depend on."""
        return {}


class ShardSettings(Section):
    """A share of the partitions: partition p belongs to shard p mod `of`.

    Several daemons, each with an index and a `data_dir` of its own, learn one topic side by side. Together they learn
    each record once, each into a model of its own.
    """

    index: Annotated[int, Field(ge=0)]
    """The number of this shard, from 0."""
    of: Count
    """The number of shards."""

    @model_validator(mode="after")
    def _within(self) -> "ShardSettings":
        if self.index >= self.of:
            raise ValueError(f"index is {self.index}, but {self.of} shards are numbered 0 to {self.of - 1}")
        return self

    def owns(self, partition: int) -> bool:
        """Return whether *partition* belongs to this shard.

        >>> [p for p in range(10) if ShardSettings(index=1, of=4).owns(p)]
        [1, 5, 9]
        """
        return partition % self.of == self.index


class KafkaSettings(SourceSettings):
    """Records of one or more Kafka topics."""

    kind: Literal["kafka"]
    bootstrap_servers: Annotated[list[str], Field(min_length=1)]
    """`host:port` of some brokers; the others are found through them."""
    topics: Annotated[list[str], Field(min_length=1)]
    """All of their partitions are learned from, or those of one `shard`."""
    shard: ShardSettings | None = None
    """Learn from a share of the partitions only: `{index: 3, of: 16}`. Absent: from all."""
    start_from: Literal["earliest", "latest"] | datetime = "earliest"
    """Where a partition begins that no checkpoint holds an offset for; a timestamp without zone is UTC."""
    group_id: str | None = None
    """Offsets are committed to it after each checkpoint, for lag tools alone. Absent: `learnd-<name>`."""
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    """Whether records of transactions that are not, or never, committed are learned."""
    max_partition_fetch_bytes: Count = 4_194_304
    """Fetched ahead. Kafka's own 1 MiB leaves the consumer waiting for half the time (`tests/bench/kafka_path.py`)."""
    fetch_max_wait_ms: Count = 100
    """How long the broker may hold back an answer without records."""
    connect_timeout_s: Positive = 10.0
    """A start without a broker fails, or is tried again, after so long."""
    startup: Literal["retry", "fail"] = "fail"
    """Without a broker at the start: wait for it, `/readyz` 503; or end with status 69: a wrong address shows."""
    discover_every_s: Positive = 60.0
    """New partitions of the topics are looked for so often, and learned from their beginning."""
    errors: Literal["stop", "dead_letter"] = "stop"
    """Of a batch that cannot be read (damaged, too large, of a codec that is not installed), after three attempts:
    stop, for it may be good, and what is passed over never comes again; or leave it out and tell the dead letters."""
    on_data_loss: Literal["stop", "continue"] = "stop"
    """When the broker no longer holds the next offset: stop, or go on at the oldest one left and count the gap."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 67_108_864
    """Of a record batch once decompressed; a larger one is not read. Memory for two copies of it is needed."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """SASL_PLAINTEXT only with `allow_insecure: true`."""
    ssl_cafile: Path | None = None
    """Certificates (PEM) of the authorities that may have signed the broker's; the system's where absent."""
    ssl_certfile: Path | None = None
    """Our own certificate (PEM), for a broker that wants one; the key may stand in it too."""
    ssl_keyfile: Path | None = None
    """Its key (PEM)."""
    ssl_password: SecretStr | None = None
    """Of an encrypted key."""
    ssl_password_file: Path | None = None
    """Holds that password, and nothing else."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """OAUTHBEARER takes a token, the others name and password."""
    sasl_username: str | None = None
    """Whom to log in as."""
    sasl_password: SecretStr | None = None
    """From the environment: `"${KAFKA_PASSWORD}"`; or from a file, by the next option."""
    sasl_password_file: Path | None = None
    """Read once a start; it holds the password, and nothing else."""
    sasl_oauth_token_file: Path | None = None
    """Read at each connection, so that whoever renews the token only has to replace the file."""
    sasl_oauth_token_provider: Address | None = None
    """Of a function without arguments that returns a token; called at each connection."""
    allow_insecure: bool = False
    """Lets a password or a token travel unencrypted (SASL_PLAINTEXT)."""

    @property
    def topics_read(self) -> list[str]:
        return self.topics

    @property
    def connection(self) -> "KafkaSettings":
        return self

    @property
    def waits_for_broker(self) -> bool:
        return self.startup == "retry"

    def fingerprint(self) -> dict[str, Any]:
        """Return the shard: the partitions of another one would be lost or learned twice."""
        return {} if self.shard is None else {"shard": {"index": self.shard.index, "of": self.shard.of}}

    @property
    def encrypted(self) -> bool:
        return self.security_protocol in ("SSL", "SASL_SSL")

    @property
    def authenticated(self) -> bool:
        return self.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")

    @model_validator(mode="after")
    def _secure(self) -> "KafkaSettings":
        if problems := [*self._protocol_problems(), *(self._credential_problems() if self.authenticated else ())]:
            raise ValueError("; ".join(problems))
        return self

    def _protocol_problems(self) -> Iterator[str]:
        protocol = self.security_protocol
        if protocol == "SASL_PLAINTEXT" and not self.allow_insecure:
            yield "security_protocol SASL_PLAINTEXT sends the password in the clear; " + (
                "use SASL_SSL, or say allow_insecure: true"
            )
        # Whoever writes these down believes that they act.
        if not self.encrypted and (named := self._set("ssl_")):
            yield f"{named} without TLS: security_protocol is {protocol}; use SSL or SASL_SSL"
        if not self.authenticated and (named := self._set("sasl_")):
            yield f"{named} without SASL: security_protocol is {protocol}; use SASL_SSL"
        if self.ssl_certfile is None and (named := self._set("ssl_keyfile") or self._set("ssl_password")):
            yield f"{named} without ssl_certfile; name the certificate that the key belongs to"
        for secret in ("ssl_password", "sasl_password"):
            if getattr(self, secret) is not None and getattr(self, f"{secret}_file") is not None:
                yield f"{secret} and {secret}_file both; name one"

    def _credential_problems(self) -> Iterator[str]:
        protocol, mechanism = self.security_protocol, self.sasl_mechanism
        if mechanism is None:
            yield f"{protocol} needs sasl_mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
        elif mechanism == "OAUTHBEARER":
            if (self.sasl_oauth_token_file is None) == (self.sasl_oauth_token_provider is None):
                yield "OAUTHBEARER needs either sasl_oauth_token_file or sasl_oauth_token_provider"
            if named := self._set("sasl_username") or self._set("sasl_password"):
                yield f"{named} with OAUTHBEARER, which takes a token; take it out"
        else:
            if not self.sasl_username or not (self.sasl_password or self.sasl_password_file):
                yield f"{mechanism} needs sasl_username, and sasl_password or sasl_password_file"
            if named := self._set("sasl_oauth"):
                yield f"{named} with {mechanism}, which takes a password; use OAUTHBEARER, or take it out"

    def _set(self, prefix: str) -> str:
        return ", ".join(name for name in type(self).model_fields if name.startswith(prefix) and getattr(self, name))


class FileSettings(SourceSettings):
    """Lines of a CSV or JSON Lines file, gzipped if the name ends in .gz; stops at the end of the file."""

    kind: Literal["file"]
    path: Path
    """`.csv`, `.tsv`, `.jsonl` or `.ndjson`, with or without `.gz`."""
    format: Literal["csv", "jsonl"] | None = None
    """Read off the file's name where absent."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """A tab for a name in .tsv, else a comma, where absent."""
    header: bool = True
    """Whether the first line of a CSV file names its columns."""
    speed: Positive | None = None
    """Replays in event time, this many times faster than it happened; flat out where absent."""

    has_record_times: ClassVar[bool] = False
    has_lines: ClassVar[bool] = True

    @property
    def path_read(self) -> Path:
        return self.path

    @property
    def names_columns(self) -> bool:
        return self.header

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


class SimulatorSettings(SourceSettings):
    """A fleet of machines that wear, drift and fail. Each record has the time `ts`, the `machine`, its sensors
    (temperature, pressure, vibration, current, speed, torque, temperature_2, ...), its `wear`, and the `truth` beside
    it: `fault` and `drift`."""

    kind: Literal["simulator"]
    seed: int = 0
    """Equal ones give equal records."""
    machines: Count = 5
    """They take turns."""
    sensors: Count = 6
    """Of each machine."""
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
    """Of a reading, in standard deviations of its sensor."""

    @property
    def has_present_end(self) -> bool:
        return self.records is not None


AnySource = Annotated[KafkaSettings | FileSettings | SimulatorSettings, Field(discriminator="kind")]
