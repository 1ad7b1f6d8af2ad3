"""TLS and logins, with a real broker that wants them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import UserScramCredentialUpsertion
from kafka.errors import SaslAuthenticationFailedError
from structlog.testing import capture_logs

from learnd.core.errors import BrokerUnavailableError, ConfigError
from learnd.sinks.topics import TopicSink
from learnd.sources.kafka import KafkaSource
from learnd.sources.kafka_auth import client_options
from learnd.sources.settings import KafkaSettings
from learnd.testing.kafka import KafkaBroker, KafkaCluster
from tests.support.certificates import USER, Files, unsigned_token
from tests.support.helpers import Daemon, read_values, readings, until
from tests.support.secure_kafka import secure_config

PROVIDED: dict[str, str] = {}
"""What `token_provider` returns."""


def token_provider() -> str:
    """A user's own; configured by its address."""
    return PROVIDED["token"]


def broken_provider() -> str:
    """One that fails, and says too much."""
    raise RuntimeError(f"the secret {PROVIDED['token']} is out of date")


def _access(case: str, files: Files, folder: Path) -> tuple[str, dict[str, Any]]:
    """The listener, and the options of a source that reaches it."""
    token_file = folder / "token"
    token_file.write_text(unsigned_token(lifetime_s=600))
    PROVIDED["token"] = unsigned_token(lifetime_s=600)
    tls = {"ssl_cafile": str(files.authority)}
    login = {"sasl_username": USER, "sasl_password": files.password}
    from_file = {"sasl_username": USER, "sasl_password_file": str(files.password_file)}
    certificate = {"ssl_certfile": str(files.certificate), "ssl_keyfile": str(files.key)}
    oauth = {"sasl_mechanism": "OAUTHBEARER"}
    cases: dict[str, tuple[str, str, dict[str, Any]]] = {
        "TLS": ("TLS", "SSL", tls),
        "a client's certificate": ("MUTUAL", "SSL", {**tls, **certificate, "ssl_password": files.password}),
        "its password in a file": (
            "MUTUAL",
            "SSL",
            {**tls, **certificate, "ssl_password_file": str(files.password_file)},
        ),
        "PLAIN": ("SECRET", "SASL_SSL", {**tls, **login, "sasl_mechanism": "PLAIN"}),
        "SCRAM-SHA-256": ("SECRET", "SASL_SSL", {**tls, **login, "sasl_mechanism": "SCRAM-SHA-256"}),
        "SCRAM-SHA-512": ("SECRET", "SASL_SSL", {**tls, **from_file, "sasl_mechanism": "SCRAM-SHA-512"}),
        "a token in a file": ("SECRET", "SASL_SSL", {**tls, **oauth, "sasl_oauth_token_file": str(token_file)}),
        "a token from a function": (
            "SECRET",
            "SASL_SSL",
            {**tls, **oauth, "sasl_oauth_token_provider": f"{__name__}:token_provider"},
        ),
        "SCRAM in the clear, which is allowed": (
            "CLEAR",
            "SASL_PLAINTEXT",
            {**login, "sasl_mechanism": "SCRAM-SHA-512", "allow_insecure": True},
        ),
    }
    listener, protocol, options = cases[case]
    return listener, {"security_protocol": protocol, **options}


CASES = [
    "TLS",
    "a client's certificate",
    "its password in a file",
    "PLAIN",
    "SCRAM-SHA-256",
    "SCRAM-SHA-512",
    "a token in a file",
    "a token from a function",
    "SCRAM in the clear, which is allowed",
]


def _settings(broker: KafkaBroker, listener: str, topic: str, **options: Any) -> KafkaSettings:
    return KafkaSettings(kind="kafka", bootstrap_servers=[broker.addresses[listener]], topics=[topic], **options)


@pytest.mark.parametrize("case", CASES)
def test_consumer_and_producer_get_in(
    case: str, secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """What the configuration says reaches kafka-python, and the broker lets both in."""
    listener, options = _access(case, access_files, tmp_path)
    topic = secure_cluster.create_topic()
    settings = _settings(secure_broker, listener, topic, **options)
    sink = TopicSink(topic, client_options(settings), key="dead_letter.topic")
    sink.open()
    sink.send([(b"one", b"k", []), (b"two", None, [])])
    sink.flush()
    assert sink.state() == {"pending": []}
    sink.close()
    source = KafkaSource(settings, group_id="learnd-tests")
    source.open({})
    assert read_values(source, 2) == [b"one", b"two"]
    source.close()


def test_a_name_with_a_comma_or_an_equals_sign_gets_in(
    secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """SCRAM parts its messages there, and wants both written otherwise (RFC 5802, 5.1)."""
    name = "press,line=7"
    admin = KafkaAdminClient(bootstrap_servers=secure_cluster.bootstrap)
    try:
        wanted = UserScramCredentialUpsertion(name, "SCRAM-SHA-512", access_files.password)
        admin.alter_user_scram_credentials([wanted])
    finally:
        admin.close()
    listener, options = _access("SCRAM-SHA-512", access_files, tmp_path)
    topic = secure_cluster.create_topic()
    secure_cluster.produce(topic, [b"one"])
    source = KafkaSource(
        _settings(secure_broker, listener, topic, **{**options, "sasl_username": name}), group_id="learnd-tests"
    )
    source.open({})
    assert read_values(source, 1) == [b"one"]
    source.close()


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a wrong password": ("SCRAM-SHA-512", {"sasl_password_file": None, "sasl_password": "x"}, "refuses the login: "),
    "a wrong password, plain": ("PLAIN", {"sasl_password": "x"}, "refuses the login: "),
    "an unknown user": ("SCRAM-SHA-256", {"sasl_username": "bob"}, "refuses the login: "),
    "an authority that we do not know": ("TLS", {"ssl_cafile": None}, "is not trusted: "),
    "another authority": ("TLS", {"ssl_cafile": "other"}, "name the authority that signed it in source.ssl_cafile"),
    "a certificate for another host": ("TLS", {"listener": "ELSEWHERE"}, "not valid for '127.0.0.1'"),
    "no client's certificate": ("TLS", {"listener": "MUTUAL"}, "it may require a certificate (source.ssl_certfile)"),
    "a port without TLS": ("TLS", {"listener": "CLEAR"}, "or speak no TLS on that port"),
    "no login": ("TLS", {"listener": "SECRET"}, "source.security_protocol or the credentials"),
    "no TLS": ("TLS", {"security_protocol": "PLAINTEXT", "ssl_cafile": None}, "source.security_protocol or the cred"),
    "a token that is out of date": ("a token in a file", {"token": -60.0}, "refuses the login: "),
    "a function that fails": (
        "a token from a function",
        {"sasl_oauth_token_provider": f"{__name__}:broken_provider"},
        "no credentials for the broker",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_keeps_us_out_is_told(
    wrong: str, secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """An error that an operator can act on, in the time that `connect_timeout_s` gives, and without the secret."""
    case, changes, expected = WRONG[wrong]
    listener, options = _access(case, access_files, tmp_path)
    listener = changes.get("listener", listener)
    if "token" in changes:
        Path(options["sasl_oauth_token_file"]).write_text(unsigned_token(lifetime_s=changes["token"]))
    if changes.get("ssl_cafile") == "other":
        changes = {"ssl_cafile": str(access_files.other_authority)}
    options |= {name: value for name, value in changes.items() if name not in ("listener", "token")}
    settings = _settings(secure_broker, listener, secure_cluster.create_topic(), connect_timeout_s=2.0, **options)
    source = KafkaSource(settings, group_id="learnd-tests")
    with pytest.raises(BrokerUnavailableError) as caught:
        source.open({})
    assert expected in str(caught.value)
    assert secure_broker.addresses[listener] in str(caught.value)
    for secret in (access_files.password, PROVIDED["token"]):
        assert secret not in str(caught.value)


def test_tokens_and_certificates_are_read_again_at_each_connection(
    secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """What is out of date cuts us off, and is told; whoever renews the files brings us back, without a restart."""
    listener, options = _access("a token in a file", access_files, tmp_path)
    token_file, authority = Path(options["sasl_oauth_token_file"]), tmp_path / "ca.pem"
    authority.write_bytes(access_files.authority.read_bytes())
    topic = secure_cluster.create_topic()
    secure_cluster.produce(topic, [b"one"])
    settings = _settings(secure_broker, listener, topic, **{**options, "ssl_cafile": authority})
    source = KafkaSource(settings, group_id="learnd-tests")
    source.open({})
    assert read_values(source, 1) == [b"one"]

    def told(reason: str) -> None:
        """Polls until a connection fails for *reason*."""
        with capture_logs() as logs:

            def failed() -> bool:
                assert source.poll(10, 0.2) == []
                return any(reason in log.get("error", "") for log in logs if log["event"] == "connection_failed")

            until(failed, what=reason)

    token_file.write_text(unsigned_token(lifetime_s=-60))
    told("SaslAuthenticationFailedError")
    authority.write_bytes(access_files.other_authority.read_bytes())
    told("CERTIFICATE_VERIFY_FAILED")
    # Only then: a connection that has not shown the old token yet would show the new one, and stay.
    until(lambda: source.poll(10, 0.2) or not source.connected(), what="the silence to be noticed")
    assert not source.connected()
    token_file.write_text(unsigned_token(lifetime_s=600))
    authority.write_bytes(access_files.authority.read_bytes())
    secure_cluster.produce(topic, [b"two"])
    assert read_values(source, 1) == [b"two"]
    assert source.connected()
    source.close()


@pytest.mark.parametrize(
    "error", [SaslAuthenticationFailedError("invalid_token"), ConfigError("the token file cannot be read")]
)
def test_a_broker_that_asks_for_a_new_token_too_early_does_not_end_the_daemon(
    error: Exception,
    secure_broker: KafkaBroker,
    secure_cluster: KafkaCluster,
    access_files: Files,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """KIP-368: it asks on open connections, too, and what waits for an answer there fails with the login."""
    listener, options = _access("a token in a file", access_files, tmp_path)
    topic = secure_cluster.create_topic()
    secure_cluster.produce(topic, [b"one"])
    source = KafkaSource(_settings(secure_broker, listener, topic, **options), group_id="learnd-tests")
    source.open({})
    coordinator = source._consumer._coordinator

    def refused(**_: object) -> None:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(coordinator, "poll", refused)
    with capture_logs() as logs:
        assert source.poll(10, 0.2) == []
    assert [log["event"] for log in logs] == ["poll_failed"]
    assert read_values(source, 1) == [b"one"]
    source.close()


def _remote_ports(process: int) -> set[int]:
    """Where the TCP connections of *process* lead to."""
    inodes = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:  # closed meanwhile
            continue
        inodes.update(re.findall(r"socket:\[(\d+)\]", target))
    rows = [row.split() for row in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]]
    established = "01"
    return {int(row[2].rpartition(":")[2], 16) for row in rows if row[9] in inodes and row[3] == established}


def test_a_daemon_learns_over_tls_and_scram(
    secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """Every record once; its dead letters and predictions take the same way, and none other is open."""
    topic, dead, predictions = (secure_cluster.create_topic(name) for name in ("sensors", "dead", "predictions"))
    secure_cluster.produce(topic, [*readings(300), b"junk", *readings(300, seed=1)])
    config = secure_config(
        tmp_path, secure_broker, topic, access_files, dead_letter={"topic": dead}, predictions={"topic": predictions}
    )
    with Daemon(config, environ={"KAFKA_PASSWORD": access_files.password}) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 600, what="all samples")
        assert daemon.get("/readyz")[0] == 200
        assert _remote_ports(daemon.process.pid) == {int(secure_broker.addresses["SECRET"].rpartition(":")[2])}
        daemon.terminate()
        assert daemon.events("finished")[-1]["samples"] == 600
    assert [letter.value for letter in secure_cluster.consume(dead, count=1)] == [b"junk"]
    told = [json.loads(record.value)["offset"] for record in secure_cluster.consume(predictions, count=600)]
    assert told == [*range(300), *range(301, 601)]
    assert secure_cluster.committed("learnd-test") == {(topic, 0): 601}
