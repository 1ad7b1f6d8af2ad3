"""The HTTP server for ``/metrics``, ``/livez`` and ``/readyz``; every other path is 404."""

import asyncio
import contextlib
import errno
import io
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, parse_headers

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from learnd.core.errors import ConfigError, PortTakenError

Check = Callable[[], tuple[bool, str]]
"""Returns whether a check passes, and a sentence that says why."""

CONNECTION_S = 5.0
"""Limit on the duration of a connection, even while the client is still sending its request."""
MAX_CONNECTIONS = 512
"""At this limit the oldest connection is closed. It is half of 1024, the usual limit on open files of a process."""
MAX_REQUEST_BYTES = 8192
_BACKLOG = 16
_TEXT = "text/plain; charset=utf-8"


class HttpServer:
    """An HTTP server on its own thread. A slow or silent client delays nobody, and costs a socket but no thread."""

    def __init__(self, *, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._address = (host, port)
        self._registry = registry
        self._checks = {"/livez": live, "/readyz": ready}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._transports: dict[asyncio.Transport, None] = {}
        """The transport of every connection, oldest first."""

    @property
    def port(self) -> int:
        """The port in use. The server must be open."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """The number of clients that are connected now."""
        return len(self._transports)

    def open(self) -> None:
        """Bind the address and start to serve.

        Raises
        ------
        PortTakenError
            if another process listens there.
        ConfigError
            if the address does not belong to this machine.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server(self._address, family=family)
        except OSError as error:
            message = f"http: cannot listen on {host}:{port} ({error.strerror}); choose another port, or 0 for any"
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(message) from error
            raise ConfigError(message) from error
        loop = asyncio.new_event_loop()
        # asyncio accepts up to `backlog` connections in a row before it reads from any of them. With a large backlog, a
        # scrape could become the oldest connection, and be closed, before its request is read.
        server = loop.create_server(self._connection, sock=listener, backlog=_BACKLOG)
        self._server, self._loop = loop.run_until_complete(server), loop
        listener.listen(MAX_CONNECTIONS)
        self._thread = threading.Thread(target=loop.run_forever, name="learnd-http", daemon=True)
        self._thread.start()

    def _connection(self) -> "_Connection":
        return _Connection(self._answer, self._transports)

    def close(self) -> None:
        """Stop serving, and close every connection."""
        if self._loop is None or self._server is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._disconnect(self._server))
        self._loop.close()
        self._loop = self._server = self._thread = None

    async def _disconnect(self, server: asyncio.Server) -> None:
        server.close()
        # Connections that were just accepted have no transport yet; wait until they do.
        connecting = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*connecting, return_exceptions=True)
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)  # closes the sockets

    def _answer(self, request: bytes) -> bytes:
        """Return the complete response to the head of a request."""
        line, _, rest = request.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"not HTTP\n")
        if words[0] != "GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET is supported\n", extra="Allow: GET\r\n")
        path = words[1].partition("?")[0]
        if path == "/metrics":
            accept = ""
            with contextlib.suppress(HTTPException):
                accept = parse_headers(io.BytesIO(rest)).get("Accept", "")
            encode, content_type = choose_encoder(accept)
            return _response(HTTPStatus.OK, encode(self._registry), content_type)
        if path in self._checks:
            passed, why = self._checks[path]()
            status = HTTPStatus.OK if passed else HTTPStatus.SERVICE_UNAVAILABLE
            return _response(status, f"{why}\n".encode())
        return _response(HTTPStatus.NOT_FOUND, b"not found; the paths are /metrics, /livez and /readyz\n")


class _Connection(asyncio.Protocol):
    """One request and one response. A request that is too slow or too long is dropped without a response."""

    def __init__(self, answer: Callable[[bytes], bytes], transports: dict[asyncio.Transport, None]) -> None:
        self._answer = answer
        self._transports = transports
        self._request = bytearray()
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if len(self._transports) >= MAX_CONNECTIONS:
            oldest = next(iter(self._transports))
            del self._transports[oldest]
            oldest.abort()
        self._transport = transport
        self._transports[transport] = None
        self._deadline = asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._request += data
        if b"\r\n\r\n" in self._request:
            self._transport.write(self._answer(bytes(self._request)))
            self._transport.close()  # after everything is written; the deadline applies to that too
        elif len(self._request) > MAX_REQUEST_BYTES:
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        if self._transport is not None:
            self._transports.pop(self._transport, None)
        if self._deadline is not None:
            self._deadline.cancel()


def _response(status: HTTPStatus, body: bytes, content_type: str = _TEXT, extra: str = "") -> bytes:
    """Return the bytes of a response, after which the connection is closed.

    >>> _response(HTTPStatus.OK, b"good").partition(b"\\r\\n")[0]
    b'HTTP/1.0 200 OK'
    """
    head = (
        f"HTTP/1.0 {status.value} {status.phrase}\r\nServer: learnd\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
