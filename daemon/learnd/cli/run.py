"""``learnd run``: learns from the stream until it ends or a stop is requested."""

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING

import learnd
from learnd.cli.error_report import report_error
from learnd.cli.native_logs import silence_native_logs
from learnd.cli.signals import StopSignals
from learnd.cli.surroundings import check_surroundings
from learnd.config.loader import load
from learnd.config.locate import located
from learnd.config.settings import Settings
from learnd.core.errors import FINAL_EXIT_CODES, BadDataError, ConfigError, LearndError, UsageError
from learnd.runtime.data_dir_lock import DataDirLock

if TYPE_CHECKING:
    from learnd.observability.http import HttpServer
    from learnd.runtime.loop import Pipeline
    from learnd.runtime.progress import Progress, RunStatus

STALLED_S = 60.0
"""`/livez` returns 503 when the main loop has not completed a round for this long."""


def execute(options: argparse.Namespace) -> int:
    """Learn from the stream as *options* say; return the exit code."""
    if options.final_exit_code is None:
        return _run(options)
    try:
        code = _run(options)
    except LearndError as error:
        code = error.exit_code
        terminal = options.log == "text" or (options.log == "auto" and sys.stderr.isatty())
        report_error(error, code, as_json=not terminal)
    return int(options.final_exit_code) if code in FINAL_EXIT_CODES else code


def _run(options: argparse.Namespace) -> int:
    settings = load(options.config)
    if options.once and settings.source.kind == "simulator" and settings.source.records is None:
        raise UsageError("--once needs a stream with an end: set source.records, or use --max-records instead")
    terminal = sys.stderr.isatty() if options.log == "auto" else options.log == "text"
    stop = StopSignals()
    with DataDirLock(settings.data_dir), stop:
        # Heavy imports come after the lock, because a second daemon has to end within 2 s.
        from learnd.observability.logs import capture_python_messages, configure_logs

        configure_logs(terminal=terminal, name=settings.name)
        capture_python_messages()
        try:
            check_surroundings(settings)  # what building the model would find too, but seconds later
            return _learn(settings, options, stop, status_line=terminal and sys.stderr.isatty())
        except ConfigError as error:
            raise located(error, options.config) from error


def _learn(settings: Settings, options: argparse.Namespace, stop: StopSignals, *, status_line: bool) -> int:
    import structlog

    log = structlog.get_logger()
    stop.log_to(log.info)
    log.info("starting", version=learnd.__version__, config=str(options.config), data_dir=str(settings.data_dir))
    with silence_native_logs():
        from learnd.wiring.learner import configure_tensorflow
        from learnd.wiring.pipeline import make_pipeline
    from learnd.cli.status_line import StatusLine
    from learnd.runtime.loop import run

    configure_tensorflow(settings.learning)
    pipeline = make_pipeline(settings, once=options.once, max_records=options.max_records)
    server = _http_server(settings, pipeline)
    server.open()
    log.info("http_listening", host=settings.http.host, port=server.port)
    try:
        with StatusLine(pipeline, settings.name, enabled=status_line) as line:
            run(pipeline, stopping=stop.received, on_open=stop.require_save, on_batch=line.update)
    except LearndError as error:
        shown = located(error, options.config) if isinstance(error, ConfigError) else error
        log.error("stopped", error=str(shown), exit_code=error.exit_code)
        return error.exit_code
    except Exception:
        log.exception("crashed", exit_code=LearndError.exit_code)
        return LearndError.exit_code
    finally:
        server.close()
    exit_code = 0 if stop.received() else verdict(pipeline.progress, pipeline.status, settings.decode.max_rejected)
    if pipeline.targets.never_seen:  # after a stop too: a stream of Kafka does not end by itself
        exit_code = BadDataError.exit_code
        pipeline.targets.report(exit_code=exit_code)
    _log_finish(settings, pipeline, exit_code)
    return exit_code


def _http_server(settings: Settings, pipeline: "Pipeline") -> "HttpServer":
    from learnd.observability.http import HttpServer

    return HttpServer(
        host=settings.http.host,
        port=settings.http.port,
        registry=pipeline.metrics.registry,
        live=lambda: liveness(pipeline),
        ready=pipeline.readiness,
    )


_READ_AGAIN = "to read them again with a corrected configuration, start with another data_dir, or delete this one"


def verdict(progress: "Progress", status: "RunStatus", max_rejected: float) -> int:
    """Return the exit code of a run that ended by itself.

    Log an error if records came and none was learned, or if a larger share than *max_rejected* was rejected. Records
    that an earlier run could not use are not read again, so a corrected configuration alone would change nothing.
    """
    import structlog

    log = structlog.get_logger()
    records, samples = progress.records - status.began.records, progress.samples - status.began.samples
    rejected, reasons = sum(status.rejected.values()), _reasons(status)
    what_to_do = {
        "exit_code": BadDataError.exit_code,
        "first_rejects": {reason.value: detail for reason, detail in status.first_rejects.items()},
        "note": "first_rejects name fields and options; `learnd validate --data CONFIG` shows what the records hold",
    }
    if not progress.usable:
        what_to_do["note"] = f"{what_to_do['note']}; {_READ_AGAIN}"
    if not records and status.began.records and not progress.usable:
        log.error(
            "nothing_learned",
            records=0,
            records_before=status.began.records,
            exit_code=BadDataError.exit_code,
            note=f"no record is new, and earlier runs could use none of those before; {_READ_AGAIN}",
        )
        return BadDataError.exit_code
    if reasons and not samples:  # without any reason, records wait for a micro-batch to be full
        log.error("nothing_learned", records=records, **reasons, **what_to_do)
        return BadDataError.exit_code
    if rejected > max_rejected * max(records, 1):
        share = round(rejected / max(records, 1), 6)
        log.error("too_many_rejected", records=records, share=share, max_rejected=max_rejected, **reasons, **what_to_do)
        return BadDataError.exit_code
    return 0


def _reasons(status: "RunStatus") -> dict[str, dict[str, int]]:
    return {name: dict(by_reason) for name in ("rejected", "skipped") if (by_reason := getattr(status, name))}


def _log_finish(settings: Settings, pipeline: "Pipeline", exit_code: int) -> None:
    """Log what this process learned."""
    import structlog

    from learnd.cli.export_summary import export_summary

    log = structlog.get_logger()
    progress, status = pipeline.progress, pipeline.status
    began, scores, quality, published = (
        status.began,
        status.scores,
        pipeline.quality.quality,
        pipeline.quality.published,
    )
    errors = quality.recent.errors
    counts = {name: getattr(progress, name) - getattr(began, name) for name in ("records", "samples", "updates")}
    log.info(
        "finished",
        **counts,
        model_samples=progress.samples,
        **_reasons(status),
        **({"truths": dict(status.truths)} if status.truths else {}),
        exit_code=exit_code,
        **_rounded(loss=scores.loss, averaged_loss=scores.averaged_loss, absolute_error=scores.absolute_error),
        **_rounded(
            skill=errors.live_skill,
            averaged_skill=errors.averaged_skill,
            export_skill=math.nan if published is None else published.skill,
            naive_error=errors.naive,
        ),
        recent=_rounded(**quality.recent.measures),
        fading=_rounded(**quality.fading.measures),
        since_start=_rounded(**quality.total.measures),
        **export_summary(pipeline, truths_known=settings.task.naive_in_exports),
        data_dir=str(settings.data_dir),
    )


def _rounded(**figures: float) -> dict[str, float | None]:
    """Round figures for a log line. NaN and infinity become None, because JSON has neither.

    >>> _rounded(a=0.12345678, b=float("nan"))
    {'a': 0.123457, 'b': None}
    """
    return {name: round(figure, 6) if math.isfinite(figure) else None for name, figure in figures.items()}


def liveness(pipeline: "Pipeline") -> tuple[bool, str]:
    """Return whether the main loop is running, and a sentence that says why."""
    if pipeline.status.beat_s is None:
        return True, "starting"
    idle_s = time.monotonic() - pipeline.status.beat_s
    return idle_s < STALLED_S, f"the main loop completed its last round {idle_s:.1f} s ago"
