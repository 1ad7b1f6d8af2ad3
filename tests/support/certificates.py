"""Certificates, a password and tokens, with an authority made for the occasion."""

import base64
import json
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

USER = "alice"


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


def unsigned_token(*, lifetime_s: float) -> str:
    """A bearer token as Kafka's development login module takes it (RFC 7515, ``alg: none``)."""
    now = time.time()
    claims = {"sub": USER, "iat": now, "exp": now + lifetime_s}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
    return b".".join([*parts, b""]).decode()
