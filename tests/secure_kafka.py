"""A real broker that wants TLS, a certificate or a login, with an authority made for the occasion."""

import base64
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

from learnd.testing.kafka import KafkaBroker, make_broker

USER = "alice"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_MODULES = "org.apache.kafka.common.security"
REAUTHENTICATE_MS = 2000
"""How long the broker believes a token; kafka-python shows a new one a little earlier (KIP-368)."""


@dataclass(frozen=True, slots=True)
class Files:
    """Certificates and secrets in a folder, as an operator would have them."""

    authority: Path
    other_authority: Path
    """Which has signed nothing that the broker shows."""
    certificate: Path
    key: Path
    """Of the certificate, encrypted with the password."""
    password_file: Path
    password: str


def make_files(folder: Path) -> Files:
    """An authority, another one, a client's certificate and a password that stands nowhere else."""
    folder.mkdir(parents=True, exist_ok=True)
    password = f"canary-{uuid.uuid4().hex}"
    ours, other = trustme.CA(), trustme.CA()
    made = Files(
        *(folder / name for name in ("ca.pem", "other-ca.pem", "client.pem", "client.key", "password")), password
    )
    ours.cert_pem.write_to_path(made.authority)
    other.cert_pem.write_to_path(made.other_authority)
    client = ours.issue_cert(f"{USER}@example.org")
    made.certificate.write_bytes(b"".join(pem.bytes() for pem in client.cert_chain_pems))
    made.key.write_bytes(_key(client, serialization.BestAvailableEncryption(password.encode())))
    made.password_file.write_text(f"{password}\n")
    for name, host in (("broker.pem", "127.0.0.1"), ("elsewhere.pem", "elsewhere.example.org")):
        leaf = ours.issue_cert(host)
        pems = [_key(leaf, serialization.NoEncryption()), *(pem.bytes() for pem in leaf.cert_chain_pems)]
        (folder / name).write_bytes(b"".join(pems))
    return made


def _key(leaf: trustme.LeafCert, encryption: serialization.KeySerializationEncryption) -> bytes:
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    # Kafka reads keys in PKCS 8 alone.
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


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


def unsigned_token(*, lifetime_s: float) -> str:
    """A bearer token as Kafka's development login module takes it (RFC 7515, ``alg: none``)."""
    now = time.time()
    claims = {"sub": USER, "iat": now, "exp": now + lifetime_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b""]).decode()
