"""Signs manifests with Ed25519 (RFC 8032), so that whoever holds the public key knows who made an export.

A manifest holds the hash of every file, so that its signature covers them all. Needs the extra ``signing``.
"""

import hashlib
from pathlib import Path
from typing import Any

from learnd.core.errors import ConfigError, Problem, UsageError

KEY = "export.signing_key_file"


class Signer:
    """Holds the private key in *path*, a PEM file (PKCS 8) without a password.

    Raises
    ------
    ConfigError
        if there is no such key there, or nothing to read it with; the key itself is in no message.
    """

    def __init__(self, path: Path) -> None:
        try:
            serialization, ed25519, _ = _library()
        except ImportError:
            raise ConfigError(Problem(KEY, _MISSING)) from None
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise ConfigError(Problem(KEY, f"{path} cannot be read: {error.strerror}")) from None
        except (ValueError, TypeError):
            key = None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise ConfigError(
                Problem(
                    KEY,
                    f"{path} is no Ed25519 private key in PEM without a password; make one by "
                    "`openssl genpkey -algorithm ed25519 -out FILE`",
                )
            )
        self._key = key
        self.key_id = _key_id(key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The signature of *data*, 64 bytes."""
        signature: bytes = self._key.sign(data)
        return signature


class Verifier:
    """Holds the public key in *path*, a PEM file (SubjectPublicKeyInfo).

    Raises
    ------
    UsageError
        if there is no such key there, or nothing to read it with.
    """

    def __init__(self, path: Path) -> None:
        try:
            serialization, ed25519, self._invalid = _library()
        except ImportError:
            raise UsageError(_MISSING) from None
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            key = None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise UsageError(
                f"{path} is no Ed25519 public key in PEM; `openssl pkey -in PRIVATE -pubout -out FILE` writes one"
            )
        self._key = key
        self.key_id = _key_id(key)

    def accepts(self, signature: bytes, data: bytes) -> bool:
        """Whether the holder of the private key signed exactly *data*."""
        try:
            self._key.verify(signature, data)
        except self._invalid:
            return False
        return True


_MISSING = "signatures need the package cryptography: pip install 'learnd[signing]'"


def _library() -> tuple[Any, Any, Any]:
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    return serialization, ed25519, InvalidSignature


def _key_id(public_key: Any) -> str:
    serialization, _, _ = _library()
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
