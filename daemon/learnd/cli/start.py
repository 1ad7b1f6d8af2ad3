"""The entry point of the installed command: an interrupt during the first imports ends it without a traceback."""

import os
import signal
from typing import NoReturn

INTERRUPTED = 130


def main() -> int:
    """Run the command line; return the exit code."""
    signal.signal(signal.SIGINT, _quit)
    from learnd.cli import main as command_line

    code = command_line.main(on_imported=_take_interrupts)
    # The interpreter's end takes up to a second; an interrupt or a closed terminal then changes nothing any more.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return code


def _take_interrupts() -> None:
    """Let the command handle interrupts from now on. Within an import, an exception might be taken for its failure."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _quit(*_: object) -> NoReturn:
    os._exit(INTERRUPTED)
