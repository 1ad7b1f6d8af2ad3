"""The schedule and the outcomes of exports."""

from collections.abc import Callable
from dataclasses import replace

import structlog

from learnd.core.errors import ExportError
from learnd.core.quality import Compared, Measure
from learnd.core.schedule import IntervalTrigger
from learnd.core.snapshot import Published, Snapshot
from learnd.core.types import StepResult
from learnd.evaluation.export_loss import FrozenForward
from learnd.export.gate import Refusal
from learnd.export.publisher import Exported, Exporter
from learnd.export.rehearsal import Rehearsal
from learnd.export.upload import Uploaded
from learnd.observability.metrics import Metrics

log = structlog.get_logger()


class Publishing:
    """Exports that start when they are due. Their outcomes are recorded, and the newest is evaluated on later
    samples."""

    def __init__(
        self,
        exporter: Exporter,
        *,
        trigger: IntervalTrigger,
        metrics: Metrics,
        measure: Measure | None = None,
        rehearsal: Rehearsal | None = None,
    ) -> None:
        self.exporter = exporter
        self._rehearsal = rehearsal
        self.trigger = trigger
        self._metrics = metrics
        self._forward = FrozenForward(measure)
        self.last: Exported | None = None
        """The newest export of this process."""
        self.newest = 0
        """The number of this model's newest export; 0 without one."""
        self._error = ""
        """The error of the last export; empty if it succeeded."""
        self.refused: Refusal | None = None
        """The last refusal of the gate since the newest export of this process."""
        self._held = False
        self._last_began = False
        """True once the last export of this process was started."""
        self._exports_before = 0
        """Exports up to this number belong to another model."""
        self._started_samples = 0
        """Samples learned when the last export was started; after a failure, those of the last published export."""
        self._published_samples = 0
        """Samples learned when the last published export was started."""

    def open(self) -> None:
        """Create the directory, and remove incomplete exports of a crashed process."""
        self.exporter.open()

    def begin_rehearsal(self, *, fresh: bool) -> None:
        """Start to find out which formats the model cannot have; see `learnd.export.rehearsal`."""
        if self._rehearsal is not None:
            self._rehearsal.begin(fresh=fresh)

    def finish_rehearsal(self, stopping: Callable[[], bool]) -> bool:
        """Wait for the rehearsal, and leave out what the model cannot have; return False if *stopping* came first.

        Raises
        ------
        ConfigError
            if no format is left.
        """
        if self._rehearsal is None:
            return True
        unavailable = self._rehearsal.finish(stopping)
        if unavailable is None:
            return False
        if unavailable:
            self.exporter.leave_out(unavailable)
        return True

    def resume(self, exports_before: int) -> None:
        """Find this model's newest export. Exports up to number *exports_before* belong to another model."""
        self._exports_before = exports_before
        self._published_samples = self._started_samples = self.exporter.newest_samples(above=exports_before)
        published = self.exporter.newest_published(above=exports_before)
        if published is not None:
            self.newest = published[0]
            self._metrics.found_exported(*published)
        champion = self.exporter.champion(above=exports_before)
        if champion is not None:
            self._forward.begin(*champion)
            log.info("champion_restored", number=champion[0], note="the gate compares the next exports with it")

    def observe(self, result: StepResult, compared: Compared | None = None) -> None:
        """Evaluate the newest export on the samples of *result*, which arrived after it."""
        self._metrics.export_loss.set(self._forward.observe(result, compared))

    def published(self) -> Published | None:
        """Return the errors of the newest export on all samples after it; None if they are unknown."""
        return self._forward.published()

    def newest_errors(self) -> Published | None:
        """Return the same without the newest samples, which are evaluated together with later ones."""
        return self._forward.published(wait=True)

    def due(self, samples: int) -> bool:
        """Return whether an export is due by schedule or request, and none is being built.

        A request during an export stays due. It is served once the exporter is free, with the weights of that moment.
        So several requests become one export, and no second copy of the weights waits in memory.
        """
        return self.trigger.due(samples) and not self.exporter.busy()

    def begin(self, snapshot: Callable[[], Snapshot], *, samples: int, urgent: bool = False) -> None:
        """Start an export of *snapshot*, unless exports are off or nothing was learned since the last one.

        The gate may refuse it. The last export of a process, which is *urgent*, passes if there is no other of this
        model: a bad file is better than none, and the log says that it is bad.
        """
        self.trigger.reset(samples)
        if samples <= self._started_samples or not self.exporter.enabled:
            return
        held = self.exporter.held()
        if held and not self._held:
            log.warning("exports_held", note="learnd promote without --hold publishes automatically again")
        self._held = held
        if held:
            return
        challenger = self._with_champion(snapshot())
        refusal = self.exporter.refusal(challenger)
        if refusal is not None:
            if not urgent or self.exporter.newest_number() > self._exports_before:
                self._note_refused(refusal)
                return
            log.warning("export_worse_than_naive", always=True, **refusal.fields())
        self._started_samples = samples
        self._last_began = urgent
        self.exporter.begin(challenger, urgent=urgent)

    def _with_champion(self, challenger: Snapshot) -> Snapshot:
        """Return *challenger* without the errors of an export that is no longer the newest: somebody rolled back."""
        published = challenger.published
        if published is None or published.number == self.exporter.newest_number():
            return challenger
        return replace(challenger, published=None)

    def _note_refused(self, refusal: Refusal) -> None:
        self.refused = refusal
        self._metrics.export_refused(refusal.reason)
        self.exporter.note_refusal(refusal)
        log.warning("export_refused", **refusal.fields())

    def collect(self) -> None:
        """Record the outcomes of exports and uploads that ended since the last call."""
        while (exported := self.exporter.outcome()) is not None:
            self._note_exported(exported)
        while (uploaded := self.exporter.uploaded()) is not None:
            self._note_uploaded(uploaded)

    def require_success(self) -> None:
        """Raise `ExportError` if the last export failed."""
        if self._error:
            raise ExportError(f"all records are learned and saved, but the last export failed: {self._error}")

    def _note_exported(self, exported: Exported) -> None:
        if exported.error and not self.exporter.busy():
            # A failed export is repeated, even if no further sample arrives.
            self._started_samples = self._published_samples
        if exported.given_up:
            self._note_given_up(exported.number)
            return
        self._error = exported.error
        if exported.error:
            self._metrics.export_failures.inc()
            log.error("export_failed", number=exported.number, error=exported.error)
            return
        self.last, self.refused, self.newest = exported, None, exported.number
        self._published_samples = exported.samples
        self._forward.begin(exported.number, exported.losses)
        if exported.without:
            log.warning("formats_unavailable", number=exported.number, **exported.without)
        self._metrics.exported(exported.number, exported.duration_s)
        fields = {"number": exported.number, "samples": exported.samples, "duration_s": round(exported.duration_s, 3)}
        log.info("export_published", always=True, **fields, path=str(self.exporter.path(exported.number)))

    def _note_given_up(self, number: int) -> None:
        if self._last_began:
            note = "the stop did not wait for it; the state is saved, and the next start exports it"
            log.warning("last_export_abandoned", number=number, note=note)
        else:
            note = "a newer export, with everything that was learned, is made now in its place"
            log.info("export_superseded", number=number, note=note)

    def _note_uploaded(self, uploaded: Uploaded) -> None:
        if uploaded.error:
            self._metrics.upload_failures.inc()
            log.error("upload_failed", number=uploaded.number, error=uploaded.error)
            return
        self._metrics.uploaded(uploaded.number)
        log.info("export_uploaded", number=uploaded.number, duration_s=round(uploaded.duration_s, 3))
