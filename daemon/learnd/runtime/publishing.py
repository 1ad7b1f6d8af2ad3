"""When an export is published, and what is known of the newest one."""

from collections.abc import Callable

import structlog

from learnd.core.errors import ExportError
from learnd.core.schedule import IntervalTrigger
from learnd.core.types import Published, Snapshot, StepResult
from learnd.evaluation.export_loss import FrozenForward
from learnd.export.publisher import Exported, Exporter
from learnd.export.upload import Uploaded
from learnd.observability.metrics import Metrics

log = structlog.get_logger()


class Publishing:
    """Starts exports when they are due, notes how they ended, and evaluates the newest on what comes after it."""

    def __init__(self, exporter: Exporter, *, trigger: IntervalTrigger, metrics: Metrics) -> None:
        self.exporter = exporter
        self.trigger = trigger
        self._metrics = metrics
        self._forward = FrozenForward()
        self.last: Exported | None = None
        """The newest export of this process."""
        self._error = ""
        """The reason why the last export failed; empty if it did not."""
        self._started_samples = 0
        """Samples that the model had learned when its last export was started, or is still to be retried."""
        self._published_samples = 0
        """The same of its last published export."""

    def open(self) -> None:
        """Make the directory, and remove what a crash left unfinished."""
        self.exporter.open()

    def resume(self, exports_before: int) -> None:
        """Find out what this model has published so far: exports up to number *exports_before* are another one's."""
        self._published_samples = self._started_samples = self.exporter.newest_samples(above=exports_before)

    def observe(self, result: StepResult) -> None:
        """Evaluate the newest export on samples that came after it."""
        self._metrics.export_loss.set(self._forward.observe(result))

    def newest_loss(self) -> Published | None:
        """Return how the newest export did on what came after it; None where that is unknown."""
        return self._forward.published()

    def due(self, samples: int) -> bool:
        """Return whether it is time for an export, or one was requested, and none is being built.

        A request that comes meanwhile stays due. It is answered with the weights of the moment at which the exporter
        is free: of several requests the newest wins, and no second copy of the weights waits in memory.
        """
        return self.trigger.due(samples) and not self.exporter.busy()

    def begin(self, snapshot: Callable[[], Snapshot], *, samples: int, urgent: bool = False) -> None:
        """Start an export of *snapshot*, unless exports are off or nothing was learned since the last one."""
        self.trigger.reset(samples)
        if samples <= self._started_samples or not self.exporter.enabled:
            return
        self._started_samples = samples
        self.exporter.begin(snapshot(), urgent=urgent)

    def collect(self) -> None:
        """Note the exports and uploads that ended since the last call."""
        while (exported := self.exporter.outcome()) is not None:
            self._note_exported(exported)
        while (uploaded := self.exporter.uploaded()) is not None:
            self._note_uploaded(uploaded)

    def require_success(self) -> None:
        """Raise `ExportError` if the last export failed."""
        if self._error:
            raise ExportError(f"everything is learned and saved, but the last export failed: {self._error}")

    def _note_exported(self, exported: Exported) -> None:
        if exported.error and not self.exporter.busy():
            # What was not published is still to be published, even if no further sample comes.
            self._started_samples = self._published_samples
        if exported.given_up:
            log.info("export_given_up", number=exported.number, note="superseded by the export made at shutdown")
            return
        self._error = exported.error
        if exported.error:
            self._metrics.export_failures.inc()
            log.error("export_failed", number=exported.number, error=exported.error)
            return
        self.last = exported
        self._published_samples = exported.samples
        self._forward.begin(exported.number, exported.losses)
        if exported.without:
            log.warning("formats_unavailable", number=exported.number, **exported.without)
        self._metrics.exported(exported.number, exported.duration_s)
        fields = {"number": exported.number, "samples": exported.samples, "duration_s": round(exported.duration_s, 3)}
        log.info("export_published", always=True, **fields)

    def _note_uploaded(self, uploaded: Uploaded) -> None:
        if uploaded.error:
            self._metrics.upload_failures.inc()
            log.error("upload_failed", number=uploaded.number, error=uploaded.error)
            return
        self._metrics.uploaded(uploaded.number)
        log.info("export_uploaded", number=uploaded.number, duration_s=round(uploaded.duration_s, 3))
