"""Files of certificates and secrets, as clients of Kafka are made with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from learnd.core.errors import ConfigError
from learnd.sources.kafka import KafkaSource
from learnd.sources.kafka_auth import client_options
from learnd.sources.settings import KafkaSettings
from tests.support.certificates import USER, Files


def test_a_secret_is_not_in_what_the_client_options_come_from(access_files: Files) -> None:
    """The settings print and dump without it; only the options of a client hold it, and errors of files do not."""
    settings = KafkaSettings(
        kind="kafka",
        bootstrap_servers=["b:1"],
        topics=["t"],
        security_protocol="SASL_SSL",
        ssl_cafile=access_files.authority,
        ssl_certfile=access_files.certificate,
        ssl_keyfile=access_files.key,
        ssl_password=access_files.password,  # type: ignore[arg-type]
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password_file=access_files.password_file,
    )
    assert access_files.password not in repr(settings) + str(settings) + settings.model_dump_json()
    options = client_options(settings)
    assert options["sasl_plain_password"] == options["ssl_password"] == access_files.password
    for wrong in (
        b"",
        b"two\nlines",
        access_files.password.encode() + b"\n\n",
        access_files.password.encode() + b"\xff",
    ):
        bad = access_files.password_file.with_name("bad")
        bad.write_bytes(wrong)
        with pytest.raises(ConfigError, match=r"source\.sasl_password_file: .*bad ") as caught:
            client_options(settings.model_copy(update={"sasl_password_file": bad}))
        assert access_files.password not in str(caught.value)


ON_A_TERMINAL = """\
import pty, sys
sys.exit(pty.spawn([sys.executable, "-c", sys.argv[1], *sys.argv[2:]]))
"""
LOADS_THE_KEY = """\
import sys
from learnd.core.errors import ConfigError
from learnd.sources.kafka_auth import client_options
from learnd.sources.settings import KafkaSettings
try:
    client_options(KafkaSettings(kind="kafka", bootstrap_servers=["b:1"], topics=["t"], security_protocol="SSL",
                                 ssl_certfile=sys.argv[1], ssl_keyfile=sys.argv[2]))
except ConfigError as error:
    print(error)
"""


def test_an_encrypted_key_without_its_password_asks_nobody(access_files: Files) -> None:
    """OpenSSL would ask on the terminal and wait; here it is an error that names the option."""
    command = [sys.executable, "-c", ON_A_TERMINAL, LOADS_THE_KEY, str(access_files.certificate), str(access_files.key)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert "source.ssl_certfile: " in done.stdout, done.stdout + done.stderr
    assert "(an encrypted key needs ssl_password)" in done.stdout
    assert "pass phrase" not in done.stdout


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ssl_cafile", "contains no certificates in PEM"),
        ("ssl_certfile", "are not a certificate with its key in PEM"),
        ("sasl_password_file", "cannot be read"),
        ("sasl_oauth_token_file", "cannot be read"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_a_file_that_is_missing_or_wrong_is_an_error_of_the_configuration(
    key: str, expected: str, there: bool, access_files: Files, tmp_path: Path
) -> None:
    """At once and by name: kafka-python would try it again and again, and then find no broker."""
    path = tmp_path / "wrong"
    if there:
        path.write_text("two\nlines")
        expected = expected.replace("cannot be read", "has 2 lines")
    mechanism = {"sasl_mechanism": "OAUTHBEARER"} if "oauth" in key else {"sasl_mechanism": "PLAIN"}
    user = {} if "oauth" in key else {"sasl_username": USER, "sasl_password_file": access_files.password_file}
    settings = KafkaSettings(
        kind="kafka",
        bootstrap_servers=["b:1"],
        topics=["t"],
        **{"security_protocol": "SASL_SSL", **mechanism, **user, key: path},
    )
    with pytest.raises(ConfigError, match=rf"source\.{key}: .*wrong.* {expected}"):
        KafkaSource(settings, group_id="x").open({})
