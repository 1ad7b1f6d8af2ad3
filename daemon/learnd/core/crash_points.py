"""Named points at which the test suite ends this process as a crash would.

A point costs one look at the environment.
"""

import os
import signal
from collections import Counter

VARIABLE = "LEARND_TEST_KILL_AT"
"""The environment variable that names a point, or ``name:n`` for its n-th pass. Only the test suite sets it."""

_passes: Counter[str] = Counter()


def reached(point: str) -> None:
    """Kill this process if `VARIABLE` names *point*. SIGKILL cannot be caught, so nothing is cleaned up.

    >>> reached("checkpoint.before-rename")
    """
    name, _, pass_number = os.environ.get(VARIABLE, "").partition(":")
    if name != point:
        return
    _passes[point] += 1
    if _passes[point] >= int(pass_number or 1):
        os.kill(os.getpid(), signal.SIGKILL)
