"""Publishes exports: built by a child process under a temporary name, verified there, then renamed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from learnd.core.types import Float32Array, FrozenLosses, Snapshot
from learnd.export import manifest
from learnd.export.settings import ExportSettings
from learnd.export.upload import Uploaded, Uploader
from learnd.export.verify import spread_of
from learnd.export.versions import Versions

log = structlog.get_logger()

WORK_S, REST_S = 0.05, 0.15
"""Priority alone is not enough: a child on another core takes 10 % of a busy learner's throughput by way of the caches
they share. Working a quarter of the time keeps that under 5 % (`tests/bench/export.py`). Beside an idle learner it need
not rest, and the weights come out that much sooner (`tests/bench/export_lag.py`)."""
REQUEST = ".request"
IN_HAND = "format"
JUDGED_ROWS = 64
"""Recent inputs that an export is compared on."""
Answer = Callable[[Float32Array, Sequence[Any]], Mapping[str, Float32Array]]
Freeze = Callable[[Float32Array, Sequence[Any]], FrozenLosses]


@dataclass(frozen=True, slots=True)
class Exported:
    """The outcome of one export; ``error`` is empty if it was published."""

    number: int
    samples: int
    duration_s: float
    error: str = ""
    given_up: bool = False
    """Ended on purpose, for a newer one or for the end: no failure."""
    without: Mapping[str, str] = field(default_factory=dict)
    """Formats that this model cannot have, each with the reason."""
    losses: FrozenLosses | None = None
    """Judges what comes after it by the weights that were published."""


class Exporter:
    """Turns snapshots into ``<directory>/<number>/``, one at a time, off the learner's path.

    The child process keeps the converters' long hold of
    the interpreter, and their crashes, away from the learner; unless it is urgent it runs at the lowest priority and
    rests most of the time.

    Parameters
    ----------
    answer : what the live model says for inputs and weights; exports must agree with it
    freeze : the losses by the given weights, for inputs like those given
    recipe : the sections of the configuration that the child builds the network from
    description : constant parts of the manifest
    uploader : copies what was published elsewhere
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
        """Whether there is anything to publish; else no export may be begun."""
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
        self._lock = threading.Lock()
        """Held while the child is started or killed, so that none is started after it should have been killed."""
        self._child: subprocess.Popen[str] | None = None
        self._abandoned = False
        self._outcomes: deque[Exported] = deque()

    def open(self) -> None:
        """Make the directory, sweep what a crash left behind, and upload what was not uploaded yet."""
        self._versions.open()
        if self._uploader is not None:
            self._uploader.begin(self._versions.newest())

    def begin(self, snapshot: Snapshot, *, urgent: bool = False) -> None:
        """Start to export *snapshot*; at most one export is under way."""
        assert not self.busy()
        self._abandoned = False
        self._thread = threading.Thread(target=self._export, args=(snapshot, urgent), name="learnd-export", daemon=True)
        self._thread.start()

    def busy(self) -> bool:
        """Whether an export is under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self, timeout_s: float) -> bool:
        """Until no export and no upload is under way; False if that takes longer than *timeout_s*."""
        deadline_s = time.monotonic() + timeout_s
        if self._thread is not None:
            self._thread.join(timeout_s)
        if self.busy():
            return False
        return self._uploader is None or self._uploader.wait(max(0.0, deadline_s - time.monotonic()))

    def abandon(self) -> None:
        """End the export under way, if there is one; unless it is being renamed already, nothing of it will be seen.

        An upload cannot be ended, and need not be: half of one is not pointed at, and a later one completes it.
        """
        if not self.busy():
            return
        with self._lock:
            self._abandoned = True
            if self._child is not None:
                self._child.kill()
        if self._thread is not None:
            self._thread.join()

    def outcome(self) -> Exported | None:
        """The outcome of the oldest export that was not told yet; each is told once."""
        return self._outcomes.popleft() if self._outcomes else None

    def uploaded(self) -> Uploaded | None:
        """The outcome of an upload, once; None where there is none."""
        return self._uploader.outcome() if self._uploader is not None else None

    def _export(self, snapshot: Snapshot, urgent: bool) -> None:
        started_s = self._clock()
        number = 0
        error = ""
        without: Mapping[str, str] = {}
        try:
            number = self._versions.take_number(above=self._uploader.highest() if self._uploader is not None else 0)
            building = self._versions.building(number)
            self._request(building, number, snapshot)
            self._build(building, urgent)
            without = manifest.unavailable(building)
            shutil.rmtree(building / REQUEST)
            self._go_on()
            self._versions.publish(number)
        except Exception as failure:
            error = str(failure) or type(failure).__name__
            self._versions.discard(number)
        if number in self._versions.numbers():  # also where `latest` could not be moved to it
            if self._uploader is not None:
                self._uploader.begin(self._versions.path(number))
            self._prune()
        given_up = bool(error) and self._abandoned
        duration_s = self._clock() - started_s
        losses = self._frozen(snapshot) if not error else None
        self._outcomes.append(Exported(number, snapshot.samples, duration_s, error, given_up, without, losses))

    def _frozen(self, snapshot: Snapshot) -> FrozenLosses | None:
        """Here, on this thread: tracing takes half a second, and a large model's weights are copied."""
        if self._freeze is None:
            return None
        try:
            return self._freeze(snapshot.probe_inputs, snapshot.weights)
        except Exception as error:  # a loss of the user's that wants another shape, say; the export is out
            log.warning("export_not_judged", error=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}")
            return None

    def _prune(self) -> None:
        try:
            self._versions.prune(needed=self._uploader.needed() if self._uploader is not None else ())
        except OSError as error:  # the export is out all the same; the next one tries again
            log.warning("prune_failed", error=str(error))

    def _go_on(self) -> None:
        if self._abandoned:
            raise RuntimeError("abandoned")

    def numbers(self) -> list[int]:
        """The published numbers, ascending."""
        return self._versions.numbers()

    def newest_samples(self, *, above: int = 0) -> int:
        """How many samples the newest export has learned.

        0 where there is none with a number *above* that, or a format is wanted by now that it does not have.
        """
        newest = self._versions.newest()
        if newest is None or int(newest.name) <= above:
            return 0
        path = newest / manifest.FILE_NAME
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            complete = {*known["formats"], *known["unavailable"]}.issuperset(self._settings.formats)
            return int(known["samples"]) if complete else 0
        except (OSError, ValueError, KeyError):
            return 0  # somebody changed it; a further export does no harm

    def _request(self, building: Path, number: int, snapshot: Snapshot) -> None:
        """What the child needs, as files: it shares nothing else with us."""
        request = building / REQUEST
        request.mkdir(parents=True)
        examples, inputs = _apart(snapshot.probe_inputs)
        answers = self._answer(snapshot.probe_inputs, snapshot.weights)
        wanted = {name: values[-len(inputs) :] for name, values in answers.items()}
        spreads = spread_of(answers)
        arrays = {f"weight_{i}": weight for i, weight in enumerate(snapshot.weights)}
        arrays |= {f"learning_{i}": array for i, array in enumerate(snapshot.learning.values())}
        arrays |= {f"output_{name}": value for name, value in wanted.items()}
        arrays |= {f"spread_{name}": value for name, value in spreads.items()}
        np.savez(request / "arrays.npz", allow_pickle=False, examples=examples, inputs=inputs, **arrays)
        head = {
            "number": number,
            "created_at": manifest.moment(self._now()),
            "parent": manifest.parent(self._versions.newest(), snapshot.published),
        }
        text = json.dumps(
            {
                "recipe": self._recipe,
                "formats": self._settings.formats,
                "tolerance": self._settings.tolerance,
                "tolerances": self._settings.tolerances,
                "learning": list(snapshot.learning),
                "signing_key_file": str(key.absolute()) if (key := self._settings.signing_key_file) else None,
                "manifest": {**head, **self._description, **manifest.provenance(snapshot)},
            }
        )
        (request / "request.json").write_text(text, encoding="utf-8")

    def _build(self, building: Path, urgent: bool) -> None:
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        # It finds the modules that we find, the user's own too; without -P those that happen to lie in the working
        # directory would come before all others.
        command = [sys.executable, "-P", "-m", "learnd.export_worker.bootstrap", str(os.getpid()), str(building)]
        if not urgent:
            command.append("--nice")
        with self._lock:
            self._go_on()
            self._child = child = subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                # Ctrl-C on the terminal is for us; the child ends when we say so, or with us.
                start_new_session=True,
            )
        try:
            errors = _wait_paced(child, urgent=urgent)
        finally:
            status = child.returncode
            self._child = None
        if status != 0:
            raise RuntimeError(_reason(status, errors, building / REQUEST / IN_HAND))


def _apart(rows: Float32Array) -> tuple[Float32Array, Float32Array]:
    """The older rows, to fit formats to, and the newest, to judge them on; the same one where there is but one.

    >>> [part.tolist() for part in _apart(np.arange(4, dtype=np.float32))]
    [[0.0, 1.0], [2.0, 3.0]]
    """
    judged = min(JUDGED_ROWS, len(rows) // 2)
    return (rows[:-judged], rows[-judged:]) if judged else (rows, rows)


def _reason(status: int, errors: str, in_hand: Path) -> str:
    """Why a child failed, in one line: what it said, or what killed it over which format."""
    if status < 0 and in_hand.exists():
        name = in_hand.read_text(encoding="utf-8")
        died = f"the exporting process died of {signal.Signals(-status).name} over {name}"
        return f"{died}; export.formats without {name} publishes the rest"
    lines = [line for line in errors.splitlines() if line.strip()]
    return lines[-1] if lines else f"the exporting process ended with status {status}"


def _wait_paced(child: "subprocess.Popen[str]", *, urgent: bool) -> str:
    """What *child* wrote to standard error, once it has ended; unless urgent it is made to rest in between.

    Not before it has said that it will die with us: stopped before, it would outlive our SIGKILL, stopped for ever.
    """
    assert child.stdout is not None
    child.stdout.readline()
    while True:
        now_s, busy_s = time.monotonic(), time.process_time()
        try:
            return child.communicate(timeout=None if urgent else WORK_S)[1]
        except subprocess.TimeoutExpired:
            rest_s = _rest_s(time.process_time() - busy_s, time.monotonic() - now_s)
            child.send_signal(signal.SIGSTOP)
            time.sleep(rest_s)
            child.send_signal(signal.SIGCONT)


def _rest_s(busy_s: float, elapsed_s: float) -> float:
    """How long a child rests where this process, all its threads together, was busy for *busy_s* of *elapsed_s*.

    >>> _rest_s(0.09, 0.05), _rest_s(0.01, 0.05), _rest_s(0.0, 0.05)
    (0.15, 0.03, 0.0)
    """
    return round(REST_S * min(1.0, busy_s / elapsed_s), 3)
