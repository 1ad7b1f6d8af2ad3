"""A real broker that wants TLS, a certificate or a login; and the configuration of a daemon that it lets in."""

from pathlib import Path
from typing import Any

from learnd.testing.kafka import KafkaBroker, make_broker
from tests.support.certificates import USER, Files
from tests.support.helpers import config_text

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MODULES = "org.apache.kafka.common.security"
REAUTHENTICATE_MS = 2000
"""How long the broker believes a token; kafka-python shows a new one a little earlier (KIP-368)."""


def make_secure_broker(folder: Path, files: Files) -> KafkaBroker:
    """Not yet started; beside the open listener of every test broker it has five.

    SECRET: TLS and a login (PLAIN, SCRAM, OAUTHBEARER with unsigned tokens). MUTUAL: TLS with a client's certificate.
    TLS: the same without. ELSEWHERE: its certificate is for another host. CLEAR: a login without TLS.
    """
    certificates = files.authority.parent
    plain = f'{_MODULES}.plain.PlainLoginModule required user_{USER}="{files.password}";'
    scram = f"{_MODULES}.scram.ScramLoginModule required;"
    oauth = f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(certificates / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files.authority),
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.elsewhere.ssl.keystore.type": "PEM",
        "listener.name.elsewhere.ssl.keystore.location": str(certificates / "elsewhere.pem"),
        "listener.name.secret.oauthbearer.sasl.jaas.config": oauth,
        "listener.name.secret.oauthbearer.connections.max.reauth.ms": str(REAUTHENTICATE_MS),
    }
    for name, mechanisms in (("secret", [*MECHANISMS, "OAUTHBEARER"]), ("clear", MECHANISMS)):
        properties[f"listener.name.{name}.sasl.enabled.mechanisms"] = ",".join(mechanisms)
        properties[f"listener.name.{name}.plain.sasl.jaas.config"] = plain
        for mechanism in MECHANISMS[1:]:
            properties[f"listener.name.{name}.{mechanism.lower()}.sasl.jaas.config"] = scram
    return make_broker(
        folder,
        listeners={"SECRET": "SASL_SSL", "MUTUAL": "SSL", "TLS": "SSL", "ELSEWHERE": "SSL", "CLEAR": "SASL_PLAINTEXT"},
        properties=properties,
        format_arguments=[
            argument
            for mechanism in MECHANISMS[1:]
            for argument in ("--add-scram", f"{mechanism}=[name={USER},password={files.password}]")
        ],
    )


def secure_config(
    folder: Path, broker: KafkaBroker, topic: str, files: Files, *, source: Any = None, **sections: Any
) -> Path:
    """A configuration in *folder* that logs in with a password from ``KAFKA_PASSWORD``."""
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
