"""The HTTP server by itself: whatever clients do, the next scrape is answered."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from learnd.config.settings import HttpSettings
from learnd.core.errors import PortTakenError
from learnd.observability import http
from learnd.observability.http import HttpServer
from tests.support.helpers import until


def make(port: int = 0) -> HttpServer:
    """Not yet open, on the default host."""
    registry = CollectorRegistry()
    Counter("scraped_total", "A metric.", registry=registry).inc()
    return HttpServer(
        host=HttpSettings().host,
        port=port,
        registry=registry,
        live=lambda: (True, "alive"),
        ready=lambda: (False, "not yet"),
    )


@pytest.fixture
def server() -> Iterator[HttpServer]:
    """Open, on any free port."""
    made = make()
    made.open()
    yield made
    made.close()


def _connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def _ask(server: HttpServer, *pieces: bytes) -> bytes:
    """Everything that comes back for a request in *pieces*."""
    with _connect(server) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
        return client.makefile("rb").read()


def _ended(client: socket.socket) -> bool:
    """Whether the server has hung up."""
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        try:
            return client.recv(1) == b""
        except ConnectionResetError:
            return True
    return False


@pytest.mark.parametrize(
    ("request_line", "status", "body"),
    [
        ("GET /metrics HTTP/1.1", 200, b"scraped_total 1.0"),
        ("GET /metrics?name=x HTTP/1.0", 200, b"scraped_total 1.0"),
        ("GET /livez HTTP/1.1", 200, b"alive\n"),
        ("GET /readyz HTTP/1.1", 503, b"not yet\n"),
        ("GET /config HTTP/1.1", 404, b"the paths are /metrics, /livez and /readyz"),
        ("GET /../../etc/passwd HTTP/1.1", 404, b"not found"),
        ("POST /metrics HTTP/1.1", 405, b"only GET is supported"),
        ("GET /metrics", 400, b"not HTTP"),
        ("\x16\x03\x01\x02\x00", 400, b"not HTTP"),
        ("GET /metrics HTTP/2.0", 400, b"not HTTP"),
    ],
)
def test_each_request_gets_its_answer(server: HttpServer, request_line: str, status: int, body: bytes) -> None:
    """With its length, and the end of the connection after it."""
    answer = _ask(server, f"{request_line}\r\nHost: x\r\n\r\n".encode("latin-1"))
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.0 {status} ".encode())
    assert body in rest
    assert f"Content-Length: {len(rest)}".encode() in head


def test_a_scraper_gets_the_format_that_it_asks_for(server: HttpServer) -> None:
    """OpenMetrics, as Prometheus does; the header may come in pieces, and a broken one is as good as none."""
    accept = b"aCCept: application/openmetrics-text;version=1.0.0\r\n"
    answer = _ask(server, b"GET /metrics HTTP/1.1\r", b"\n", accept[:10], accept[10:], b"\r", b"\n")
    assert b"application/openmetrics-text" in answer
    assert answer.endswith(b"# EOF\n")
    assert b"scraped_total 1.0" in _ask(server, b"GET /metrics HTTP/1.1\r\n\xff no header\r\n\r\n")


def test_only_this_machine_is_let_in_by_default(server: HttpServer) -> None:
    """It listens on the loopback address, and not on all."""
    (row,) = [row for row in _listening() if row[1] == server.port]
    assert row[0] == "127.0.0.1"


def _listening() -> list[tuple[str, int]]:
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, port = line.split()[1].split(":")
        if line.split()[3] == "0A":
            found.append((socket.inet_ntoa(bytes.fromhex(address)[::-1]), int(port, 16)))
    return found


def test_who_is_too_slow_is_dropped_however_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a whole connection counts, not that between two bytes."""
    monkeypatch.setattr(http, "CONNECTION_S", 0.3)
    server = make()
    server.open()
    silent, busy = _connect(server), _connect(server)

    def dropped() -> bool:
        with contextlib.suppress(OSError):
            busy.setblocking(True)
            busy.send(b"x")
        return _ended(silent) and _ended(busy)

    until(dropped, what="the end of both", timeout_s=10)
    server.close()


def test_who_takes_no_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is too large for the buffers in between waits no longer than a request may take."""
    monkeypatch.setattr(http, "CONNECTION_S", 0.3)
    registry = CollectorRegistry()
    Counter("large_total", "x" * (64 << 20), registry=registry)
    server = HttpServer(host="127.0.0.1", port=0, registry=registry, live=lambda: (True, ""), ready=lambda: (True, ""))
    server.open()
    with _connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        until(lambda: server.connections, what="the connection", timeout_s=10)
        until(lambda: not server.connections, what="the end of it", timeout_s=10)
    server.close()


def test_a_request_without_end_is_dropped(server: HttpServer) -> None:
    """After some kilobytes, so that nobody fills the memory."""
    with _connect(server) as client:

        def ended() -> bool:
            with contextlib.suppress(OSError):
                client.setblocking(True)
                client.sendall(b"x" * 1000)
            return _ended(client)

        until(ended, what="the end of it", timeout_s=4)


def test_beyond_the_bound_the_oldest_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there is always room for the next, and never more than so many sockets or a thread for each."""
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 8)
    server = make()
    server.open()
    threads = threading.active_count()
    clients = []
    for _ in range(20):
        clients.append(_connect(server))
        assert b"scraped_total 1.0" in _ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert server.connections <= 8
        assert threading.active_count() == threads
    until(lambda: all(_ended(client) for client in clients[:12]), what="the end of the oldest", timeout_s=4)
    assert not any(_ended(client) for client in clients[-4:])
    for client in clients:
        client.close()
    server.close()


def test_an_end_lets_go_of_everything() -> None:
    """Clients are cut off, the port is free, and another server may have it; a taken one is told."""
    server = make()
    server.open()
    port = server.port
    client = _connect(server)
    with pytest.raises(
        PortTakenError, match=rf"http: cannot listen on 127\.0\.0\.1:{port} .*choose another port"
    ) as taken:
        make(port).open()
    assert taken.value.exit_code == 75, "a restart helps once the other process has ended"
    server.close()
    until(lambda: _ended(client), what="the end of the connection", timeout_s=4)
    again = make(port)
    again.open()
    assert b"alive" in _ask(again, b"GET /livez HTTP/1.1\r\n\r\n")
    again.close()
