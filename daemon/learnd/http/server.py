"""``/metrics``, ``/livez`` and ``/readyz``; anything else is 404."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from learnd.errors import ConfigError

Check = Callable[[], tuple[bool, str]]
"""Whether all is well, and a word on why."""

_SOCKET_TIMEOUT_S = 5.0


class HttpServer:
    """Serves from a thread of its own; a slow or silent client holds up nobody else."""

    def __init__(self, *, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._address = (host, port)
        self._registry = registry
        self._checks = {"/livez": live, "/readyz": ready}
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """The port in use; only once open."""
        assert self._server is not None
        return int(self._server.server_address[1])

    def open(self) -> None:
        """Bind and serve.

        Raises
        ------
        ConfigError
            if the address is taken or not ours.
        """
        registry, checks = self._registry, self._checks

        class Handler(BaseHTTPRequestHandler):
            timeout = _SOCKET_TIMEOUT_S
            server_version = "learnd"
            sys_version = ""

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(200, encode(registry), content_type)
                elif path in checks:
                    good, why = checks[path]()
                    self._answer(200 if good else 503, f"{why}\n".encode(), "text/plain; charset=utf-8")
                else:
                    known = "/metrics /livez /readyz\n"
                    self._answer(404, f"not found; here are {known}".encode(), "text/plain; charset=utf-8")

            def _answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Scrapes are not worth a log line."""

        host, port = self._address
        try:
            self._server = _Server(self._address, Handler)
        except OSError as error:
            raise ConfigError(
                f"http: {host}:{port} cannot be opened ({error.strerror}); choose another port, or 0 for any"
            ) from error
        threading.Thread(target=self._server.serve_forever, name="learnd-http", daemon=True).start()

    def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event."""
