"""Ed25519 signatures of manifests (RFC 8032), which prove the origin of an export to anyone with the public key.

A manifest holds the hash of every file, so its signature covers them all. Needs the extra ``signing``.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from learnd.core.errors import ConfigError, Problem, UsageError

if TYPE_CHECKING:  # cryptography is an extra
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

KEY = "export.signing_key_file"
_MISSING = "signatures need the package cryptography: pip install 'learnd[signing]'"


class Signer:
    """A private key, read from *path*, a PEM file (PKCS 8) without a password.

    Raises
    ------
    ConfigError
        if the file holds no such key, or cryptography is not installed. No message contains the key itself.
    """

    def __init__(self, path: Path) -> None:
        try:
            key = _private_key(path)
        except ImportError:
            raise ConfigError(Problem(KEY, _MISSING)) from None
        except OSError as error:
            raise ConfigError(Problem(KEY, f"{path} cannot be read: {error.strerror}")) from None
        if key is None:
            raise ConfigError(
                Problem(
                    KEY,
                    f"{path} is not an Ed25519 private key in PEM without a password; create one with "
                    "`openssl genpkey -algorithm ed25519 -out FILE`",
                )
            )
        self._key = key
        self.key_id = _key_id(key.public_key())

    def sign(self, data: bytes) -> bytes:
        """Return the signature of *data*, 64 bytes."""
        return self._key.sign(data)


class Verifier:
    """A public key, read from *path*, a PEM file (SubjectPublicKeyInfo).

    Raises
    ------
    UsageError
        if the file holds no such key, or cryptography is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            key = _public_key(path)
        except ImportError:
            raise UsageError(_MISSING) from None
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        if key is None:
            raise UsageError(
                f"{path} is not an Ed25519 public key in PEM; `openssl pkey -in PRIVATE -pubout -out FILE` writes one"
            )
        self._key = key
        self.key_id = _key_id(key)

    def accepts(self, signature: bytes, data: bytes) -> bool:
        """Return whether *signature* was made of exactly *data* with the private half of this key."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 - an extra

        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


def _private_key(path: Path) -> "Ed25519PrivateKey | None":
    """Return the private key in *path*; None if the file holds something else, or is encrypted."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None


def _public_key(path: Path) -> "Ed25519PublicKey | None":
    """Return the public key in *path*; None if the file holds something else."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 - an extra
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        return None
    return key if isinstance(key, Ed25519PublicKey) else None


def _key_id(public_key: "Ed25519PublicKey") -> str:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - an extra

    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
