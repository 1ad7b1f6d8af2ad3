"""The signals of ``learnd run``: which ask for a stop, which for a reload, and which mean nothing."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU)
OTHER_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
"""Signals that would end the process without a save, and that mean nothing to learnd: logged and ignored."""
GIVE_UP_S = 5.0
"""Time from a stop signal to a forced exit while nothing has been learned yet.

During that time the model may be compiling, or the broker may not answer.
"""
HANG_UP_S = 0.5
"""Time after SIGHUP in which the terminal may turn out to be gone. The system may send the signal first."""
STOPPING = (
    "learns what was read, saves, and exports; this takes up to 25 s. A second SIGTERM or Ctrl-C ends it at once; the "
    "next start then resumes from the last checkpoint"
)
_Handler = Callable[[int, FrameType | None], object] | int | None
_Note = Callable[..., object]
"""A method of a logger: takes the name of an event and its fields."""


class StopSignals:
    """Requests from signals.

    `STOP_SIGNALS` ask for a clean stop; the second one ends the process at once. SIGHUP is a clean stop if the terminal
    that learnd was started on is gone; otherwise it asks for a reload. `OTHER_SIGNALS` are ignored.

    A thread receives the signals from a socket that the system writes to. Python's own handlers would wait until the
    main thread returns from C++, and compiling a large model takes longer than a stop may take.
    """

    def __init__(self) -> None:
        self._received = False
        self._nothing_learned = True
        self._previous_handlers: dict[int, _Handler] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._lock = threading.Lock()
        self._note: _Note | None = None
        self._early_notes: list[tuple[str, dict[str, object]]] = []
        self._on_terminal = False
        self._on_screen: list[int] = []
        """Standard descriptors that are the terminal."""

    def received(self) -> bool:
        """Return whether a stop was requested."""
        return self._received

    def require_save(self) -> None:
        """Disable the forced exit after `GIVE_UP_S`: from now on a stop waits for the state to be saved."""
        self._nothing_learned = False

    def log_to(self, note: _Note) -> None:
        """Log signals with *note*; also those that came before logs were configured."""
        with self._lock:
            self._note = note
            for event, fields in self._early_notes:
                note(event, **fields)
            self._early_notes.clear()

    def _log(self, event: str, **fields: object) -> None:
        with self._lock:
            if self._note is None:
                self._early_notes.append((event, fields))
            else:
                self._note(event, always=True, **fields)

    def _listen(self, wakeups: socket.socket) -> None:
        while numbers := wakeups.recv(64):
            for number in numbers:
                self._handle(number)

    def _handle(self, number: int) -> None:
        if number in STOP_SIGNALS:
            if self._received:
                os._exit(128 + number)
            self._stop(signal.Signals(number).name)
        elif number == signal.SIGHUP:
            # On a thread of its own: a second Ctrl-C must not wait.
            threading.Thread(target=self._hang_up, name="learnd-hang-up", daemon=True).start()
        elif number in OTHER_SIGNALS:
            note = "learnd does not use this signal; SIGTERM stops it"
            self._log("signal_ignored", signal=signal.Signals(number).name, note=note)

    def _stop(self, name: str) -> None:
        self._received = True
        if self._nothing_learned:
            self._log("stopping", signal=name, note="nothing was learned yet; ends within 5 s")
            threading.Thread(target=self._give_up, name="learnd-stop", daemon=True).start()
        else:
            self._log("stopping", signal=name, note=STOPPING)

    def _hang_up(self) -> None:
        """Stop if the terminal is gone; a second SIGHUP changes nothing, because a shell sends it, too."""
        deadline_s = time.monotonic() + HANG_UP_S
        while self._on_terminal and time.monotonic() < deadline_s:
            if not has_terminal():
                for descriptor in self._on_screen:
                    with Path(os.devnull).open("r+") as nothing:
                        os.dup2(nothing.fileno(), descriptor)  # each further line would fail
                if not self._received:
                    self._stop("SIGHUP, because the terminal was closed")
                return
            time.sleep(HANG_UP_S / 10.0)
        note = "a running learnd reads its configuration only when it starts: stop it, and start it again"
        self._log("reload_ignored", signal="SIGHUP", note=note)

    def _give_up(self) -> None:
        time.sleep(GIVE_UP_S)
        if self._nothing_learned:
            os._exit(0)

    def __enter__(self) -> "StopSignals":
        self._on_terminal = has_terminal()
        self._on_screen = [number for number in range(3) if os.isatty(number)]
        self._sockets = write, read = socket.socketpair()
        write.setblocking(False)
        for number in (*STOP_SIGNALS, signal.SIGHUP, *OTHER_SIGNALS):
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # started by nohup
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


def has_terminal() -> bool:
    """Return whether the process has a controlling terminal, which is gone once its window or connection is closed."""
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        os.close(descriptor)
    return True
