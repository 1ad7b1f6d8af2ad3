"""Entry point of the export process: ``python -m learnd.export_worker.bootstrap PARENT FOLDER [--nice]``.

It binds the process to the life of its parent, then starts the worker. The parent stops its child most of the time, and
a stopped process that lost its parent would stay forever. Therefore the process asks the kernel for a SIGKILL at the
parent's end, before it spends seconds on importing TensorFlow. A line on standard output then tells the parent that it
may start to stop this process.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Build one export; exit status and last line on standard error are those of `learnd.export_worker.worker`."""
    parent, *rest = arguments
    end_with_parent(int(parent))
    print(flush=True)  # noqa: T201 - the parent waits for it
    from learnd.export_worker.worker import main as build  # noqa: PLC0415 - takes seconds, in which the parent may end

    return build(rest)


def end_with_parent(parent: int) -> None:
    """Ask Linux for SIGKILL when process *parent* ends for any reason (prctl(2)); exit now if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent process has ended")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
