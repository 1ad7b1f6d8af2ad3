"""The drift monitor: from results, in their order, to drifts and the reactions to them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import structlog

from learnd.core.rows import NewestRows
from learnd.core.types import BoolArray, Float64Array, Int64Array, Samples, State, StepResult
from learnd.drift.chain import Chain
from learnd.drift.channel import Channel, Drift
from learnd.drift.detectors.settings import LOSS

log = structlog.get_logger()

Readings = Callable[[Samples], Float64Array]
"""From samples to their newest readings, shape (n, columns); nan: unknown."""
Sound = Callable[[Samples], BoolArray | None]
"""From samples to a mask of the readings that are neither in alarm nor faulty, shape (n, columns); None: all."""
_MOST_PENDING = 4096


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A drift, with what was done about it.

    Attributes
    ----------
    row : the row of the last result at which the review took place
    time_s : event time of that row
    at_samples : number of learned samples at the review
    reactions : kinds of the reactions, in order
    """

    row: int
    time_s: float
    at_samples: int
    drift: Drift
    reactions: tuple[str, ...]

    def as_line(self) -> dict[str, Any]:
        """Return the drift as the alarms sink writes it."""
        drift = asdict(self.drift)
        identifier = f"drift/{self.drift.samples}/{self.drift.on}/{self.drift.detector}"
        return {
            "id": identifier,
            "head": "drift",
            "phase": "found",
            "time_s": self.time_s,
            **drift,
            "at_samples": self.at_samples,
            "reactions": list(self.reactions),
        }


class DriftMonitor:
    """All channels, and the reviews at which the chain of reactions is asked.

    A review takes place after every `every_samples` learned samples. Everything depends on the order of the rows and on
    counts of learned samples alone.

    Parameters
    ----------
    names : of the readings
    readings : returns them; None: only the loss is observed
    rows : gets the learned rows, for reactions
    sound : returns which readings tell of the machine as it usually is; a loss counts if all of its row do
    every_samples : a multiple of the samples per update
    """

    def __init__(
        self,
        channels: Sequence[Channel],
        chain: Chain,
        *,
        names: Sequence[str],
        readings: Readings | None,
        rows: NewestRows,
        sound: Sound,
        every_samples: int,
    ) -> None:
        self._channels = channels
        self._chain = chain
        self._columns = (LOSS, *(names if readings is not None else ()))
        self._readings = readings
        self._newest = rows
        self._sound = sound
        self.every_samples = every_samples
        self._samples = 0
        self._rows = 0
        self._pending: list[tuple[Float64Array, Int64Array]] = []
        self._pending_rows = 0
        self._found: list[Drift] = []
        self._reviewed: list[Reviewed] = []

    def begin(self, samples: int) -> None:
        """Continue with a model that has learned *samples*."""
        self._samples = samples

    def observe(self, result: StepResult) -> None:
        """Observe the rows of *result*, and review where that is due."""
        count = len(result.samples)
        if not count:
            return
        self._newest.observe(result)
        values = self._values(result)
        samples = self._samples + np.cumsum(result.learned)
        due = np.flatnonzero(result.learned & (samples % self.every_samples == 0))
        end = int(due[-1]) + 1 if len(due) else 0
        self._wait(values[:end], samples[:end])
        if end:
            # All at once: a drift belongs to the first review after it. If a reaction can change the model, a result
            # ends at its only review.
            self._show_pending()
        for row in due.tolist():
            self._review(int(samples[row]), self._rows + row, float(result.samples.times_s[row]))
        self._wait(values[end:], samples[end:])
        self._samples = int(samples[-1])
        self._rows += count

    def reviewed(self) -> list[Reviewed]:
        """Return the drifts of the rows since the last call, whose first row counts as row 0."""
        reviewed, self._reviewed, self._rows = self._reviewed, [], 0
        return reviewed

    def _values(self, result: StepResult) -> Float64Array:
        """Return the numbers to observe, shape (n, columns); nan: none."""
        known, sound = result.learned, self._sound(result.samples)
        if sound is not None:
            known = known & sound.all(axis=1)
        losses = np.where(known, result.losses, np.nan).astype(np.float64)[:, None]
        if self._readings is None:
            return losses
        # Held rows are in alarm or in a planned stop. Those without a target are only predicted.
        usual = ~(~result.learned & result.with_target())[:, None]
        if sound is not None:
            usual = usual & sound
        return np.concatenate([losses, np.where(usual, self._readings(result.samples), np.nan)], axis=1)

    def _wait(self, values: Float64Array, samples: Int64Array) -> None:
        if len(values):
            self._pending.append((values, samples))
            self._pending_rows += len(values)
            if self._pending_rows >= _MOST_PENDING:
                self._show_pending()

    def _show_pending(self) -> None:
        """Show the pending rows to the channels."""
        if not self._pending:
            return
        values = np.concatenate([each for each, _ in self._pending])
        samples = np.concatenate([each for _, each in self._pending])
        self._pending, self._pending_rows = [], 0
        found: list[Drift] = []
        for channel in self._channels:
            column = values[:, self._columns.index(channel.name)]
            present = np.isfinite(column)
            found += channel.observe(column[present], samples[present])
        self._found += found

    def _review(self, samples: int, row: int, time_s: float) -> None:
        self._chain.review(samples)
        if not self._found:
            return
        found = sorted((drift for drift in self._found if drift.samples <= samples), key=_order)
        self._found = [drift for drift in self._found if drift.samples > samples]
        for drift in found:
            made = self._chain.react(drift, samples)
            self._reviewed.append(Reviewed(row, time_s, samples, drift, tuple(made)))

    def close(self) -> None:
        """Release everything that the reactions hold."""
        self._chain.close()

    @property
    def _form(self) -> list[Any]:
        return [self.every_samples, *(channel.form for channel in self._channels), self._chain.form]

    def state(self) -> State:
        self._show_pending()
        return {
            "form": self._form,
            "samples": self._samples,
            "found": [asdict(drift) for drift in self._found],
            "channels": [channel.state() for channel in self._channels],
            "chain": self._chain.state(),
            "rows": self._newest.state(),
        }

    def restore(self, state: State) -> None:
        """Take over *state*; if it was made with other detectors or reactions, or another river, start again."""
        self._samples = state["samples"]
        pairs = zip(self._channels, state["channels"], strict=False)
        if state["form"] != self._form or not all(channel.fits(saved) for channel, saved in pairs):
            log.warning(
                "drift_starts_again",
                note="drift.detectors, drift.reactions or the version of river have changed, so what the detectors had "
                "observed is dropped",
            )
            return
        self._found = [Drift(**drift) for drift in state["found"]]
        for channel, saved in zip(self._channels, state["channels"], strict=True):
            channel.restore(saved)
        self._chain.restore(state["chain"])
        self._newest.restore(state["rows"])


def _order(drift: Drift) -> tuple[int, str, str, str]:
    return drift.samples, drift.on, drift.detector, drift.statistic
