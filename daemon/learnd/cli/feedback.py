"""``learnd feedback``: say of an alarm that it was none, or that an anomaly raised none."""

import argparse
import os

from learnd.alarms.feedback import FILE, Verdict
from learnd.config.loader import load
from learnd.core.errors import UsageError


def execute(options: argparse.Namespace) -> int:
    """Append the verdict to the file that the daemon reads; return the exit code.

    Raises
    ------
    UsageError
        if there is no data_dir, or not exactly one of an alarm and a key is named.
    """
    settings = load(options.config)
    if (options.alarm is None) == (options.key is None):
        raise UsageError("name either the id of an alarm, or with --key the machine that an anomaly was missed of")
    if options.key is not None and not options.anomaly:
        raise UsageError("--key is for an anomaly that raised no alarm; add --anomaly")
    if not settings.data_dir.is_dir():
        raise UsageError(f"{settings.data_dir} does not exist; run learnd with this configuration first")
    verdict = Verdict(options.anomaly, options.alarm, options.key)
    path = settings.data_dir / FILE
    line = (verdict.as_line() + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)  # one call: two people may append at once
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    print(f"added to {path}; a running learnd uses it within a second, another one when it starts")
    return 0
