"""The status line of ``learnd run`` on a terminal."""

import contextlib
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from learnd.checkpoint.checkpointer import Saved
from learnd.export.publisher import Exported
from learnd.runtime.loop import Pipeline

_REFRESH_S = 0.25


class StatusLine:
    """One line at the bottom of the terminal, with rate, lag, loss, skill and what was saved. Logs scroll above it."""

    def __init__(self, pipeline: Pipeline, name: str, *, enabled: bool) -> None:
        self._pipeline = pipeline
        self._name = name
        self._live: Live | None = None
        if enabled:
            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
        self._last_s = time.monotonic()
        self._last_records: int | None = None
        self._rate_per_s = 0.0
        self._saved: tuple[Saved | None, float] = (None, 0.0)
        self._exported: tuple[Exported | None, float] = (None, 0.0)

    def __enter__(self) -> "StatusLine":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            with contextlib.suppress(OSError):
                self._live.stop()

    def update(self) -> None:
        """Show the current state. Calls within `_REFRESH_S` of the last refresh do nothing."""
        now_s = time.monotonic()
        if self._live is None or now_s - self._last_s < _REFRESH_S:
            return
        self._observe(now_s)
        with contextlib.suppress(OSError):  # the terminal was closed
            self._live.update(Text(self._text(now_s), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _observe(self, now_s: float) -> None:
        """Update the rate, and the times of the last checkpoint and export."""
        pipeline = self._pipeline
        records = pipeline.progress.records
        if self._last_records is not None:
            rate = (records - self._last_records) / (now_s - self._last_s)
            self._rate_per_s = 0.8 * self._rate_per_s + 0.2 * rate if self._rate_per_s else rate
        self._last_s, self._last_records = now_s, records
        if pipeline.saving.last is not self._saved[0]:
            self._saved = (pipeline.saving.last, now_s)
        if pipeline.publishing.last is not self._exported[0]:
            self._exported = (pipeline.publishing.last, now_s)

    def _coverage(self) -> list[str]:
        """Return the recent share of truths within their intervals, if there are any."""
        share = self._pipeline.quality.quality.recent.measures.get("interval_coverage")
        return [] if share is None else [f"{share:.0%} in intervals"]

    def _text(self, now_s: float) -> str:
        pipeline, scores = self._pipeline, self._pipeline.status.scores
        lags = pipeline.reader.lags()
        saved, saved_s = self._saved
        exported, exported_s = self._exported
        parts = [
            self._name,
            f"{pipeline.progress.samples:,} samples",
            f"{self._rate_per_s:,.0f}/s",
            f"lag {sum(lags.values()):,}" if lags else "lag -",
            f"loss {scores.loss:.4f}",
            f"averaged {scores.averaged_loss:.4f}",
            f"skill {pipeline.quality.quality.recent.errors.averaged_skill:.2f}",
            *self._coverage(),
            f"checkpoint {now_s - saved_s:.0f} s ago" if saved else "no checkpoint in this run yet",
            f"export {exported.number}, {now_s - exported_s:.0f} s ago" if exported else "no export in this run yet",
        ]
        if refused := pipeline.publishing.refused:
            parts.append(f"export refused: worse than {refused.reason}")
        return " | ".join(parts)
