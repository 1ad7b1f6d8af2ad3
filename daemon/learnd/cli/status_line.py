"""The status line of ``learnd run`` on a terminal."""

import contextlib
import math
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from learnd.checkpoint.checkpointer import Saved
from learnd.export.publisher import Exported
from learnd.runtime.intake import spoken_duration
from learnd.runtime.loop import Pipeline

_REFRESH_S = 0.25


class StatusLine:
    """The state at the bottom of the terminal: rate, lag, rejects, loss, skill and what was saved.

    Logs scroll above it. It is one line where the terminal is wide enough, else as many as it takes.
    """

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
            text = "\n".join(rows(self._parts(now_s), self._live.console.width))
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

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

    def _lag(self) -> str:
        lags, catch_up_s = self._pipeline.reader.lags(), self._pipeline.intake.catch_up_s()
        if not lags:
            return "lag -"
        lag = f"lag {sum(lags.values()):,}"
        if catch_up_s == math.inf:
            return f"{lag} and growing"
        return f"{lag}, caught up in {spoken_duration(catch_up_s)}" if catch_up_s > 0.0 else lag

    def _rejected(self) -> str:
        count, share = sum(self._pipeline.status.rejected.values()), self._pipeline.intake.rejected_share()
        return f"{count:,} rejected" + (f", {share:.1%} of the last" if share > 0.0 else "")

    def _export(self, now_s: float) -> str:
        exported, exported_s = self._exported
        if exported:
            return f"export {exported.number}, {spoken_duration(now_s - exported_s)} ago"
        earlier = self._pipeline.publishing.newest
        return f"export {earlier} of an earlier run" if earlier else "no export yet"

    def _parts(self, now_s: float) -> list[str]:
        pipeline, scores = self._pipeline, self._pipeline.status.scores
        saved, saved_s = self._saved
        parts = [
            self._name,
            f"{pipeline.progress.samples:,} samples",
            f"{self._rate_per_s:,.0f}/s",
            self._lag(),
            self._rejected(),
            f"loss {scores.loss:.4f}",
            f"averaged {scores.averaged_loss:.4f}",
            f"skill {pipeline.quality.quality.recent.errors.averaged_skill:.2f}",
            *self._coverage(),
            f"checkpoint {spoken_duration(now_s - saved_s)} ago" if saved else "no checkpoint in this run yet",
            self._export(now_s),
        ]
        if refused := pipeline.publishing.refused:
            parts.append(f"export refused: worse than {refused.reason}")
        if pipeline.saving.failure is not None:
            parts.append(f"{pipeline.saving.failures} checkpoints in a row failed")
        return parts


def rows(parts: Sequence[str], width: int) -> list[str]:
    """Return *parts* in as many rows as a terminal of *width* columns needs, so that nothing is cut off.

    >>> rows(["press", "12 samples", "3/s", "export 7"], 20)
    ['press | 12 samples', '3/s | export 7']
    """
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 3 + len(part) <= width:
            lines[-1] += f" | {part}"
        else:
            lines.append(part)
    return lines
