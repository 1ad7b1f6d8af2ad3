"""Clients that hold connections open, and what a scrape takes beside them."""

import contextlib
import random
import selectors
import socket
import threading
import time
import urllib.request
from collections.abc import Sequence

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
TIMEOUT_S = 5.0


class SlowClients:
    """Connections to a loopback port, opened again whenever the server drops one.

    Every second one is silent, the others send a byte of a request that never ends every *pause_s*.
    """

    def __init__(self, port: int, count: int, *, pause_s: float = 0.5, seed: int = 0) -> None:
        self._port = port
        self._count = count
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._sent: dict[socket.socket, int] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.dropped = 0
        """How often the server closed one."""

    def __enter__(self) -> "SlowClients":
        for _ in range(self._count):
            self._connect()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        for client in self._sent:
            client.close()
        self._selector.close()

    @property
    def connected(self) -> int:
        return len(self._sent)

    def _connect(self) -> None:
        client = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT_S)
        client.setblocking(False)
        self._sent[client] = 0
        self._selector.register(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket) -> None:
        self.dropped += 1
        self._selector.unregister(client)
        del self._sent[client]
        client.close()
        with contextlib.suppress(OSError):  # the server may have ended
            self._connect()

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._stopping.is_set():
            for key, _ in self._selector.select(timeout=0.05):
                self._drop(key.fileobj)  # type: ignore[arg-type] - they never get an answer, only an end
            if time.monotonic() >= next_s:
                next_s = time.monotonic() + self._pause_s
                for client in list(self._sent)[::2]:
                    self._send(client)

    def _send(self, client: socket.socket) -> None:
        sent = self._sent[client]
        byte = REQUEST[sent : sent + 1] or bytes([self._random.randrange(97, 123)])
        with contextlib.suppress(OSError):  # its end is seen by the next select
            client.send(byte)
        self._sent[client] = sent + 1


def scrapes(port: int, count: int) -> Sequence[float]:
    """Seconds of each of *count* scrapes, one after the other; a failed one raises."""
    took_s = []
    for _ in range(count):
        started_s = time.perf_counter()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as answer:
            assert b"learnd_samples_learned_total" in answer.read()
        took_s.append(time.perf_counter() - started_s)
    return took_s
