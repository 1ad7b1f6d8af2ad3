"""Connection options of Kafka clients (addresses, TLS, credentials), and the errors when a connection fails.

Certificates and secrets are read when a client is made, not with the settings, so that `learnd validate` needs neither.
A token lives for minutes, so it is read at each connection; a password is read once, at the start.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka.errors import (
    KafkaTimeoutError,
    RequestTimedOutError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)
from kafka.net.sasl.oauth import AbstractTokenProvider

from learnd.core.errors import BrokerUnavailableError, ConfigError, Problem
from learnd.core.registry import load_object
from learnd.sources.settings import KafkaSettings

_REFUSALS = (SaslAuthenticationFailedError, UnsupportedSaslMechanismError)
REFUSED_LOGIN = (ConfigError, SaslAuthenticationFailedError)
"""Errors that renewed credential files repair without a restart: the broker refuses the token, or it is missing."""
_SIGNS_OF_TLS = ("Handshake failed", "SSL")
"""Parts of the message of a TLS error: kafka-python has one class for all connection errors."""


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options of a consumer or a producer. They contain secrets: never log them.

    Raises
    ------
    ConfigError
        if a file with certificates, a password or a token cannot be read, or has the wrong content.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": list(settings.bootstrap_servers),
        "bootstrap_timeout_ms": int(settings.connect_timeout_s * 1000),
        "security_protocol": settings.security_protocol,
    }
    if settings.encrypted:
        options |= _tls_options(settings)
    if settings.authenticated:
        options |= _sasl_options(settings)
    return options


def _tls_options(settings: KafkaSettings) -> dict[str, Any]:
    # File names rather than an SSL context, so that each connection uses renewed certificates.
    options: dict[str, Any] = {
        name: str(path)
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        if (path := getattr(settings, name)) is not None
    }
    # Empty rather than None: without a password, OpenSSL would ask for one on the terminal and wait.
    options["ssl_password"] = _secret(settings, "ssl_password") or ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ssl_cafile is not None:
        try:
            context.load_verify_locations(settings.ssl_cafile)
        except OSError as error:
            raise _unusable("ssl_cafile", f"{settings.ssl_cafile} contains no certificates in PEM", error) from None
    if settings.ssl_certfile is not None:
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, options["ssl_password"])
        except OSError as error:
            files = f"{settings.ssl_certfile} and {settings.ssl_keyfile or 'the key in it'}"
            why = f"{files} are not a certificate with its key in PEM (an encrypted key needs ssl_password)"
            raise _unusable("ssl_certfile", why, error) from None
    return options


def _unusable(key: str, why: str, error: OSError) -> ConfigError:
    reason = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return ConfigError(Problem(f"source.{key}", f"{why}: {reason}"))


def _sasl_options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"sasl_mechanism": settings.sasl_mechanism}
    if settings.sasl_mechanism == "OAUTHBEARER":
        tokens = _Tokens(settings)
        if settings.sasl_oauth_token_file is not None:
            tokens.token()  # raises an error in the file now; later it would look like an unreachable broker
        options["sasl_oauth_token_provider"] = tokens
    else:
        name = settings.sasl_username or ""
        if settings.sasl_mechanism != "PLAIN":
            name = name.replace("=", "=3D").replace(",", "=2C")  # RFC 5802, 5.1; kafka-python does not escape it
        options["sasl_plain_username"] = name
        options["sasl_plain_password"] = _secret(settings, "sasl_password")
    return options


def _secret(settings: KafkaSettings, key: str) -> str | None:
    """Return the secret in option *key*, or in the file that option *key* + ``_file`` names; None if neither is set."""
    if (secret := getattr(settings, key)) is not None:
        return str(secret.get_secret_value())
    path = getattr(settings, f"{key}_file")
    return None if path is None else read_secret(path, f"source.{key}_file")


def read_secret(path: Path, key: str) -> str:
    """Return the only line of the file *path*, without its line end. Errors name *key*, never the content.

    Raises
    ------
    ConfigError
        if the file cannot be read, is empty, or has more than one line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(Problem(key, f"{path} cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise ConfigError(Problem(key, f"{path} is not UTF-8 text; write only the secret into it")) from None
    if len(lines) != 1 or not lines[0]:
        raise ConfigError(Problem(key, f"{path} has {len(lines)} lines; it must contain only the secret, on one line"))
    return lines[0]


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Provider of tokens: called at each connection, and when the broker requests a new login (KIP-368)."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__()
        self._file = settings.sasl_oauth_token_file
        self._provider = settings.sasl_oauth_token_provider
        self._function: Callable[[], object] | None = None
        if self._provider is not None:
            self._function = load_object(self._provider, "source.sasl_oauth_token_provider")

    def token(self) -> str:
        """Return a token, from the file or from the user's function."""
        if self._function is None:
            assert self._file is not None
            return read_secret(self._file, "source.sasl_oauth_token_file")
        try:
            token = self._function()
        except Exception as error:  # from the user's function: its message may contain a secret
            why = f"{self._provider} raised {type(error).__name__}; it must return a token"
            raise ConfigError(Problem("source.sasl_oauth_token_provider", why)) from None
        if not isinstance(token, str):
            why = f"{self._provider} returned a {type(token).__name__}; it must return a token as text"
            raise ConfigError(Problem("source.sasl_oauth_token_provider", why))
        return token


def informativeness(error: Exception) -> int:
    """Return how well *error* explains a missing connection: 0 not at all, 1 that there is none, 2 with the reason."""
    if isinstance(error, KafkaTimeoutError | RequestTimedOutError):
        return 0
    reason = isinstance(error, (ConfigError, *_REFUSALS)) or any(sign in str(error) for sign in _SIGNS_OF_TLS)
    return 2 if reason else 1


def unavailable(settings: KafkaSettings, cause: Exception) -> BrokerUnavailableError:
    """Return the error for a connection that failed because of *cause*, with the way out."""
    servers = ", ".join(settings.bootstrap_servers)
    place = f"{servers} (source.bootstrap_servers)"
    if isinstance(cause, ConfigError):
        return BrokerUnavailableError(f"no credentials for the broker at {servers}: {cause}")
    if isinstance(cause, _REFUSALS):
        return BrokerUnavailableError(
            f"the broker at {place} refuses the login: {cause}; correct source.sasl_mechanism and the username, "
            "password or token"
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(cause):
        return BrokerUnavailableError(
            f"the certificate of the broker at {place} is not trusted: {cause}; name the authority that signed it in "
            "source.ssl_cafile, and use the host name that is in the certificate"
        )
    if settings.encrypted and any(sign in str(cause) for sign in _SIGNS_OF_TLS):
        return BrokerUnavailableError(
            f"no TLS with the broker at {place}: {cause}; it may require a certificate (source.ssl_certfile), or speak "
            "no TLS on that port"
        )
    return BrokerUnavailableError(
        f"no broker answers at {place} within {settings.connect_timeout_s:g} s; start it, or correct the address, "
        f"source.security_protocol or the credentials ({cause})"
    )
