"""The rehearsal of exports: every format is built once from the fresh model, before the first record is read.

What a model cannot have is then known at the start, and not after everything was learned.
"""

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from learnd.core.errors import ConfigError, ExportError, Problem
from learnd.core.fsync import write_text
from learnd.core.snapshot import Snapshot
from learnd.core.types import Float32Array, NamedArrays
from learnd.export import software
from learnd.export.child_process import ChildProcess
from learnd.export.request import CURRENT_FORMAT, REHEARSAL, REQUEST, write_request
from learnd.export.settings import ExportSettings

log = structlog.get_logger()

_RECORD = ".rehearsed.json"
"""File with what the last rehearsal found, and with what it was made of."""
_FOLDER = ".building-rehearsal"
_OPTION = "export.formats"


class Rehearsal:
    """Finds the formats that a model cannot have. A child process builds each, loads it and runs it.

    What it finds is recorded next to the exports. A later start with the same model, formats and libraries reads the
    record instead.

    Parameters
    ----------
    snapshot : returns the fresh model's state with made-up rows, and the outputs' shapes as arrays of zeros
    recipe : the sections of the configuration from which the child builds the network
    """

    def __init__(
        self,
        directory: Path,
        settings: ExportSettings,
        *,
        snapshot: Callable[[], tuple[Snapshot, NamedArrays]],
        recipe: Mapping[str, Any],
        description: Mapping[str, Any],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._snapshot = snapshot
        self._recipe = recipe
        self._description = description
        self._child = ChildProcess()
        self._thread: threading.Thread | None = None
        self._unavailable: Mapping[str, str] = {}
        self._error: Exception | None = None

    def begin(self, *, fresh: bool) -> None:
        """Start to build every format in the background, unless a record of the same is there.

        Parameters
        ----------
        fresh : there is no checkpoint; then files that the recipe names may have changed, and no record counts
        """
        if not self._settings.formats or not self._settings.rehearse:
            return
        recorded = None if fresh else self._recorded()
        if recorded is not None:
            self._unavailable = recorded
            return
        snapshot, answers = self._snapshot()  # here, because the weights change once records are learned
        self._thread = threading.Thread(
            target=self._rehearse, args=(snapshot, answers), name="learnd-rehearsal", daemon=True
        )
        self._thread.start()

    def finish(self, stopping: Callable[[], bool], *, poll_s: float = 0.1) -> Mapping[str, str] | None:
        """Wait for the end; return the unavailable formats, each with the reason. None if *stopping* came first.

        Raises
        ------
        ConfigError
            if no format is left.
        """
        while self._thread is not None and self._thread.is_alive():
            if stopping():
                self._child.kill()
                self._thread.join()
                return None
            self._thread.join(poll_s)
        if self._error is not None:  # the rehearsal itself failed, which says nothing about the formats
            log.warning("rehearsal_failed", error=str(self._error))
            return {}
        if self._unavailable and len(self._unavailable) == len(self._settings.formats):
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._unavailable.items())
            message = f"this model can be exported in none of them ({reasons}); change the model, or use formats: []"
            raise ConfigError(Problem(_OPTION, message))
        if self._unavailable:
            log.warning("formats_unavailable", always=True, **self._unavailable)
        return self._unavailable

    def _rehearse(self, snapshot: Snapshot, answers: NamedArrays) -> None:
        try:
            unavailable: dict[str, str] = {}
            left: list[str] = list(self._settings.formats)
            while left:
                found, died = self._build(left, snapshot, answers)
                unavailable |= found
                left = left[left.index(died) + 1 :] if died is not None else []
            self._unavailable = unavailable
            self._record(unavailable)
        except Exception as error:
            self._error = error
        finally:
            shutil.rmtree(self._directory / _FOLDER, ignore_errors=True)

    def _build(
        self, formats: Sequence[str], snapshot: Snapshot, answers: NamedArrays
    ) -> tuple[Mapping[str, str], str | None]:
        """Build *formats*; return the unavailable ones, and the one at which the child died, if it did."""
        building = self._directory / _FOLDER
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        write_request(
            building,
            snapshot,
            answers,
            self._settings.model_copy(update={"formats": formats}),
            recipe=self._recipe,
            description=self._description,
            rehearsal=True,
        )
        died: str | None = None
        try:
            self._child.run(building, urgent=True)
        except ExportError as error:
            current = building / REQUEST / CURRENT_FORMAT
            if self._child.killed or not current.exists():
                raise
            died = current.read_text(encoding="utf-8")
            return {**_found(building), died: str(error)}, died
        return _found(building), died

    def _recorded(self) -> Mapping[str, str] | None:
        """Return the unavailable formats on record; None if there is no record of the same rehearsal."""
        try:
            document = json.loads((self._directory / _RECORD).read_text(encoding="utf-8"))
            return dict(document["unavailable"]) if document["of"] == self._key() else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _record(self, unavailable: Mapping[str, str]) -> None:
        text = json.dumps({"of": self._key(), "unavailable": unavailable}, indent=2)
        write_text(self._directory / _RECORD, text)

    def _key(self) -> str:
        """Return a SHA-256 over everything that decides whether a format can be built."""
        parts = {"recipe": self._recipe, "formats": self._settings.formats, "versions": software.versions()}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _found(building: Path) -> Mapping[str, str]:
    path = building / REQUEST / REHEARSAL
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def made_up_rows(
    row_shape: tuple[int, ...], limits: Sequence[tuple[float, float, bool]], count: int = 64
) -> Float32Array:
    """Return rows of shape (count, *row_shape) for a model that has seen none.

    Parameters
    ----------
    limits : for each feature its smallest and largest reading, and whether it is a whole number

    >>> made_up_rows((1,), [(0.0, 2.0, True)], count=4)[:, 0].tolist()
    [1.0, 2.0, 0.0, 1.0]
    """
    rows = np.random.default_rng(0).normal(size=(count, *row_shape))
    for feature, (low, high, whole) in enumerate(limits):
        if whole:
            numbers = np.arange(1, count + 1) % (min(high, 1000.0 + low) - low + 1.0) + low
            rows[..., feature] = numbers.reshape(-1, *[1] * (len(row_shape) - 1))
        rows[..., feature] = np.clip(rows[..., feature], low, high)
    return rows.astype(np.float32)
