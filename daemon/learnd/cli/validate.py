"""``learnd validate``: every error in one or more configurations."""

import argparse
import sys

from learnd.cli.native_logs import silence_native_logs
from learnd.config.loader import load
from learnd.config.settings import Settings
from learnd.core.errors import BadDataError, ConfigError, LearndError


def execute(options: argparse.Namespace) -> int:
    """Check each configuration; return the exit code."""
    exit_code = 0
    for path in options.configs:
        try:
            settings = load(path)
            model = f": {_build(settings)}" if options.load else ""
        except ConfigError as error:
            print(error, file=sys.stderr)
            exit_code = error.exit_code
            continue
        print(f"{path}: good ({settings.task.kind} with {settings.model.kind} from {settings.source.kind}){model}")
        if options.data:
            exit_code = _look_at_data(settings) or exit_code
    return exit_code


def _look_at_data(settings: Settings) -> int:
    """Print what the first records hold; return the exit code."""
    from learnd.cli.data_report import report
    from learnd.observability.logs import configure_logs

    configure_logs(terminal=True, name=settings.name)
    try:
        found = report(settings)
    except LearndError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(found.text)
    return BadDataError.exit_code if found.rejected > settings.decode.max_rejected * found.records else 0


def _build(settings: Settings) -> str:
    """Build and compile the model; return a description of it."""
    from learnd.observability.logs import configure_logs

    configure_logs(terminal=True, name=settings.name)
    with silence_native_logs():
        from learnd.wiring.pipeline import check

    return check(settings)
