"""Structured logs: their format, and the limit on repeated events."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, TextIO

import structlog

REPEAT_S = 10.0
"""Minimum time between two log lines for the same event; the second one carries the count of those dropped."""


class RateLimit:
    """A structlog processor that passes each event at most once in `REPEAT_S`, with the count of those dropped.

    Events are the same if their name and their ``reason`` are. Errors always pass, and so does an event logged with
    ``always=True``.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[tuple[str, str], tuple[float, int]] = {}
        """The time of the last line and the number of events dropped since, by event name and reason."""

    def __call__(self, _logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if event.pop("always", False) or method in ("error", "critical", "exception"):
            return event
        key = (str(event.get("event")), str(event.get("reason", "")))
        now_s = self._clock()
        last_s, dropped = self._last.get(key, (-REPEAT_S, 0))
        if now_s - last_s < REPEAT_S:
            self._last[key] = (last_s, dropped + 1)
            raise structlog.DropEvent
        self._last[key] = (now_s, 0)
        if dropped:
            event["held_back"] = dropped
        return event


def configure_logs(*, terminal: bool, name: str, stream: TextIO | None = None) -> None:
    """Send structured logs to standard error (or *stream*): plain text if *terminal*, else JSON.

    What libraries log comes as events of the same form.
    """
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)
    for library in ("kafka", "absl", "tensorflow"):
        logging.getLogger(library).setLevel(logging.ERROR)
    renderer: structlog.dev.ConsoleRenderer | structlog.processors.JSONRenderer = (
        structlog.dev.ConsoleRenderer(colors=False, pad_event_to=24)
        if terminal
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            RateLimit(),
            structlog.contextvars.merge_contextvars,
            _Name(name),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=_LoggerFactory(stream),
        cache_logger_on_first_use=False,
    )


class _Name:
    """A structlog processor that adds the name of the daemon. Context variables would be those of one thread only."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("name", self._name)
        return event


def capture_python_messages() -> None:
    """Log what Python itself would print as plain text: warnings, and errors that nobody handles, on any thread."""
    logging.captureWarnings(True)
    log = structlog.get_logger()

    def of_thread(failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread is not None else None
        error = failure.exc_value or failure.exc_type()
        log.error("thread_failed", thread=name, exc_info=error)

    def unraisable(failure: "sys.UnraisableHookArgs") -> None:
        log.error("error_ignored", note=failure.err_msg, exc_info=failure.exc_value)

    threading.excepthook = of_thread
    sys.unraisablehook = unraisable


class _Forward(logging.Handler):
    """A handler that logs what libraries log, as the event ``library_message``."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the text
            message = str(record.msg)
        method = "error" if record.levelno >= logging.ERROR else "warning"
        fields = {"library": record.name.partition(".")[0], "logger": record.name, "message": message}
        # The reason keeps the limit on repeated events apart by what logs.
        reason = {"reason": record.name} if method == "warning" else {}
        getattr(structlog.get_logger(), method)("library_message", **fields, **reason, exc_info=record.exc_info or None)


@contextlib.contextmanager
def warnings_only() -> Iterator[None]:
    """Send warnings and errors to standard error as plain text, and drop the rest, until the block ends.

    Where structlog is configured already, by the user's program, nothing changes.
    """
    if structlog.is_configured():
        yield
        return
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING), logger_factory=_LoggerFactory(None)
    )
    tensorflow = logging.getLogger("tensorflow")
    level = tensorflow.level
    tensorflow.setLevel(logging.ERROR)  # it warns of deprecations that the user cannot change
    try:
        yield
    finally:
        structlog.reset_defaults()
        tensorflow.setLevel(level)


class _LoggerFactory:
    """A factory whose loggers use the current ``sys.stderr``, so that the status line can redirect it."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def __call__(self, *_: object) -> "_Logger":
        return _Logger(self._stream or sys.stderr)


class _Logger(structlog.PrintLogger):
    """A logger that drops a line it cannot write: a full disk under the log must not end learning."""

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = error = critical = exception = fatal = failure = err = msg
