"""The commands. The only place that touches signals and the terminal."""

import argparse
import contextlib
import json
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import learnd
from learnd.core.errors import ConfigError, ExportDamagedError, LearndError, UsageError

if TYPE_CHECKING:
    from learnd.config.settings import Settings
    from learnd.runtime.loop import Pipeline

INTERNAL_ERROR = 70
USAGE_ERROR = 64
BAD_INPUT = 65
_STOPS = (signal.SIGTERM, signal.SIGINT)
GIVE_UP_S = 5.0
"""A stop before anything was learned waits so long for the model to be compiled or the broker to be found."""
STALLED_S = 60.0
"""`/livez` turns red when the main loop has not come round for so long."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        raise UsageError(f"{message}\n{self.format_usage()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (README, "Exit codes")."""
    try:
        options = _parser().parse_args(arguments)
        return int(options.command(options))
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
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", required=True, parser_class=_Parser)

    run = commands.add_parser("run", help="learn from the stream until SIGTERM or its end")
    run.add_argument("config", type=Path, metavar="CONFIG", help="the configuration, a YAML file")
    run.add_argument("--once", action="store_true", help="stop at the offsets that are the end now")
    run.add_argument("--max-records", type=_positive, metavar="N", help="stop after N records")
    run.add_argument("--log", choices=("auto", "json", "text"), default="auto", help="form of the logs")
    run.set_defaults(command=_run)

    validate = commands.add_parser("validate", help="say what is wrong with a configuration")
    validate.add_argument("configs", type=Path, metavar="CONFIG", nargs="+", help="YAML files")
    validate.add_argument("--load", action="store_true", help="make, load and compile the model too (takes seconds)")
    validate.set_defaults(command=_validate)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration, or of a manifest")
    form = schema.add_mutually_exclusive_group()
    form.add_argument("--manifest", action="store_true", help="of learnd.json, which lies in every export")
    form.add_argument("--markdown", action="store_true", help="of the configuration, as a page to read")
    schema.set_defaults(command=_schema)

    init = commands.add_parser("init", help="write a commented configuration to start from")
    init.add_argument("path", type=Path, metavar="FILE", nargs="?", default=Path("learnd.yaml"), help="learnd.yaml")
    init.set_defaults(command=_init)

    inspect = commands.add_parser("inspect", help="show an export, or the checkpoints of a data_dir")
    inspect.add_argument("path", type=Path, metavar="PATH", help="the folder of an export, or a data_dir")
    inspect.add_argument("--verify", action="store_true", help="compare every file of an export with its manifest")
    inspect.add_argument("--public-key", type=Path, metavar="FILE", help="with --verify: whose signature it must bear")
    inspect.set_defaults(command=_inspect)

    predict = commands.add_parser("predict", help="what an export says of records: JSON Lines in, JSON Lines out")
    predict.add_argument("export", type=Path, metavar="EXPORT", help="its folder, such as data/exports/latest")
    predict.add_argument("--format", metavar="NAME", help="which of its formats to run (default: the first)")
    predict.add_argument("--key", metavar="FIELD", help="the field that names the machine, for models of windows")
    predict.add_argument("--code", metavar="MODULE", help="imported first: that of your own layers in a Keras file")
    predict.set_defaults(command=_predict)
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count of at least 1")
    return int(text)


def _schema(options: argparse.Namespace) -> int:
    from learnd.config.loader import json_schema

    if options.manifest:
        from learnd.export.manifest_schema import SCHEMA_FILE

        print(SCHEMA_FILE.read_text(encoding="utf-8"), end="")
        return 0
    if options.markdown:
        from learnd.config.reference_page import markdown

        print(markdown(json_schema()), end="")
        return 0
    print(json.dumps(json_schema(), indent=2))
    return 0


def _validate(options: argparse.Namespace) -> int:
    from learnd.config.loader import load

    failed = 0
    for path in options.configs:
        try:
            settings = load(path)
            made = f": {_made(settings)}" if options.load else ""
        except ConfigError as error:
            print(error, file=sys.stderr)
            failed = error.exit_code
        else:
            print(f"{path}: good ({settings.task.kind} with {settings.model.kind} from {settings.source.kind}){made}")
    return failed


def _made(settings: "Settings") -> str:
    from learnd.observability.metrics import configure_logs

    configure_logs(terminal=True, name=settings.name)
    with _quiet_native_logs():
        from learnd.wiring.pipeline import check

    return check(settings)


def _init(options: argparse.Namespace) -> int:
    starter = resources.files("learnd.config").joinpath("starter.yaml").read_text(encoding="utf-8")
    try:
        with options.path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        raise UsageError(f"{options.path} exists; name another file, or take it away first") from None
    except OSError as error:
        raise UsageError(f"{options.path} cannot be written: {error.strerror}") from None
    print(f"wrote {options.path}; next: learnd run {options.path}")
    return 0


def _inspect(options: argparse.Namespace) -> int:
    if options.public_key is not None and not options.verify:
        raise UsageError("--public-key is what --verify checks a signature with; add --verify")
    if options.verify:
        from learnd.export.audit import audit

        found = audit(options.path, options.public_key)
        print(json.dumps(found.to_dict(), indent=2))
        if not found.sound:
            raise ExportDamagedError(f"{options.path} is not what was published: {found.findings()}")
        return 0
    with _quiet_native_logs():
        from learnd.cli.inspect import describe

    print(json.dumps(describe(options.path), indent=2, default=str))
    return 0


def _predict(options: argparse.Namespace) -> int:
    with _quiet_native_logs():
        from learnd.cli.predict import Predictor
        from learnd.core.registry import load_object

        if options.code is not None:
            load_object(options.code, "--code")
        predictor = Predictor(options.export, options.format, key=options.key)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        predictor.run(sys.stdin.buffer, sys.stdout, sys.stderr)
    return BAD_INPUT if predictor.rejected else 0


def _run(options: argparse.Namespace) -> int:
    from learnd.config.loader import load
    from learnd.runtime.data_dir_lock import DataDirLock

    settings = load(options.config)
    if options.once and settings.source.kind == "simulator" and settings.source.records is None:
        raise UsageError("--once needs an end: set source.records, or use --max-records")
    terminal = sys.stderr.isatty() if options.log == "auto" else options.log == "text"
    stop = _StopSignals()
    with DataDirLock(settings.data_dir), stop:
        # Not before the lock is ours: NumPy comes with it, and a second daemon has to end within 2 s.
        from learnd.observability.metrics import configure_logs

        configure_logs(terminal=terminal, name=settings.name)
        return _learn(settings, options, stop, live_line=terminal and sys.stderr.isatty())


def _learn(settings: "Settings", options: argparse.Namespace, stop: "_StopSignals", *, live_line: bool) -> int:
    import structlog

    log = structlog.get_logger()
    log.info("starting", version=learnd.__version__, config=str(options.config), data_dir=str(settings.data_dir))
    with _quiet_native_logs():
        from learnd.wiring.pipeline import configure_tensorflow, make_pipeline
    from learnd.cli.status_line import LiveLine
    from learnd.observability.http import HttpServer
    from learnd.runtime.loop import run

    configure_tensorflow(settings.learning)
    pipeline = make_pipeline(settings, once=options.once, max_records=options.max_records)
    server = HttpServer(
        host=settings.http.host,
        port=settings.http.port,
        registry=pipeline.metrics.registry,
        live=lambda: _alive(pipeline),
        ready=pipeline.readiness,
    )
    server.open()
    log.info("http_listening", host=settings.http.host, port=server.port)
    try:
        with LiveLine(pipeline, settings.name, enabled=live_line) as line:
            run(pipeline, stopping=stop.received, on_open=stop.wait_for_the_save, on_batch=line.update)
    except LearndError as error:
        log.error("stopped", error=str(error), exit_code=error.exit_code)
        return error.exit_code
    except Exception:
        log.exception("crashed", exit_code=INTERNAL_ERROR)
        return INTERNAL_ERROR
    finally:
        server.close()
    progress, began, judged = pipeline.progress, pipeline.began, pipeline.signal
    counts = {name: getattr(progress, name) - getattr(began, name) for name in ("records", "samples", "updates")}
    reasons = {name: dict(found) for name in ("rejected", "skipped") if (found := getattr(pipeline, name))}
    if reasons and not counts["samples"]:  # without a reason they wait for a micro-batch to be full
        log.error("nothing_learned", records=counts["records"], **reasons)
    log.info(
        "finished",
        **counts,
        model_samples=progress.samples,
        **reasons,
        **_rounded(loss=judged.loss, averaged_loss=judged.averaged_loss, absolute_error=judged.absolute_error),
        data_dir=str(settings.data_dir),
    )
    return 0


def _rounded(**figures: float) -> dict[str, float | None]:
    """Figures for a log line; None where there is none yet, because JSON has no NaN.

    >>> _rounded(a=0.12345678, b=float("nan"))
    {'a': 0.123457, 'b': None}
    """
    return {name: round(figure, 6) if math.isfinite(figure) else None for name, figure in figures.items()}


def _alive(pipeline: "Pipeline") -> tuple[bool, str]:
    if pipeline.beat_s is None:
        return True, "starting"
    idle_s = time.monotonic() - pipeline.beat_s
    return idle_s < STALLED_S, f"the main loop came round {idle_s:.1f} s ago"


class _StopSignals:
    """SIGTERM and SIGINT ask for a clean end; a second one ends at once.

    A thread takes them from a socket that the system writes to, because Python's own handlers wait until the main
    thread comes back from C++, and compiling a large model takes longer than the end may.
    """

    def __init__(self) -> None:
        self._received = False
        self._nothing_learned = True
        self._before: dict[int, Any] = {}
        self._sockets: tuple[socket.socket, socket.socket] | None = None

    def received(self) -> bool:
        return self._received

    def wait_for_the_save(self) -> None:
        """From now on there is something to lose: no end before it is saved."""
        self._nothing_learned = False

    def _listen(self, wakeups: socket.socket) -> None:
        while numbers := wakeups.recv(64):
            for number in numbers:
                if number in _STOPS:
                    self._stop(number)

    def _stop(self, number: int) -> None:
        if self._received:
            os._exit(128 + number)
        self._received = True
        if self._nothing_learned:
            threading.Thread(target=self._give_up, name="learnd-stop", daemon=True).start()

    def _give_up(self) -> None:
        time.sleep(GIVE_UP_S)
        if self._nothing_learned:
            os._exit(0)

    def __enter__(self) -> "_StopSignals":
        self._sockets = write, read = socket.socketpair()
        write.setblocking(False)
        for number in _STOPS:
            self._before[number] = signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(read,), name="learnd-signals", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._sockets is not None:
            self._sockets[0].close()  # ends the thread


@contextlib.contextmanager
def _quiet_native_logs() -> Iterator[None]:
    """Keeps what TensorFlow's C++ writes while it is imported off the terminal; Python's errors still show."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
