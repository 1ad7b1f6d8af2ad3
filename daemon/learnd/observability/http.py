"""``/metrics``, ``/livez`` and ``/readyz``; anything else is 404."""

import asyncio
import contextlib
import io
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from learnd.core.errors import ConfigError

Check = Callable[[], tuple[bool, str]]
"""Whether all is well, and a word on why."""

CONNECTION_S = 5.0
"""From its beginning to its end a connection lasts so long at most, however busily a client sends its request."""
MAX_CONNECTIONS = 512
"""The oldest gives way to the next. Half of the 1024 files that a process may have open where nobody raised that."""
MAX_REQUEST_BYTES = 8192
_ACCEPTED_IN_A_ROW = 16
_TEXT = "text/plain; charset=utf-8"


class HttpServer:
    """Serves from a thread of its own; a slow or silent client holds up nobody, and costs a socket, no thread."""

    def __init__(self, *, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._address = (host, port)
        self._registry = registry
        self._checks = {"/livez": live, "/readyz": ready}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: asyncio.Server | None = None
        self._thread: threading.Thread | None = None
        self._transports: dict[asyncio.Transport, None] = {}
        """Of every connection, oldest first."""

    @property
    def port(self) -> int:
        """The port in use; only once open."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many clients are connected now."""
        return len(self._transports)

    def open(self) -> None:
        """Bind and serve.

        Raises
        ------
        ConfigError
            if the address is taken or not ours.
        """
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server(self._address, family=family)
        except OSError as error:
            raise ConfigError(
                f"http: {host}:{port} cannot be opened ({error.strerror}); choose another port, or 0 for any"
            ) from error
        loop = asyncio.new_event_loop()
        # asyncio accepts as many in a row as it takes for the backlog, before it reads from any: a scrape among them
        # would be the oldest before it was heard.
        made = loop.create_server(self._connection, sock=listener, backlog=_ACCEPTED_IN_A_ROW)
        self._server, self._loop = loop.run_until_complete(made), loop
        listener.listen(MAX_CONNECTIONS)
        self._thread = threading.Thread(target=loop.run_forever, name="learnd-http", daemon=True)
        self._thread.start()

    def _connection(self) -> "_Connection":
        return _Connection(self._answer, self._transports)

    def close(self) -> None:
        """Stop serving."""
        if self._loop is None or self._server is None or self._thread is None:
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._hang_up(self._server))
        self._loop.close()
        self._loop = self._server = self._thread = None

    async def _hang_up(self, server: asyncio.Server) -> None:
        server.close()
        accepted = asyncio.all_tasks() - {asyncio.current_task()}  # a moment ago, and not ours to cut off yet
        await asyncio.gather(*accepted, return_exceptions=True)
        for transport in list(self._transports):
            transport.abort()
        await asyncio.sleep(0)  # lets the sockets go

    def _answer(self, request: bytes) -> bytes:
        """The whole answer to the head of a request."""
        line, _, rest = request.partition(b"\r\n")
        words = line.decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"not HTTP\n")
        if words[0] != "GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET alone\n", extra="Allow: GET\r\n")
        path = words[1].partition("?")[0]
        if path == "/metrics":
            accept = ""
            with contextlib.suppress(HTTPException):
                accept = parse_headers(io.BytesIO(rest)).get("Accept", "")
            encode, content_type = choose_encoder(accept)
            return _response(HTTPStatus.OK, encode(self._registry), content_type)
        if path in self._checks:
            good, why = self._checks[path]()
            status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
            return _response(status, f"{why}\n".encode())
        return _response(HTTPStatus.NOT_FOUND, b"not found; here are /metrics /livez /readyz\n")


class _Connection(asyncio.Protocol):
    """One request, one answer, and no more; what is too slow or too long is dropped without a word."""

    def __init__(self, answer: Callable[[bytes], bytes], transports: dict[asyncio.Transport, None]) -> None:
        self._answer = answer
        self._transports = transports
        self._request = bytearray()
        self._transport: Any = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        if len(self._transports) >= MAX_CONNECTIONS:
            oldest = next(iter(self._transports))
            del self._transports[oldest]
            oldest.abort()
        self._transport = transport
        self._transports[transport] = None
        self._deadline = asyncio.get_running_loop().call_later(CONNECTION_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._request += data
        if b"\r\n\r\n" in self._request:
            self._transport.write(self._answer(bytes(self._request)))
            self._transport.close()  # once all is written; the deadline holds for that, too
        elif len(self._request) > MAX_REQUEST_BYTES:
            self._transport.abort()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transports.pop(self._transport, None)
        if self._deadline is not None:
            self._deadline.cancel()


def _response(status: HTTPStatus, body: bytes, content_type: str = _TEXT, extra: str = "") -> bytes:
    """The bytes of an answer after which the connection ends.

    >>> _response(HTTPStatus.OK, b"good").partition(b"\\r\\n")[0]
    b'HTTP/1.0 200 OK'
    """
    head = (
        f"HTTP/1.0 {status.value} {status.phrase}\r\nServer: learnd\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n{extra}Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + body
