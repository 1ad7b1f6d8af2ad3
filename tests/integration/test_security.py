"""TLS, logins and secrets, with a real broker that wants them."""

import base64
import gzip
import io
import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from learnd.errors import BrokerUnavailableError, ConfigError
from learnd.sinks.topics import TopicSink
from learnd.sources.kafka import KafkaSource
from learnd.sources.kafka_access import client_options
from learnd.sources.settings import KafkaSettings
from learnd.testing.kafka import KafkaBroker, KafkaCluster
from tests.helpers import LEARND, WAIT_S, Daemon, config_text, readings, run_cli, until
from tests.secure_kafka import USER, Files, make_files, make_secure_broker, unsigned_token

PROVIDED: dict[str, str] = {}
"""What `token_provider` returns."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Certificates and a password."""
    return make_files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One that wants TLS and a login; never that of ``KAFKA_BOOTSTRAP``, whose secrets we do not know."""
    try:
        made = make_secure_broker(tmp_path_factory.mktemp("secure-kafka"), files)
    except ImportError as error:
        pytest.skip(f"no Kafka: {error}; pip install 'learnd[testing]'")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def cluster(broker: KafkaBroker) -> KafkaCluster:
    """The same broker by its open listener, for the test's own work."""
    return KafkaCluster(broker.bootstrap, broker)


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


def _read(source: KafkaSource, count: int) -> list[bytes | None]:
    values: list[bytes | None] = []

    def enough() -> bool:
        for block in source.poll(100, 0.2):
            values.extend(block.values)
        return len(values) >= count

    until(enough, what=f"{count} records", timeout_s=30)
    return values


@pytest.mark.parametrize("case", CASES)
def test_consumer_and_producer_get_in(
    case: str, broker: KafkaBroker, cluster: KafkaCluster, files: Files, tmp_path: Path
) -> None:
    """What the configuration says reaches kafka-python, and the broker lets both in."""
    listener, options = _access(case, files, tmp_path)
    topic = cluster.create_topic()
    settings = _settings(broker, listener, topic, **options)
    sink = TopicSink(topic, client_options(settings), key="dead_letter.topic")
    sink.open()
    sink.send([(b"one", b"k", []), (b"two", None, [])])
    sink.flush()
    assert sink.state() == {"pending": []}
    sink.close()
    source = KafkaSource(settings, group_id="learnd-tests")
    source.open({})
    assert _read(source, 2) == [b"one", b"two"]
    source.close()


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a wrong password": ("SCRAM-SHA-512", {"sasl_password_file": None, "sasl_password": "x"}, "refuses the login: "),
    "a wrong password, plain": ("PLAIN", {"sasl_password": "x"}, "refuses the login: "),
    "an unknown user": ("SCRAM-SHA-256", {"sasl_username": "bob"}, "refuses the login: "),
    "an authority that we do not know": ("TLS", {"ssl_cafile": None}, "is not trusted: "),
    "another authority": ("TLS", {"ssl_cafile": "other"}, "name the authority that signed it in source.ssl_cafile"),
    "a certificate for another host": ("TLS", {"listener": "ELSEWHERE"}, "not valid for '127.0.0.1'"),
    "no client's certificate": ("TLS", {"listener": "MUTUAL"}, "it may want a certificate (source.ssl_certfile)"),
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
    wrong: str, broker: KafkaBroker, cluster: KafkaCluster, files: Files, tmp_path: Path
) -> None:
    """An error that an operator can act on, in the time that `connect_timeout_s` gives, and without the secret."""
    case, changes, expected = WRONG[wrong]
    listener, options = _access(case, files, tmp_path)
    listener = changes.get("listener", listener)
    if "token" in changes:
        Path(options["sasl_oauth_token_file"]).write_text(unsigned_token(lifetime_s=changes["token"]))
    if changes.get("ssl_cafile") == "other":
        changes = {"ssl_cafile": str(files.other_authority)}
    options |= {name: value for name, value in changes.items() if name not in ("listener", "token")}
    settings = _settings(broker, listener, cluster.create_topic(), connect_timeout_s=2.0, **options)
    source = KafkaSource(settings, group_id="learnd-tests")
    with pytest.raises(BrokerUnavailableError) as caught:
        source.open({})
    assert expected in str(caught.value)
    assert broker.addresses[listener] in str(caught.value)
    for secret in (files.password, PROVIDED["token"]):
        assert secret not in str(caught.value)


def test_tokens_and_certificates_are_read_again_at_each_connection(
    broker: KafkaBroker, cluster: KafkaCluster, files: Files, tmp_path: Path
) -> None:
    """What is out of date cuts us off, and is told; whoever renews the files brings us back, without a restart."""
    listener, options = _access("a token in a file", files, tmp_path)
    token_file, authority = Path(options["sasl_oauth_token_file"]), tmp_path / "ca.pem"
    authority.write_bytes(files.authority.read_bytes())
    topic = cluster.create_topic()
    cluster.produce(topic, [b"one"])
    settings = _settings(broker, listener, topic, **{**options, "ssl_cafile": authority})
    source = KafkaSource(settings, group_id="learnd-tests")
    source.open({})
    assert _read(source, 1) == [b"one"]

    def told(reason: str) -> None:
        """Polls until a connection fails for *reason*."""
        with capture_logs() as logs:

            def failed() -> bool:
                assert source.poll(10, 0.2) == []
                return any(reason in log.get("error", "") for log in logs if log["event"] == "connection_failed")

            until(failed, what=reason)

    token_file.write_text(unsigned_token(lifetime_s=-60))
    told("SaslAuthenticationFailedError")
    authority.write_bytes(files.other_authority.read_bytes())
    told("CERTIFICATE_VERIFY_FAILED")
    token_file.write_text(unsigned_token(lifetime_s=600))
    until(lambda: source.poll(10, 0.2) or not source.connected(), what="the silence to be noticed")
    assert not source.connected()
    authority.write_bytes(files.authority.read_bytes())
    cluster.produce(topic, [b"two"])
    assert _read(source, 1) == [b"two"]
    assert source.connected()
    source.close()


def _config(
    folder: Path, broker: KafkaBroker, topic: str, files: Files, *, source: Any = None, **sections: Any
) -> Path:
    folder.mkdir(exist_ok=True)
    config = folder / "config.yaml"
    options = {
        "kind": "kafka",
        "bootstrap_servers": [broker.addresses["SECRET"]],
        "topics": [topic],
        "security_protocol": "SASL_SSL",
        "ssl_cafile": str(files.authority),
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": USER,
        "sasl_password": "${KAFKA_PASSWORD}",
        "connect_timeout_s": 4,
        **(source or {}),
    }
    options = {name: value for name, value in options.items() if value is not None}
    config.write_text(config_text(folder / "data", source=options, **sections))
    return config


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
    broker: KafkaBroker, cluster: KafkaCluster, files: Files, tmp_path: Path
) -> None:
    """Every record once; its dead letters and predictions take the same way, and none other is open."""
    topic, dead, predictions = (cluster.create_topic(name) for name in ("sensors", "dead", "predictions"))
    cluster.produce(topic, [*readings(300), b"junk", *readings(300, seed=1)])
    config = _config(tmp_path, broker, topic, files, dead_letter={"topic": dead}, predictions={"topic": predictions})
    with Daemon(config, environ={"KAFKA_PASSWORD": files.password}) as daemon:
        until(lambda: daemon.metric("learnd_samples_learned_total") == 600, what="all samples")
        assert daemon.get("/readyz")[0] == 200
        assert _remote_ports(daemon.process.pid) == {int(broker.addresses["SECRET"].rpartition(":")[2])}
        daemon.terminate()
        assert daemon.events("finished")[-1]["samples"] == 600
    assert [letter.value for letter in cluster.consume(dead, count=1)] == [b"junk"]
    told = [json.loads(record.value)["offset"] for record in cluster.consume(predictions, count=600)]
    assert told == [*range(300), *range(301, 601)]
    assert cluster.committed("learnd-test") == {(topic, 0): 601}


# ---- the canary: a secret that is looked for everywhere


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """The bytes of a file or of all files below *path*, and of what archives among them hold."""
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        data = file.read_bytes()
        yield str(file), data
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                yield from ((f"{file}!{name}", archive.read(name)) for name in archive.namelist())
        if data[:2] == b"\x1f\x8b":
            yield f"{file}!", gzip.decompress(data)


def _hiding(data: bytes, secret: str) -> bool:
    """Whether *secret* stands in *data*, as it is, in UTF-16, in hex or in base 64 at any of its three phases."""
    plain = secret.encode()
    forms = [plain, secret.encode("utf-16-le"), plain.hex().encode(), plain.hex().upper().encode()]
    for phase in range(3):
        encoded = base64.b64encode(b"\0" * phase + plain)
        forms.append(encoded[4 if phase else 0 : -4])
    return any(form in data for form in forms)


@pytest.mark.parametrize("phase", range(3))
def test_the_search_finds_what_is_hidden(phase: int, tmp_path: Path) -> None:
    """The tests below would be worth nothing otherwise."""
    secret = "canary-0123456789abcdef"
    (tmp_path / "b64").write_bytes(b"x" + base64.b64encode(b"y" * phase + secret.encode() + b"tail"))
    (tmp_path / "gz").write_bytes(gzip.compress(secret.encode()))
    with zipfile.ZipFile(tmp_path / "zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inner", secret)
    found = {Path(name.partition("!")[0]).name for name, data in _contents(tmp_path) if _hiding(data, secret)}
    assert found == {"b64", "gz", "zip"}


def _children(process: int) -> list[int]:
    numbers: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        numbers += map(int, (task / "children").read_text().split())
    return numbers


def test_a_secret_shows_nowhere(broker: KafkaBroker, cluster: KafkaCluster, files: Files, tmp_path: Path) -> None:
    """Not in logs, pages, dead letters, predictions, checkpoints, exports, requests to the exporting child, `inspect`.

    It is the password of the login, from a file, and that of the key, from the environment.
    """
    topic, dead = cluster.create_topic("sensors"), cluster.create_topic("dead")
    cluster.produce(topic, [*readings(300), b"junk"])
    secrets = {
        "sasl_password": None,
        "sasl_password_file": str(files.password_file),
        "ssl_certfile": str(files.certificate),
        "ssl_keyfile": str(files.key),
        "ssl_password": "${KAFKA_PASSWORD}",
    }
    folder = tmp_path / "run"
    config = _config(
        folder,
        broker,
        topic,
        files,
        source=secrets,
        dead_letter={"topic": dead},
        predictions={"path": str(folder / "predictions.jsonl")},
        export={"every_samples": 200, "formats": ["saved_model", "tflite"]},
    )
    seen: dict[str, bytes] = {}
    with Daemon(config, environ={"KAFKA_PASSWORD": files.password}) as daemon:
        child = until(lambda: _children(daemon.process.pid), what="the exporting child")[0]
        for process in (daemon.process.pid, child):
            seen[f"command line of {process}"] = Path(f"/proc/{process}/cmdline").read_bytes()
        request = until(lambda: list((folder / "data").rglob("request.json")), what="the request to the child")[0]
        seen |= {f"request {name}": data for name, data in _contents(request.parent)}
        for path in ("/metrics", "/livez", "/readyz", "/", "/config", "/debug", "/environ"):
            with socket.create_connection(("127.0.0.1", daemon.port), timeout=10) as client:
                client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                seen[f"page {path}"] = client.makefile("rb").read()
            assert seen[f"page {path}"].startswith(b"HTTP/1.0 ")
        daemon.terminate()
        assert daemon.events("export_published")
    for path in (folder / "data", next((folder / "data" / "exports").glob("*/learnd.json")).parent):
        seen[f"inspect {path}"] = run_cli("inspect", str(path)).stdout.encode()
        assert len(seen[f"inspect {path}"]) > 500
    letter = cluster.consume(dead, count=1)[0]
    seen["dead letter"] = b"".join([letter.value, *(value for _, value in letter.headers)])
    seen |= dict(_contents(folder))
    kinds = {Path(name).suffix for name in seen}
    assert {".log", ".jsonl", ".json", ".npy", ".index", ".data-00000-of-00001", ".pb", ".tflite"} <= kinds, kinds
    assert [name for name, data in seen.items() if _hiding(data, files.password)] == []


BROKEN = """\
import keras


def update(model, optimizer, x, y):
    raise RuntimeError("broken on purpose")
"""


@pytest.mark.parametrize(
    ("source", "sections", "code", "expected"),
    [
        ({"sasl_password": "${OTHER}"}, {}, 69, "refuses the login"),
        pytest.param({"ssl_cafile": None}, {}, 69, "is not trusted", marks=pytest.mark.slow),
        ({}, {"learning": {"update": "broken_code:update"}}, 70, "Traceback"),
        ({"sasl_mechanism": None}, {}, 78, "needs sasl_mechanism"),
        ({"security_protocol": "SASL_PLAINTEXT"}, {}, 78, "allow_insecure: true"),
        ({"sasl_password": ["${KAFKA_PASSWORD}"]}, {"checkpoint": {"keep": 0}}, 78, "checkpoint.keep"),
        ({"sasl_pasword": "${KAFKA_PASSWORD}"}, {"nmae": "${KAFKA_PASSWORD}"}, 78, "did you mean sasl_password?"),
        ({"sasl_username": "${KAFKA_PASSWORD}", "startup": "${KAFKA_PASSWORD}"}, {}, 78, "the value of ${KAFKA_PASS"),
        ({"connect_timeout_s": "${KAFKA_PASSWORD}"}, {"seed": "${KAFKA_PASSWORD}"}, 78, "seed: "),
    ],
)
def test_a_secret_shows_in_no_error(
    source: dict[str, Any],
    sections: dict[str, Any],
    code: int,
    expected: str,
    broker: KafkaBroker,
    cluster: KafkaCluster,
    files: Files,
    tmp_path: Path,
) -> None:
    """When it is wrong, when something else is, when it stands in the wrong place, and when the daemon crashes."""
    topic = cluster.create_topic("sensors")
    cluster.produce(topic, readings(50))
    config = _config(tmp_path / "run", broker, topic, files, source=source, **sections)
    (tmp_path / "broken_code.py").write_text(BROKEN)
    other = f"wrong-{files.password}-wrong"
    environ = {
        **os.environ,
        "KAFKA_PASSWORD": files.password,
        "OTHER": other,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)]),
    }
    for command in (["run", str(config), "--log", "text"], ["validate", str(config)]):
        done = subprocess.run(
            [str(LEARND), *command], capture_output=True, text=True, env=environ, timeout=WAIT_S, check=False
        )
        said = done.stdout + done.stderr
        assert not _hiding(said.encode(), files.password), command
        if command[0] == "run":
            assert done.returncode == code, said
            assert expected in said
    found = [name for name, data in _contents(tmp_path / "run") if _hiding(data, files.password)]
    assert found == []


def test_a_secret_is_not_in_what_the_client_options_come_from(files: Files) -> None:
    """The settings print and dump without it; only the options of a client hold it, and errors of files do not."""
    settings = KafkaSettings(
        kind="kafka",
        bootstrap_servers=["b:1"],
        topics=["t"],
        security_protocol="SASL_SSL",
        ssl_cafile=files.authority,
        ssl_certfile=files.certificate,
        ssl_keyfile=files.key,
        ssl_password=files.password,  # type: ignore[arg-type]
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password_file=files.password_file,
    )
    assert files.password not in repr(settings) + str(settings) + settings.model_dump_json()
    options = client_options(settings)
    assert options["sasl_plain_password"] == options["ssl_password"] == files.password
    for wrong in (b"", b"two\nlines", files.password.encode() + b"\n\n", files.password.encode() + b"\xff"):
        bad = files.password_file.with_name("bad")
        bad.write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"source\.sasl_password_file: .*bad ") as caught:
            client_options(settings.model_copy(update={"sasl_password_file": bad}))
        assert files.password not in str(caught.value)


ON_A_TERMINAL = """\
import pty, sys
sys.exit(pty.spawn([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]))
"""
LOADS_THE_KEY = """\
import sys
from learnd.errors import ConfigError
from learnd.sources.kafka_access import client_options
from learnd.sources.settings import KafkaSettings
try:
    client_options(KafkaSettings(kind="kafka", bootstrap_servers=["b:1"], topics=["t"], security_protocol="SSL",
                                 ssl_certfile=sys.argv[1], ssl_keyfile=sys.argv[2]))
except ConfigError as error:
    print(error)
"""


def test_an_encrypted_key_without_its_password_asks_nobody(files: Files) -> None:
    """OpenSSL would ask on the terminal and wait; here it is an error that names the option."""
    command = [sys.executable, "-c", ON_A_TERMINAL, LOADS_THE_KEY, str(files.certificate), str(files.key)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert "source.ssl_certfile: " in done.stdout, done.stdout + done.stderr
    assert "(an encrypted key needs ssl_password)" in done.stdout
    assert "pass phrase" not in done.stdout


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ssl_cafile", "holds no certificates in PEM"),
        ("ssl_certfile", "are no certificate with its key in PEM"),
        ("sasl_password_file", "cannot be read"),
        ("sasl_oauth_token_file", "cannot be read"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_is_missing_or_wrong_is_an_error_of_the_configuration(
    key: str, expected: str, there: bool, files: Files, tmp_path: Path
) -> None:
    """At once and by name: kafka-python would try it again and again, and then find no broker."""
    path = tmp_path / "wrong"
    if there:
        path.write_text("two\nlines")
        expected = expected.replace("cannot be read", "has 2 lines")
    mechanism = {"sasl_mechanism": "OAUTHBEARER"} if "oauth" in key else {"sasl_mechanism": "PLAIN"}
    user = {} if "oauth" in key else {"sasl_username": USER, "sasl_password_file": files.password_file}
    settings = KafkaSettings(
        kind="kafka",
        bootstrap_servers=["b:1"],
        topics=["t"],
        **{"security_protocol": "SASL_SSL", **mechanism, **user, key: path},
    )
    with pytest.raises(ConfigError, match=rf"source\.{key}: .*wrong.* {expected}"):
        KafkaSource(settings, group_id="x").open({})
