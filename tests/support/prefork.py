"""Starts of ``learnd`` without its imports: one process has imported all of it, and forks a child for each start.

Importing TensorFlow, Keras and learnd takes three to six seconds of processor time, and the suite starts some hundred
daemons. The server imports, runs no operation, starts no thread and forks. So a child is what a new process is after
its imports: nothing of TensorFlow has been set up, and each child has its own process number, environment, working
directory, output and signals. It ends through the interpreter's ordinary end.

It differs from the installed command in what happens before ``main``: its command line and its environment in ``/proc``
are the server's, and the children of one server share its hash seed. Tests for which that matters, or that have the
imports themselves as their subject, start the installed command (``Daemon(..., installed=True)``).
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_LENGTH = struct.Struct("!I")
_STATUS = struct.Struct("!i")
_READ_BEFORE_MAIN = ("PYTHON", "LD_", "OMP_", "OPENBLAS_", "MALLOC_", "KERAS_", "CUDA_", "TF_CPP", "TF_ENABLE")
"""Variables with these beginnings act on a process before `main`; a fork would come too late for them."""


def early(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of *environ* that a forked child must share with its server."""
    return {name: value for name, value in environ.items() if name.startswith(_READ_BEFORE_MAIN)}


class ForkedProcess:
    """The parts of `subprocess.Popen` that tests use, for a child of the server."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        """The reading end of a pipe that the server writes the exit status to."""

    def poll(self) -> int | None:
        return self._wait(0.0)

    def wait(self, timeout: float | None = None) -> int:
        if self._wait(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def _wait(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout_s)[0]:
            written = os.read(self._status, _STATUS.size)
            os.close(self._status)
            if not written:
                raise RuntimeError(f"the server of process {self.pid} is gone, and its exit status with it")
            self.returncode = _STATUS.unpack(written)[0]
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The process that forks, seen from the tests; it is started at once and ends with the last client."""

    def __init__(self) -> None:
        self.early = early(os.environ)
        self._lock = threading.Lock()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - until close
        self._socket, theirs = socket.socketpair()
        command = [sys.executable, "-P", __file__, str(theirs.fileno())]
        environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": self._errors}
        # The tests may run under nohup, whose ignored SIGHUP daemons would inherit and respect.
        quiet["preexec_fn"] = lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environ, **quiet)
        theirs.close()

    def start(
        self, arguments: Sequence[str], *, standard: Sequence[int], environ: Mapping[str, str], cwd: Path
    ) -> ForkedProcess:
        """Start ``learnd`` with *arguments* and the file descriptors *standard* for its input, output and errors."""
        request = json.dumps({"arguments": arguments, "environ": dict(environ), "cwd": str(cwd)}).encode()
        status, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._socket, [_LENGTH.pack(len(request))], [*standard, theirs])
                self._socket.sendall(request)
                answer = self._socket.recv(_LENGTH.size, socket.MSG_WAITALL)
        finally:
            os.close(theirs)
        if len(answer) != _LENGTH.size:
            self._errors.seek(0)
            raise RuntimeError(f"the server of forked daemons ended: {self._errors.read().decode(errors='replace')}")
        return ForkedProcess(_LENGTH.unpack(answer)[0], status)

    def close(self) -> None:
        """End the server, and wait for it: its processor time and that of all its children count as this process'."""
        self._socket.close()
        self._process.wait()
        self._errors.close()


_server: Server | None = None


def server() -> Server:
    """Return the server of this process, started by the first who asks."""
    global _server
    if _server is None:
        _server = Server()
    return _server


def stop() -> None:
    """End the server of this process, if there is one."""
    global _server
    if _server is not None:
        _server.close()
        _server = None


def _serve(requests: socket.socket) -> list[str] | None:
    """Fork for each request. Returns in the children, with their arguments, and None in the server, at its end."""
    children: dict[int, tuple[int, int]] = {}
    while True:
        for ready in select.select([requests, *children], [], [])[0]:
            if ready is not requests:
                pid, status = children.pop(ready)
                os.close(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with contextlib.suppress(BrokenPipeError):  # nobody asks any more
                    os.write(status, _STATUS.pack(code))
                os.close(status)
                continue
            head, descriptors, _, _ = socket.recv_fds(requests, _LENGTH.size, 4)
            if len(head) < _LENGTH.size:
                for descriptor, (pid, _) in children.items():  # as after a start by hand, none outlives the tests
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    os.waitpid(pid, 0)
                return None
            request = json.loads(requests.recv(_LENGTH.unpack(head)[0], socket.MSG_WAITALL))
            *standard, status = descriptors
            pid = os.fork()
            if pid == 0:
                for descriptor in (status, *children, *(status for _, status in children.values())):
                    os.close(descriptor)
                requests.close()
                _become(request, standard)
                return list(request["arguments"])
            for descriptor in standard:
                os.close(descriptor)
            children[os.pidfd_open(pid)] = (pid, status)
            requests.sendall(_LENGTH.pack(pid))


def _become(request: Mapping[str, Any], standard: Sequence[int]) -> None:
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.argv = ["learnd", *request["arguments"]]


def _import_all() -> None:
    """Import what ``learnd run`` imports on its way."""
    import learnd.cli.status_line  # noqa: PLC0415
    import learnd.config.loader  # noqa: PLC0415
    import learnd.observability.http  # noqa: PLC0415
    import learnd.sources.kafka  # noqa: PLC0415
    import learnd.wiring.pipeline  # noqa: F401, PLC0415
    from learnd.alarms.monitor import compile_heads  # noqa: PLC0415

    compile_heads()  # else every start loads Numba's machine code from its cache, in a quarter of a second


if __name__ == "__main__":
    from learnd.cli.main import main

    sys.path.insert(0, str(Path(sys.executable).parent))  # as the installed command has it
    _import_all()
    gc.freeze()  # the children need not look through the imports
    started = _serve(socket.socket(fileno=int(sys.argv[1])))
    if started is not None:
        sys.exit(main(started))
