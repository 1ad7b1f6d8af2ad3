"""``python -m learnd.export_worker.bootstrap PARENT FOLDER [--nice]``: the worker, bound to its parent's life first.

The parent stops its child most of the time, and a stopped process that lost its parent stays for ever. So the kernel
is asked for a SIGKILL when the parent ends, before TensorFlow's seconds of imports, and a line on standard output tells
the parent that it may begin to stop this process.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Build one export; exit status and last line on standard error are those of `learnd.export_worker.worker`."""
    parent, *rest = arguments
    die_with(int(parent))
    print(flush=True)  # noqa: T201 - the parent waits for it
    from learnd.export_worker.worker import main as build  # noqa: PLC0415 - seconds, in which the parent may die

    return build(rest)


def die_with(parent: int) -> None:
    """Ask Linux for SIGKILL when process *parent* ends, however it ends (prctl(2)); end now if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the parent is gone")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
