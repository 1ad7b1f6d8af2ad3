"""Options of the sources."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from learnd.core.settings_base import Address, Count, Delimiter, Encoding, Positive, Section


@dataclass(frozen=True, slots=True)
class SourceContext:
    """The part of the other sections of the configuration that a source may need.

    Attributes
    ----------
    name : the configured name of this daemon
    max_record_bytes : the decoder rejects longer records, so a source need not read more than that
    event_time_s : returns the event time of an undecoded record in seconds, None if it has none
    """

    name: str
    max_record_bytes: int
    event_time_s: Callable[[bytes], float | None]


class SourceSettings(Section):
    """The properties of all sources for the wiring."""

    kind: str
    has_record_times: ClassVar[bool] = True
    """True if a record has a time of its own, besides the fields of its value."""
    has_lines: ClassVar[bool] = False
    """True if records are lines of text, which cannot hold packed bytes."""

    @property
    def topics_read(self) -> list[str]:
        """The Kafka topics that the source reads. A sink must not write to them."""
        return []

    @property
    def path_read(self) -> Path | None:
        """The file that the source reads, or None. A sink must not write to it."""
        return None

    @property
    def connection(self) -> "KafkaSettings | None":
        """The settings with which sinks reach the Kafka cluster of the source; None without Kafka."""
        return None

    @property
    def names_columns(self) -> bool:
        """True if the records come with column names."""
        return False

    @property
    def waits_for_broker(self) -> bool:
        """True if a start without a broker waits for it."""
        return False

    @property
    def has_present_end(self) -> bool:
        """True if the stream has a current end at which ``--once`` can stop."""
        return True

    def fingerprint(self) -> dict[str, Any]:
        """Return the options that the positions in a checkpoint depend on."""
        return {}


class ShardSettings(Section):
    """A share of the partitions: partition p belongs to shard p mod `of`.

    Several daemons can share a topic, each with its own index and `data_dir`. Together they learn each record once,
    each daemon into its own model.
    """

    index: Annotated[int, Field(ge=0)]
    """Number of this shard, from 0 to `of` - 1."""
    of: Count
    """Number of shards."""

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
    """Addresses of one or more brokers, `host:port`. The other brokers are found through them."""
    topics: Annotated[list[str], Field(min_length=1)]
    """Names of the topics to learn from: all of their partitions, or those of one `shard`."""
    shard: ShardSettings | None = None
    """Share of the partitions to learn from: `{index: 3, of: 16}`. Absent: all partitions."""
    start_from: Literal["earliest", "latest"] | datetime = "earliest"
    """Start of a partition that is not in the checkpoint: its oldest record, its end, or the first record from a
    timestamp on (ISO 8601, UTC unless it names a zone)."""
    group_id: str | None = None
    """Consumer group to which offsets are committed after each checkpoint. Only lag tools use them: learnd itself
    resumes from its checkpoint. Absent: `learnd-<name>`."""
    isolation_level: Literal["read_uncommitted", "read_committed"] = "read_uncommitted"
    """`read_uncommitted` also learns records of transactions that are open or were aborted; `read_committed` does
    not."""
    max_partition_fetch_bytes: Count = 4_194_304
    """Maximum bytes fetched per partition and request, by default 4 MiB. With Kafka's own default of 1 MiB the consumer
    waits half of the time (`tests/bench/kafka_path.py`)."""
    fetch_max_wait_ms: Count = 100
    """Longest time that the broker holds an empty answer back, in milliseconds, to wait for records."""
    connect_timeout_s: Positive = 10.0
    """Time that one attempt to reach the broker at the start may take, in seconds. Then `startup` decides."""
    startup: Literal["retry", "fail"] = "fail"
    """Action if no broker answers at the start. `fail`: exit with code 69, so that a wrong address is noticed. `retry`:
    try again until it answers; meanwhile `/readyz` returns 503."""
    discover_every_s: Positive = 60.0
    """Interval at which new partitions are looked for, in seconds. They are learned from their first record."""
    errors: Literal["stop", "dead_letter"] = "stop"
    """Action on a record batch that still cannot be read after three attempts: damaged, larger than `max_batch_bytes`,
    or of a codec that is not installed. `stop`: exit, because the batch may be repairable, and skipped records never
    come again. `dead_letter`: skip it and write a dead letter with its offsets."""
    on_data_loss: Literal["stop", "continue"] = "stop"
    """Action if the broker no longer has the next record: `stop`, or `continue` at the oldest one that is left. The gap
    is counted in `learnd_records_lost_total`."""
    max_batch_bytes: Annotated[int, Field(ge=1024)] = 67_108_864
    """Maximum size of a decompressed record batch in bytes, by default 64 MiB. A larger one is treated as unreadable,
    see `errors`. Reading needs memory for two copies of a batch."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """Protocol of the brokers: with or without TLS, with or without a login. SASL_PLAINTEXT needs `allow_insecure:
    true`."""
    ssl_cafile: Path | None = None
    """File with the certificates (PEM) of the authorities that sign the brokers'. Absent: those of the system."""
    ssl_certfile: Path | None = None
    """File with the client certificate (PEM), for brokers that require one. It may contain the key too."""
    ssl_keyfile: Path | None = None
    """File with the key (PEM) of `ssl_certfile`. Absent: the key is in `ssl_certfile`."""
    ssl_password: SecretStr | None = None
    """Password of an encrypted key."""
    ssl_password_file: Path | None = None
    """File with the password of an encrypted key: one line."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """Login mechanism. OAUTHBEARER needs a token; the others need a username and a password."""
    sasl_username: str | None = None
    """Username of the login."""
    sasl_password: SecretStr | None = None
    """Password of the login, best taken from the environment: `"${KAFKA_PASSWORD}"`."""
    sasl_password_file: Path | None = None
    """File with the password: one line. Read once, at the start."""
    sasl_oauth_token_file: Path | None = None
    """File with the OAUTHBEARER token: one line. Read at each connection, so replacing the file renews the token."""
    sasl_oauth_token_provider: Address | None = None
    """`package.module:function` of a function without arguments that returns a token. Called at each connection."""
    allow_insecure: bool = False
    """Allow SASL_PLAINTEXT, which sends the password or token unencrypted."""

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
        """Return the shard: with another one, partitions would be lost or learned twice."""
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
                "use SASL_SSL, or set allow_insecure: true"
            )
        # Their author believes that they have an effect.
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
                yield f"{named} with OAUTHBEARER, which takes a token; remove it"
        else:
            if not self.sasl_username or not (self.sasl_password or self.sasl_password_file):
                yield f"{mechanism} needs sasl_username, and sasl_password or sasl_password_file"
            if named := self._set("sasl_oauth"):
                yield f"{named} with {mechanism}, which takes a password; use OAUTHBEARER, or remove it"

    def _set(self, prefix: str) -> str:
        return ", ".join(name for name in type(self).model_fields if name.startswith(prefix) and getattr(self, name))


class FileSettings(SourceSettings):
    """Lines of a CSV or JSON Lines file, gzipped if its name ends in .gz. The stream ends at the end of the file."""

    kind: Literal["file"]
    path: Path
    """Path of the file: `.csv`, `.tsv`, `.jsonl` or `.ndjson`, with or without `.gz`."""
    format: Literal["csv", "jsonl"] | None = None
    """Format of the lines. Absent: taken from the file's name."""
    delimiter: Delimiter | None = None
    """Character between two cells, or `whitespace` for any number of spaces and tabs. Absent: a tab if the file's name
    has .tsv; otherwise a comma, unless the first line has none and has a semicolon, a tab or a bar."""
    header: bool = True
    """true: the first line of a CSV file has the names of its columns."""
    encoding: Encoding | None = None
    """Encoding of the file, such as `cp1252` (Windows), `latin-1`, `utf-16` or `utf-16-le`. Absent: UTF-8, or what the
    byte order mark says. Lines may end with a line feed, a carriage return, or both."""
    skip_lines: Annotated[int, Field(ge=0)] = 0
    """Number of lines before the header (without one, before the data) that are not read."""
    skip_after_header: Annotated[int, Field(ge=0)] = 0
    """Number of lines between the header and the data that are not read, such as a line of units."""
    comment: Annotated[str, Field(min_length=1)] | None = None
    """Text with which lines begin that are comments, such as `"#"`. Absent: no line is one."""
    speed: Positive | None = None
    """Replay in event time, this many times faster than real time. Absent: as fast as possible."""

    has_record_times: ClassVar[bool] = False
    has_lines: ClassVar[bool] = True

    @property
    def path_read(self) -> Path:
        return self.path

    @property
    def names_columns(self) -> bool:
        return self.header

    @property
    def text_encoding(self) -> str | None:
        """The configured encoding of the file; None: UTF-8, or what its mark says."""
        return self.encoding

    @property
    def has_header(self) -> bool:
        """True if a line of the file has the names of its columns."""
        return self.header and self.resolved_format() == "csv"

    def usual_delimiter(self) -> str:
        """Return the delimiter that the file's name tells of.

        >>> FileSettings(kind="file", path=Path("a.tsv.gz")).usual_delimiter()
        '\\t'
        """
        return "\t" if ".tsv" in self.path.suffixes else ","

    def separator(self) -> str | None:
        """Return the delimiter, from the option or the file's name; None: the first line tells."""
        return self.delimiter or ("\t" if self.usual_delimiter() == "\t" else None)

    def resolved_format(self) -> str | None:
        """Return ``csv`` or ``jsonl``, from the option or the file's name; None if both leave it open.

        >>> FileSettings(kind="file", path=Path("a.csv.gz")).resolved_format()
        'csv'
        """
        if self.format is not None:
            return self.format
        suffixes = [s for s in self.path.suffixes if s != ".gz"]
        by_suffix = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
        return by_suffix.get(suffixes[-1]) if suffixes else None


class SimulatorSettings(SourceSettings):
    """A simulated fleet of machines that wear, drift and fail. Each record has the time `ts`, the `machine`, its
    sensors (temperature, pressure, vibration, current, speed, torque, temperature_2, ...), its `wear`, and the `truth`:
    `fault` and `drift`."""

    kind: Literal["simulator"]
    seed: int = 0
    """Seed of the simulation. Equal seeds give equal records."""
    machines: Count = 5
    """Number of machines. They send one record each, in turn."""
    sensors: Count = 6
    """Number of sensors of each machine."""
    interval_s: Positive = 60.0
    """Event time between two readings of one machine, in seconds."""
    records: Count | None = None
    """Number of records after which the stream ends. Absent: endless."""
    rate_per_s: Positive | None = None
    """Records per second of real time. Absent: as fast as possible."""
    drift: Annotated[float, Field(ge=0)] = 1.0
    """Size of the lasting shifts of a sensor, in its standard deviations. 0: no drift."""
    fault_rate: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of a machine's time, from 0 to 1, in which one of its sensors is faulty."""
    noise: Annotated[float, Field(ge=0)] = 0.3
    """Noise of a reading, in standard deviations of its sensor."""

    @property
    def has_present_end(self) -> bool:
        return self.records is not None


AnySource = Annotated[KafkaSettings | FileSettings | SimulatorSettings, Field(discriminator="kind")]
