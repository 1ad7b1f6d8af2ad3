"""A canary: a secret that is looked for everywhere."""

import base64
import gzip
import io
import os
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from learnd.testing.kafka import KafkaBroker, KafkaCluster
from tests.support.certificates import Files
from tests.support.helpers import LEARND, WAIT_S, Daemon, readings, run_cli, until
from tests.support.secure_kafka import secure_config


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


def test_a_secret_shows_nowhere(
    secure_broker: KafkaBroker, secure_cluster: KafkaCluster, access_files: Files, tmp_path: Path
) -> None:
    """Not in logs, pages, dead letters, predictions, checkpoints, exports, requests to the exporting child, `inspect`.

    It is the password of the login, from a file, and that of the key, from the environment.
    """
    topic, dead = secure_cluster.create_topic("sensors"), secure_cluster.create_topic("dead")
    secure_cluster.produce(topic, [*readings(300), b"junk"])
    secrets = {
        "sasl_password": None,
        "sasl_password_file": str(access_files.password_file),
        "ssl_certfile": str(access_files.certificate),
        "ssl_keyfile": str(access_files.key),
        "ssl_password": "${KAFKA_PASSWORD}",
    }
    folder = tmp_path / "run"
    config = secure_config(
        folder,
        secure_broker,
        topic,
        access_files,
        source=secrets,
        dead_letter={"topic": dead},
        predictions={"path": str(folder / "predictions.jsonl")},
        export={"every_samples": 200, "formats": ["saved_model", "tflite"]},
    )
    seen: dict[str, bytes] = {}
    with Daemon(config, environ={"KAFKA_PASSWORD": access_files.password}, installed=True) as daemon:
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
        # Before the stop: on a slow machine the stop may give the last export up, which is not the subject here.
        daemon.wait_for("export_published")
        daemon.terminate()
    for path in (folder / "data", next((folder / "data" / "exports").glob("*/learnd.json")).parent):
        seen[f"inspect {path}"] = run_cli("inspect", str(path)).stdout.encode()
        assert len(seen[f"inspect {path}"]) > 500
    letter = secure_cluster.consume(dead, count=1)[0]
    seen["dead letter"] = b"".join([letter.value, *(value for _, value in letter.headers)])
    seen |= dict(_contents(folder))
    kinds = {Path(name).suffix for name in seen}
    assert {".log", ".jsonl", ".json", ".npy", ".index", ".data-00000-of-00001", ".pb", ".tflite"} <= kinds, kinds
    assert [name for name, data in seen.items() if _hiding(data, access_files.password)] == []


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
    secure_broker: KafkaBroker,
    secure_cluster: KafkaCluster,
    access_files: Files,
    tmp_path: Path,
) -> None:
    """When it is wrong, when something else is, when it stands in the wrong place, and when the daemon crashes."""
    topic = secure_cluster.create_topic("sensors")
    secure_cluster.produce(topic, readings(50))
    config = secure_config(tmp_path / "run", secure_broker, topic, access_files, source=source, **sections)
    (tmp_path / "broken_code.py").write_text(BROKEN)
    other = f"wrong-{access_files.password}-wrong"
    environ = {
        **os.environ,
        "KAFKA_PASSWORD": access_files.password,
        "OTHER": other,
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(tmp_path)]),
    }
    for command in (["run", str(config), "--log", "text"], ["validate", str(config)]):
        done = subprocess.run(
            [str(LEARND), *command], capture_output=True, text=True, env=environ, timeout=WAIT_S, check=False
        )
        said = done.stdout + done.stderr
        assert not _hiding(said.encode(), access_files.password), command
        if command[0] == "run":
            assert done.returncode == code, said
            assert expected in said
    found = [name for name, data in _contents(tmp_path / "run") if _hiding(data, access_files.password)]
    assert found == []
