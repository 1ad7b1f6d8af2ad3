"""SIGTERM and SIGINT during ``learnd run``."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GIVE_UP_S = 5.0
"""Time from a stop signal to a forced exit while nothing has been learned yet.

During that time the model may be compiling, or the broker may not answer.
"""
_Handler = Callable[[int, FrameType | None], object] | int | None


class StopSignals:
    """Stop requests from SIGTERM and SIGINT: the first asks for a clean stop, the second ends the process at once.

    A thread receives the signals from a socket that the system writes to. Python's own handlers would wait until the
    main thread returns from C++, and compiling a large model takes longer than a stop may take.
    """

    def __init__(self) -> None:
        self._received = False
        self._nothing_learned = True
        self._previous_handlers: dict[int, _Handler] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def received(self) -> bool:
        """Return whether a stop was requested."""
        return self._received

    def require_save(self) -> None:
        """Disable the forced exit after `GIVE_UP_S`: from now on a stop waits for the state to be saved."""
        self._nothing_learned = False

    def _listen(self, wakeups: socket.socket) -> None:
        while numbers := wakeups.recv(64):
            for number in numbers:
                if number in STOP_SIGNALS:
                    self._stop(number)

    def _stop(self, number: int) -> None:
        if self._received:
            os._exit(128 + number)
        self._received = True
        if self._nothing_learned:
            threading.Thread(target=self._give_up, name="learnd-stop", daemon=True).start()

    def _give_up(self) -> None:
        time.sleep(GIVE_UP_S)
        if self._nothing_learned:
            os._exit(0)

    def __enter__(self) -> "StopSignals":
        self._sockets = write, read = socket.socketpair()
        write.setblocking(False)
        for number in STOP_SIGNALS:
            self._previous_handlers[number] = signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read,), name="learnd-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        if self._sockets is not None:
            self._sockets[0].close()  # ends the thread
