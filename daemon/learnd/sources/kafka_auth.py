"""How clients of a Kafka cluster get in: addresses, TLS, credentials out of files; and why they could not.

Files are read here, when a client is made, and not by the settings: `learnd validate` needs neither certificates nor
secrets. A token is read again at each connection, because it lives for minutes; a password, once a start.
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
"""What renewing the files mends, without a restart: the broker does not take the token, or there is none to show."""
_SIGNS_OF_TLS = ("Handshake failed", "SSL")
"""kafka-python makes one class of all that goes wrong with a connection."""


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Options of a consumer or a producer; they hold the secrets, so they are never shown.

    Raises
    ------
    ConfigError
        if a file of certificates, a password or a token cannot be read, or is not what it should be.
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
    # The files are named, not a context made of them: each connection takes certificates as they were renewed.
    options: dict[str, Any] = {
        name: str(path)
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        if (path := getattr(settings, name)) is not None
    }
    # An empty password, never none: OpenSSL would ask for one on the terminal, and wait.
    options["ssl_password"] = _secret(settings, "ssl_password") or ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if settings.ssl_cafile is not None:
        try:
            context.load_verify_locations(settings.ssl_cafile)
        except OSError as error:
            raise _unusable("ssl_cafile", f"{settings.ssl_cafile} holds no certificates in PEM", error) from None
    if settings.ssl_certfile is not None:
        try:
            context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, options["ssl_password"])
        except OSError as error:
            files = f"{settings.ssl_certfile} and {settings.ssl_keyfile or 'the key in it'}"
            why = f"{files} are no certificate with its key in PEM (an encrypted key needs ssl_password)"
            raise _unusable("ssl_certfile", why, error) from None
    return options


def _unusable(key: str, why: str, error: OSError) -> ConfigError:
    said = getattr(error, "reason", None) or error.strerror or type(error).__name__
    return ConfigError(Problem(f"source.{key}", f"{why}: {said}"))


def _sasl_options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"sasl_mechanism": settings.sasl_mechanism}
    if settings.sasl_mechanism == "OAUTHBEARER":
        tokens = _Tokens(settings)
        if settings.sasl_oauth_token_file is not None:
            tokens.token()  # what is wrong with the file shows now, rather than as a broker that does not answer
        options["sasl_oauth_token_provider"] = tokens
    else:
        name = settings.sasl_username or ""
        if settings.sasl_mechanism != "PLAIN":
            name = name.replace("=", "=3D").replace(",", "=2C")  # RFC 5802, 5.1; kafka-python sends it as it stands
        options["sasl_plain_username"] = name
        options["sasl_plain_password"] = _secret(settings, "sasl_password")
    return options


def _secret(settings: KafkaSettings, key: str) -> str | None:
    """The secret under *key*, or in the file under *key* and ``_file``; None where neither is set."""
    if (secret := getattr(settings, key)) is not None:
        return str(secret.get_secret_value())
    path = getattr(settings, f"{key}_file")
    return None if path is None else read_secret(path, f"source.{key}_file")


def read_secret(path: Path, key: str) -> str:
    """The one line in the file at *path*, without its line end; the error names *key*, and nothing of what was read.

    Raises
    ------
    ConfigError
        if the file cannot be read, is empty, or holds more than a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(Problem(key, f"{path} cannot be read: {error.strerror}")) from None
    except UnicodeDecodeError:
        raise ConfigError(
            Problem(key, f"{path} holds no UTF-8 text; write the secret into it, and nothing else")
        ) from None
    if len(lines) != 1 or not lines[0]:
        raise ConfigError(Problem(key, f"{path} has {len(lines)} lines; it must hold the secret, and nothing else"))
    return lines[0]


class _Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Asks for a token at each connection, and each time the broker wants to see a new one (KIP-368)."""

    def __init__(self, settings: KafkaSettings) -> None:
        super().__init__()
        self._file = settings.sasl_oauth_token_file
        self._provider = settings.sasl_oauth_token_provider
        self._ask: Callable[[], Any] | None = None
        if self._provider is not None:
            self._ask = load_object(self._provider, "source.sasl_oauth_token_provider")

    def token(self) -> str:
        if self._ask is None:
            assert self._file is not None
            return read_secret(self._file, "source.sasl_oauth_token_file")
        try:
            token = self._ask()
        except Exception as error:  # the user's own; what it says may hold a secret
            why = f"{self._provider} raised {type(error).__name__}; it is to return a token"
            raise ConfigError(Problem("source.sasl_oauth_token_provider", why)) from None
        if not isinstance(token, str):
            why = f"{self._provider} returned a {type(token).__name__}; it is to return a token as text"
            raise ConfigError(Problem("source.sasl_oauth_token_provider", why))
        return token


def telling(error: Exception) -> int:
    """How much *error* says of why there is no connection: nothing, that there is none, or the reason."""
    if isinstance(error, KafkaTimeoutError | RequestTimedOutError):
        return 0
    reason = isinstance(error, (ConfigError, *_REFUSALS)) or any(sign in str(error) for sign in _SIGNS_OF_TLS)
    return 2 if reason else 1


def unavailable(settings: KafkaSettings, cause: Exception) -> BrokerUnavailableError:
    """What to say where *cause* keeps us from the broker, with the way out."""
    servers = ", ".join(settings.bootstrap_servers)
    within = f"{servers} (source.bootstrap_servers)"
    if isinstance(cause, ConfigError):
        return BrokerUnavailableError(f"no credentials for the broker at {servers}: {cause}")
    if isinstance(cause, _REFUSALS):
        return BrokerUnavailableError(
            f"the broker at {within} refuses the login: {cause}; correct source.sasl_mechanism and the username, "
            "password or token"
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(cause):
        return BrokerUnavailableError(
            f"the certificate of the broker at {within} is not trusted: {cause}; name the authority that signed it "
            "in source.ssl_cafile, and the broker as the certificate names it"
        )
    if settings.encrypted and any(sign in str(cause) for sign in _SIGNS_OF_TLS):
        return BrokerUnavailableError(
            f"no TLS with the broker at {within}: {cause}; it may want a certificate (source.ssl_certfile), or "
            "speak no TLS on that port"
        )
    return BrokerUnavailableError(
        f"no broker answers at {within} within {settings.connect_timeout_s:g} s; start it, or correct the address, "
        f"source.security_protocol or the credentials ({cause})"
    )
