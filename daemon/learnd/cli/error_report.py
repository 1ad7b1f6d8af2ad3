"""The report of an error on standard error: text for people, or lines of a JSON log.

It works before logs are configured, and imports nothing that takes time: a second daemon has to end within 2 s.
"""

import json
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime

from learnd.core.errors import ConfigError, LearndError


def logs_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line, even a wrong one, asks for a log in JSON: `learnd run` does unless on a terminal.

    >>> [logs_json(line.split()) for line in ("run --log json", "run a.yaml --log=text", "validate a.yaml")]
    [True, False, False]
    """
    if not arguments or arguments[0] != "run":
        return False
    chosen = [
        argument.removeprefix("--log=") if argument.startswith("--log=") else following
        for argument, following in zip(arguments, [*arguments[1:], ""], strict=True)
        if argument == "--log" or argument.startswith("--log=")
    ]
    return chosen[-1] == "json" if chosen and chosen[-1] in ("json", "text") else not sys.stderr.isatty()


def report_error(error: Exception, exit_code: int, *, as_json: bool) -> None:
    """Print *error* to standard error. One that learnd did not raise on purpose is printed with its traceback."""
    if not as_json:
        if isinstance(error, ConfigError):
            print(error, file=sys.stderr)
        elif isinstance(error, LearndError):
            print(f"learnd: {error}", file=sys.stderr)
        else:
            traceback.print_exception(error)
            words = "a file could not be read or written" if isinstance(error, OSError) else "an internal error"
            print(f"learnd: {words} (exit code {exit_code}); report a defect with these lines", file=sys.stderr)
        return
    if isinstance(error, ConfigError):
        for problem in error.problems:
            place = {"file": problem.file, "line": problem.line, "key": problem.path}
            _write("configuration_error", error=problem.message, **{name: part for name, part in place.items() if part})
    if isinstance(error, LearndError):
        _write("stopped", error=str(error), exit_code=exit_code)
    else:
        _write("crashed", exit_code=exit_code, exception="".join(traceback.format_exception(error)))


def _write(event: str, **fields: object) -> None:
    """Write one line with the fields that structlog's lines have."""
    line = {**fields, "event": event, "level": "error", "timestamp": datetime.now(UTC).isoformat()}
    print(json.dumps(line), file=sys.stderr, flush=True)
