"""Publishes exports: a child process builds and verifies them under a hidden name, then they are renamed."""

import json
import math
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from learnd.core.snapshot import FrozenLosses, Snapshot
from learnd.core.tensors import Array
from learnd.core.types import Float32Array
from learnd.export import manifest
from learnd.export.champion import read_champion, write_champion
from learnd.export.child_process import ChildProcess
from learnd.export.gate import Refusal, judge, note_refusal
from learnd.export.request import REQUEST, write_request
from learnd.export.settings import ExportSettings
from learnd.export.upload import Uploaded, Uploader
from learnd.export.versions import Versions, read_hold

log = structlog.get_logger()

Answer = Callable[[Float32Array, Sequence[Array]], Mapping[str, Float32Array]]
"""From raw inputs and the weights of a snapshot to the model's answers, by output."""
Freeze = Callable[[Float32Array, Sequence[Array]], FrozenLosses]
"""From raw inputs and the weights of a snapshot to a function that computes losses with these weights."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The outcome of one export; ``error`` is empty if it was published."""

    number: int
    samples: int
    duration_s: float
    error: str = ""
    given_up: bool = False
    """Abandoned on purpose, for a newer export or for the shutdown; not a failure."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Formats that are unavailable for this model, each with the reason."""
    losses: FrozenLosses | None = None
    """Computes losses on later samples with the published weights."""


class Exporter:
    """Turns snapshots into ``<directory>/<number>/``, one at a time, outside the learner's path.

    A child process keeps two things away from the learner: converters that hold the interpreter for long, and their
    crashes. Unless an export is urgent, its process runs at the lowest priority, and rests most of the time.

    Parameters
    ----------
    answer : the live model; exports must give the same answers
    freeze : makes the function that later computes the loss of the published weights; None: do not measure it
    recipe : the sections of the configuration from which the child builds the network
    description : constant parts of the manifest
    uploader : copies published versions elsewhere
    clock, now : see `learnd.export.versions.Versions`
    """

    def __init__(
        self,
        directory: Path,
        settings: ExportSettings,
        *,
        answer: Answer,
        freeze: Freeze | None = None,
        recipe: Mapping[str, Any],
        description: Mapping[str, Any],
        uploader: Uploader | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.enabled = bool(settings.formats)
        """False if there is no format to publish; `begin` must not be called then."""
        self._versions = Versions(directory, keep=settings.keep, clock=clock, now=now)
        self._settings = settings
        self._answer = answer
        self._freeze = freeze
        self._recipe = recipe
        self._description = description
        self._uploader = uploader
        self._clock = clock
        self._now = now
        self._thread: threading.Thread | None = None
        self._child = ChildProcess()
        self._outcomes: deque[Exported] = deque()
        self._unavailable: Mapping[str, str] = {}

    def open(self) -> None:
        """Make the directory, remove what a crash left behind, and upload the newest version if that is still due."""
        self._versions.open()
        if self._uploader is not None:
            self._uploader.begin(self._versions.newest())

    def leave_out(self, unavailable: Mapping[str, str]) -> None:
        """Build no format of *unavailable* any more. Manifests say so, with the reason of each."""
        self._unavailable = unavailable

    def begin(self, snapshot: Snapshot, *, urgent: bool = False) -> None:
        """Start to export *snapshot*. No other export may be in progress."""
        assert not self.busy()
        self._child.reset()
        self._thread = threading.Thread(target=self._export, args=(snapshot, urgent), name="learnd-export", daemon=True)
        self._thread.start()

    def busy(self) -> bool:
        """Return whether an export is in progress."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float) -> bool:
        """Wait until no export and no upload is in progress; return False if that takes longer than *timeout_s*."""
        deadline_s = time.monotonic() + timeout_s
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self.busy():
            return False
        return self._uploader is None or self._uploader.wait(max(0.0, deadline_s - time.monotonic()))

    def abandon(self) -> None:
        """End the export in progress, if there is one. Nothing of it is published, unless its rename has begun.

        An upload cannot be ended, and need not be: ``latest`` never names half of one, and a later upload completes it.
        """
        if not self.busy():
            return
        self._child.kill()
        if self._thread is not None:
            self._thread.join()

    def outcome(self) -> Exported | None:
        """Remove and return the oldest outcome of an export; None if there is none."""
        return self._outcomes.popleft() if self._outcomes else None

    def uploaded(self) -> Uploaded | None:
        """Remove and return the oldest outcome of an upload; None if there is none."""
        return self._uploader.outcome() if self._uploader is not None else None

    def numbers(self) -> list[int]:
        """Return the published numbers, ascending."""
        return self._versions.numbers()

    def path(self, number: int) -> Path:
        """Return the folder of export *number*."""
        return self._versions.path(number)

    def newest_number(self) -> int:
        """Return the number of the newest export, 0 without one."""
        return max(self._versions.numbers(), default=0)

    def held(self) -> bool:
        """Return whether an operator holds an export, so that nothing is published automatically."""
        return read_hold(self._versions.directory) is not None

    def refusal(self, challenger: Snapshot) -> Refusal | None:
        """Return why the gate does not let *challenger* pass; None if it does."""
        return judge(self._settings.gate_settings, challenger)

    def note_refusal(self, refusal: Refusal) -> None:
        """Record *refusal* next to the exports. Failing to is logged, and harms nothing else."""
        try:
            note_refusal(self._versions.directory, refusal, manifest.iso_time(self._now()))
        except OSError as error:
            log.warning("refusal_not_recorded", error=str(error))

    def newest_samples(self, *, above: int = 0) -> int:
        """Return how many samples the newest export has learned.

        Returns 0 if there is no export with a number greater than *above*, or if the newest lacks a format that is
        configured now.
        """
        newest = self._versions.newest()
        if newest is None or int(newest.name) <= above:
            return 0
        path = newest / manifest.FILE_NAME
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            complete = {*document["formats"], *document["unavailable"]}.issuperset(self._settings.formats)
            return int(document["samples"]) if complete else 0
        except (OSError, ValueError, KeyError):
            return 0  # somebody edited the manifest; one more export does no harm

    def newest_published(self, *, above: int = 0) -> tuple[int, float] | None:
        """Return the number of the newest export, and when it was made, in seconds since 1970.

        None if there is no export with a number greater than *above*.
        """
        newest = self._versions.newest()
        if newest is None or int(newest.name) <= above:
            return None
        try:
            document = json.loads((newest / manifest.FILE_NAME).read_text(encoding="utf-8"))
            made_s = datetime.fromisoformat(document["created_at"]).timestamp()
        except (OSError, ValueError, KeyError, TypeError):  # somebody edited the manifest
            made_s = math.nan
        return int(newest.name), made_s

    def _export(self, snapshot: Snapshot, urgent: bool) -> None:
        started_s = self._clock()
        number = 0
        error = ""
        unavailable: Mapping[str, str] = {}
        try:
            number = self._versions.take_number(above=self._uploader.highest() if self._uploader is not None else 0)
            building = self._versions.building(number)
            self._request(building, number, snapshot)
            self._build(building, urgent)
            unavailable = manifest.unavailable(building)
            shutil.rmtree(building / REQUEST)
            self._child.require_not_killed()
            self._versions.publish(number)
        except Exception as failure:
            error = str(failure) or type(failure).__name__
            self._versions.discard(number)
        if not error:
            self._note_champion(number, snapshot)
        if number in self._versions.numbers():  # true also if only `latest` could not be moved
            if self._uploader is not None:
                self._uploader.begin(self._versions.path(number))
            self._prune()
        given_up = bool(error) and self._child.killed
        duration_s = self._clock() - started_s
        losses = self._frozen(snapshot.probe_inputs, snapshot.weights) if not error else None
        self._outcomes.append(Exported(number, snapshot.samples, duration_s, error, given_up, unavailable, losses))

    def _request(self, building: Path, number: int, snapshot: Snapshot) -> None:
        head = {
            "number": number,
            "created_at": manifest.iso_time(self._now()),
            "republished_of": None,
            "parent": manifest.parent(self._versions.newest(), snapshot.published),
        }
        write_request(
            building,
            snapshot,
            self._answer(snapshot.probe_inputs, snapshot.weights),
            self._settings.without(self._unavailable),
            recipe=self._recipe,
            description={**head, **self._description, "unavailable": self._unavailable},
        )

    def _build(self, building: Path, urgent: bool) -> None:
        self._child.run(building, urgent=urgent)

    def champion(self, *, above: int) -> tuple[int, FrozenLosses] | None:
        """Return the number of the newest export, and its losses, as an earlier process published it.

        Returns None if its weights are unknown or do not fit the model, or if its number is not greater than *above*.
        """
        champion = read_champion(self._versions.directory)
        if champion is None or champion.number <= above or champion.number != self.newest_number():
            return None
        losses = self._frozen(champion.example, champion.weights)
        return None if losses is None else (champion.number, losses)

    def _note_champion(self, number: int, snapshot: Snapshot) -> None:
        """Write the published weights for the next process. Failing to is logged, and harms nothing else."""
        if self._freeze is None:
            return
        try:
            write_champion(self._versions.directory, number, snapshot.weights, snapshot.probe_inputs[:1])
        except OSError as error:
            log.warning("champion_not_recorded", error=str(error))

    def _frozen(self, x: Float32Array, weights: Sequence[Array]) -> FrozenLosses | None:
        """Return the losses by published *weights*; None if they cannot be computed. It is tried once on *x*.

        Called on the export's thread, because tracing takes half a second, and a large model's weights are copied.
        """
        if self._freeze is None:
            return None
        try:
            return self._freeze(x, weights)
        except Exception as error:  # for example a user's loss that needs another shape; the export stays published
            text = f"{type(error).__name__}: {error}"  # never empty, so that there is a first line
            log.warning("export_loss_unavailable", error=text.splitlines()[0][:200])
            return None

    def _prune(self) -> None:
        try:
            self._versions.prune(needed=self._uploader.needed() if self._uploader is not None else ())
        except OSError as error:  # the export stays published; the next one prunes again
            log.warning("prune_failed", error=str(error))
