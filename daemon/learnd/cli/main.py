"""The ``learnd`` command: parses the arguments, runs one command and turns errors into exit codes.

Each command is a module of this package with a function ``execute``. It is imported only when it is chosen, so that
``--help`` imports no TensorFlow.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn, TypeAlias

import learnd
from learnd.core.errors import ConfigError, LearndError, UsageError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n{self.format_usage()}")


_PLACE_HELP = "a configuration, a data_dir or a folder of exports"
_HOLD_HELP = "publish nothing automatically until the next rollback or promote without --hold"
_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (README, "Exit codes")."""
    try:
        options = _parser().parse_args(arguments)
        command = import_module(f"learnd.cli.{options.command}")
        return int(command.execute(options))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except LearndError as error:
        print(f"learnd: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="learnd", description=learnd.__doc__)
    parser.add_argument("--version", action="version", version=f"learnd {learnd.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_run(commands)
    _add_validate(commands)
    _add_schema(commands)
    _add_init(commands)
    _add_inspect(commands)
    _add_predict(commands)
    _add_rollback(commands)
    _add_promote(commands)
    _add_feedback(commands)
    return parser


def _add_run(commands: _Commands) -> None:
    run = commands.add_parser("run", help="learn from the stream until SIGTERM or the end of the stream")
    run.add_argument("config", type=Path, metavar="CONFIG", help="the configuration, a YAML file")
    run.add_argument("--once", action="store_true", help="stop at the offsets that are the end of the stream now")
    run.add_argument("--max-records", type=_positive, metavar="N", help="stop after N records")
    log_help = "log format (default: auto, which is text on a terminal and else json)"
    run.add_argument("--log", choices=("auto", "json", "text"), default="auto", help=log_help)


def _add_validate(commands: _Commands) -> None:
    validate = commands.add_parser("validate", help="check configurations and list every error")
    validate.add_argument("configs", type=Path, metavar="CONFIG", nargs="+", help="a configuration, a YAML file")
    validate.add_argument("--load", action="store_true", help="also load and compile the model (takes seconds)")
    data_help = "also decode the first 1000 records, and show each field and each reason of a reject"
    validate.add_argument("--data", action="store_true", help=data_help)


def _add_schema(commands: _Commands) -> None:
    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration or of a manifest")
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--manifest", action="store_true", help="print the schema of learnd.json, a file of each export")
    form.add_argument("--markdown", action="store_true", help="print the configuration reference as Markdown")


def _add_init(commands: _Commands) -> None:
    init = commands.add_parser("init", help="write a commented example configuration")
    from_help = "write one that fits the records of a file, or of a topic: kafka://HOST:PORT/TOPIC"
    init.add_argument("--from", dest="origin", metavar="DATA", help=from_help)
    path_help = "the file to write (default: learnd.yaml)"
    init.add_argument("path", type=Path, metavar="FILE", nargs="?", default=Path("learnd.yaml"), help=path_help)


def _add_inspect(commands: _Commands) -> None:
    inspect = commands.add_parser("inspect", help="describe an export, or the checkpoints in a data_dir")
    inspect.add_argument("path", type=Path, metavar="PATH", help="the folder of an export, or a data_dir")
    inspect.add_argument("--verify", action="store_true", help="compare every file of an export with its manifest")
    key_help = "with --verify: the public key that must have signed the export"
    inspect.add_argument("--public-key", type=Path, metavar="FILE", help=key_help)


def _add_predict(commands: _Commands) -> None:
    predict = commands.add_parser("predict", help="run an export on records: JSON Lines in, JSON Lines out")
    predict.add_argument("export", type=Path, metavar="EXPORT", help="its folder, such as data/exports/latest")
    predict.add_argument("--format", metavar="NAME", help="the format to run (default: the first that can be run)")
    predict.add_argument("--key", metavar="FIELD", help="field with the name of the machine, for models with windows")
    code_help = "a module to import first, with your own layers of a Keras file"
    predict.add_argument("--code", metavar="MODULE", help=code_help)


def _add_rollback(commands: _Commands) -> None:
    rollback = commands.add_parser("rollback", help="publish the previous export again, under a new number")
    rollback.add_argument("path", type=Path, metavar="CONFIG|EXPORTS_DIR", help=_PLACE_HELP)
    to_help = "the number of the export (default: the newest sound one before the one in use)"
    rollback.add_argument("--to", type=_positive, metavar="N", help=to_help)
    rollback.add_argument("--hold", action="store_true", help=_HOLD_HELP)


def _add_promote(commands: _Commands) -> None:
    promote = commands.add_parser("promote", help="make one export the newest one; without --hold, release a hold")
    promote_help = f"the folder of an export; or, with N, {_PLACE_HELP}"
    promote.add_argument("path", type=Path, metavar="PATH", help=promote_help)
    promote.add_argument("number", type=_positive, metavar="N", nargs="?", help="the number of the export")
    promote.add_argument("--hold", action="store_true", help=_HOLD_HELP)


def _add_feedback(commands: _Commands) -> None:
    feedback = commands.add_parser("feedback", help="say whether an alarm was right; thresholds follow")
    feedback.add_argument("config", type=Path, metavar="CONFIG", help="the configuration of the daemon")
    feedback.add_argument(
        "alarm", metavar="ALARM", nargs="?", help="the id of an alarm, as alarm_sink and the log have it"
    )
    feedback.add_argument(
        "--key", metavar="KEY", help="instead of an alarm: the machine of an anomaly that raised none"
    )
    verdict = feedback.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--anomaly", action="store_true", help="it was an anomaly")
    verdict.add_argument("--no-anomaly", action="store_true", help="it was none; the level in an alarm is accepted now")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count of at least 1")
    return int(text)
