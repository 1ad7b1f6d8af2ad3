"""The alarms of a stream: both heads, for each key, before and after learning."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import structlog

from learnd.alarms.decision import DecisionOptions, decide, make_decision
from learnd.alarms.distance import make_distance, observe_rows
from learnd.alarms.episodes import Alarm, Episodes, SensorFaults, onset_alarms
from learnd.alarms.feedback import Verdict
from learnd.alarms.health import examine_sensors, make_health
from learnd.alarms.key_table import KeyTable
from learnd.alarms.level import LevelOptions, accept_level, make_level, observe_levels
from learnd.alarms.onset import make_onset, observe_readings
from learnd.alarms.settings import AlarmSettings
from learnd.alarms.slot_arrays import SlotArrays
from learnd.alarms.threshold import correct
from learnd.core.alarms import Alarms
from learnd.core.types import BoolArray, Float64Array, Samples, State, StepResult

log = structlog.get_logger()

Readings = Callable[[Samples], Float64Array]
"""From samples to the newest readings that are watched, shape (n, columns); nan: unknown."""
_EVIDENCE, _STRENGTH, _ALARM, _ACCEPTED, _FAULT, _TOGETHER = range(6)
_WATCHED = 6
"""Rows of `Samples.watched`."""
RECENT_ALARMS = 1000
"""Alarms that feedback can name."""
LOSS = "loss"
"""The contribution of the model's loss, among the names of the columns."""


def compile_heads() -> None:
    """Compile the heads, or load them from Numba's cache: for images and for processes that fork daemons."""
    Monitor(AlarmSettings(), columns=["any"], readings=lambda samples: samples.x, hold="learn").prepare()


def _any(columns: npt.NDArray[Any]) -> BoolArray:
    """Return a mask of the rows in which any column is set."""
    found: BoolArray = np.any(columns, axis=1)
    return found


def _plain(array: Float64Array) -> Float64Array:
    """Return *array* as the heads were compiled for: Numba would compile them again for a read-only or strided one."""
    return np.require(array, np.float64, ["C", "W"])


def sound_readings(samples: Samples) -> BoolArray | None:
    """Return a mask of the readings that are neither in alarm nor faulty, shape (n, columns); None: unknown.

    Only for samples that were watched.
    """
    watched = samples.watched
    return None if watched is None else (watched[:, _ALARM] == 0.0) & (watched[:, _FAULT] == 0.0)


def _row(event: tuple[int, Alarm]) -> int:
    return event[0]


class _Decided(NamedTuple):
    """Decisions of the onset head, one per row, as in `learnd.core.alarms.Alarms`. The loss is last in *parts*."""

    probabilities: Float64Array
    raised: BoolArray
    parts: Float64Array
    strengths: Float64Array


class Monitor:
    """Both heads for each key of a stream.

    The readings decide whether a row is in alarm, before it is learned, so learning can be held. The model's loss is
    known only afterwards, and adds to the probability that something begins. Neither depends on how the stream was cut.

    Parameters
    ----------
    columns : the names of the readings
    readings : returns them
    hold : what happens to a row in alarm: ``hold``, ``learn`` or ``weigh``
    targets : number of the last columns that are targets; a record without its target has no faulty sensor
    """

    def __init__(
        self, settings: AlarmSettings, *, columns: Sequence[str], readings: Readings, hold: str, targets: int = 0
    ) -> None:
        self._targets = targets
        self._columns = tuple(columns)
        self._readings = readings
        self._hold = hold
        self._weight = np.float32(settings.held_weight)
        self._warm_up = settings.warm_up
        self._periods_s = np.array(settings.periods_s, np.float64)
        estimated = settings.false_alarms_per is not None
        rates = (settings.per_readings, settings.per_seconds)
        self._level_options = LevelOptions(
            settings.minimum_readings, settings.cool_down_readings, settings.accept_after, *rates
        )
        self._decision_options = DecisionOptions(settings.warm_up, *rates)
        self._stops_s = [stop.seconds for stop in settings.planned_stops]
        self._suppressed = [(rule.feature, rule.key) for rule in settings.suppress]
        self._watched, self._judged = KeyTable(settings.max_keys), KeyTable(settings.max_keys)
        count = len(self._columns)
        self._onset = SlotArrays(make_onset(count, len(settings.periods_s)))
        self._distance = SlotArrays(make_distance(count))
        self._health = SlotArrays(make_health(count))
        self._level = SlotArrays(make_level(count, estimated=estimated))
        self._decision = SlotArrays(make_decision(estimated=estimated))
        self._episodes = Episodes(self._columns)
        self._faults = SensorFaults(self._columns)
        self._recent: dict[str, tuple[str, str]] = {}
        """Key and head of the newest alarms, by their identifiers, the oldest first."""

    def prepare(self) -> None:
        """Compile the heads, which takes seconds where no compiled code is cached."""
        none, slots = np.empty((0, len(self._columns))), np.empty(0, np.int64)
        flags = np.empty((0, len(self._columns)), np.bool_)
        times_s = np.empty(0)
        examine_sensors(self._health.arrays, none, slots, np.empty((0, len(self._columns)), np.int64))
        observe_readings(self._onset.arrays, none, times_s, slots, self._periods_s, self._warm_up, none)
        observe_levels(self._level.arrays, none, times_s, slots, self._level_options, none, flags, flags)
        observe_rows(self._distance.arrays, none, slots, self._warm_up, none)
        flag = np.empty(0, np.bool_)
        decide(
            self._decision.arrays,
            times_s,
            times_s,
            times_s,
            slots,
            self._decision_options,
            times_s,
            flag,
            times_s,
            times_s,
        )

    def watch(self, samples: Samples) -> tuple[Samples, BoolArray | None]:
        """Observe the readings of *samples* before they are learned.

        Returns the samples with what `evaluate` needs of them, and a mask of the rows to hold (None: none).
        """
        if samples.repeated is not None and samples.repeated.any():
            return self._watch_once(samples, ~samples.repeated)
        count, columns = len(samples), len(self._columns)
        watched = np.zeros((count, _WATCHED, columns))
        if not count:
            return replace(samples, watched=watched), None
        rows = self._rows(samples)
        stopped = self._stopped(samples)
        alarms, accepted = np.zeros((count, columns), np.bool_), np.zeros((count, columns), np.bool_)
        evidence, strengths, together = (np.zeros((count, columns)) for _ in range(3))
        faults = np.zeros((count, columns), np.int64)
        for run in self._watched.runs(samples.keys.tolist()):
            if run.evicted is not None:
                for heads in (self._health, self._onset, self._distance, self._level):
                    heads.clear(run.evicted[1])
            for heads in (self._health, self._onset, self._distance, self._level):
                heads.reserve(len(self._watched))
            part, slots = run.rows, np.where(stopped[run.rows], -1, run.slots)
            times_s = _plain(samples.times_s[part])
            examine_sensors(self._health.arrays, rows[part], slots, faults[part])
            observe_readings(
                self._onset.arrays, rows[part], times_s, slots, self._periods_s, self._warm_up, evidence[part]
            )
            # Else the level would become that of a stuck sensor.
            sound = np.where(faults[part] > 0, np.nan, rows[part])
            observe_rows(self._distance.arrays, sound, slots, self._warm_up, together[part])
            observe_levels(
                self._level.arrays,
                sound,
                times_s,
                slots,
                self._level_options,
                strengths[part],
                alarms[part],
                accepted[part],
            )
        if self._targets and samples.has_target is not None:
            faults[~samples.has_target, -self._targets :] = 0
        evidence[faults > 0] = 0.0  # a faulty sensor says nothing about the machine
        watched[:, _EVIDENCE], watched[:, _STRENGTH] = evidence, strengths
        watched[:, _ALARM], watched[:, _ACCEPTED], watched[:, _FAULT] = alarms, accepted, faults
        watched[:, _TOGETHER] = together
        return self._treated(replace(samples, watched=watched), _any(alarms), stopped)

    def _watch_once(self, samples: Samples, fresh: BoolArray) -> tuple[Samples, BoolArray | None]:
        """Observe the *fresh* rows only. The readings of the others are those of another row."""
        part, part_hold = self.watch(replace(samples.take(fresh), repeated=None))
        watched = np.zeros((len(samples), _WATCHED, len(self._columns)))
        watched[fresh] = part.watched
        hold = self._stopped(samples)
        if part_hold is not None:
            hold[fresh] |= part_hold
        weights = samples.weights
        if part.weights is not None:
            weights = np.ones(len(samples), np.float32) if weights is None else weights.copy()
            weights[fresh] = part.weights
        return replace(samples, watched=watched, weights=weights), hold if hold.any() else None

    def _rows(self, samples: Samples) -> Float64Array:
        """Return the readings of *samples*, without the suppressed ones, shape (n, columns)."""
        rows = _plain(self._readings(samples))
        for feature, key in self._suppressed:
            rows = rows.copy()
            of_key = slice(None) if key is None else samples.keys == key
            rows[of_key, slice(None) if feature is None else self._columns.index(feature)] = np.nan
        return rows

    def _stopped(self, samples: Samples) -> BoolArray:
        """Return a mask of the rows in a planned stop."""
        stopped = np.zeros(len(samples), np.bool_) if samples.planned_stop is None else samples.planned_stop
        for first_s, last_s in self._stops_s:
            stopped = stopped | ((samples.times_s >= first_s) & (samples.times_s < last_s))
        return stopped

    def _treated(self, samples: Samples, active: BoolArray, stopped: BoolArray) -> tuple[Samples, BoolArray | None]:
        """Hold the *active* rows, or give them less weight; hold the *stopped* ones."""
        if self._hold == "hold":
            active, stopped = stopped, active | stopped
        hold = stopped if stopped.any() else None
        if self._hold != "weigh" or not active.any():
            return samples, hold
        weights = np.ones(len(samples), np.float32) if samples.weights is None else samples.weights
        return replace(samples, weights=np.where(active, weights * self._weight, weights)), hold

    def evaluate(self, result: StepResult) -> tuple[StepResult, list[tuple[int, Alarm]]]:
        """Return *result* with its alarms, and those that begin or end with it, each with its row, in their order."""
        if result.samples.repeated is not None and result.samples.repeated.any():
            return self._evaluate_once(result, ~result.samples.repeated)
        samples, count = result.samples, len(result.samples)
        # Samples that wait for their micro-batch since a time without alarms were not watched.
        watched = np.zeros((count, _WATCHED, len(self._columns))) if samples.watched is None else samples.watched
        active, strengths = _any(watched[:, _ALARM]), watched[:, _STRENGTH]
        decided = self._decide(result, watched[:, _EVIDENCE], watched[:, _TOGETHER])
        names = (*self._columns, LOSS)
        faults = watched[:, _FAULT].astype(np.int64)
        alarms = Alarms(names, decided.probabilities, decided.raised, active, decided.parts, strengths, faults)
        events: list[tuple[int, Alarm]] = []
        if len(self._episodes) or active.any():
            events = self._episodes.observe(samples, active, strengths, _any(watched[:, _ACCEPTED]))
        if decided.raised.any():
            events += onset_alarms(samples, decided.raised, decided.parts, decided.strengths, names)
        if len(self._faults) or faults.any():
            events += self._faults.observe(samples, faults)
        events.sort(key=_row)
        self._remember(events)
        return replace(result, alarms=alarms), events

    def _evaluate_once(self, result: StepResult, fresh: BoolArray) -> tuple[StepResult, list[tuple[int, Alarm]]]:
        """Return *result* with the alarms of its *fresh* rows.

        A row that follows one of the same record has its alarms too; those of other rows are unknown.
        """
        samples = replace(result.samples.take(fresh), repeated=None)
        part, events = self.evaluate(
            replace(result, samples=samples, losses=result.losses[fresh], learned=result.learned[fresh])
        )
        assert part.alarms is not None
        whole = result.samples
        follows = np.zeros(len(whole), np.bool_)
        follows[1:] = (whole.offsets[1:] == whole.offsets[:-1]) & (whole.origins[1:] == whole.origins[:-1])
        places = np.flatnonzero(fresh)
        events = [(int(places[row]), alarm) for row, alarm in events]
        return replace(result, alarms=part.alarms.spread(fresh, follows & ~fresh)), events

    def _decide(self, result: StepResult, by_column: Float64Array, together: Float64Array) -> "_Decided":
        """Return the decision of the onset head on the evidence *by_column*, of all *together*, and of the losses."""
        samples, count = result.samples, len(result.samples)
        # The largest of several columns is large by chance, as often as there are columns (Bonferroni).
        strongest = by_column.max(axis=1, initial=0.0)
        total = np.maximum(strongest - np.log(max(len(self._columns), 1)), 0.0)
        total = np.maximum(total, together.sum(axis=1))
        # The loss of a held row is of a model that stands still: it would stay high, and say nothing new.
        losses = np.where(result.learned, result.losses, np.nan).astype(np.float64)
        stopped = self._stopped(samples)
        probabilities, from_loss, strengths = np.zeros(count), np.zeros(count), np.zeros(count)
        raised = np.zeros(count, np.bool_)
        for run in self._judged.runs(samples.keys.tolist()):
            if run.evicted is not None:
                self._decision.clear(run.evicted[1])
                self._episodes.drop(run.evicted[0])
                self._faults.drop(run.evicted[0])
            self._decision.reserve(len(self._judged))
            part = run.rows
            slots = np.where(stopped[part], -1, run.slots)
            decide(
                self._decision.arrays,
                total[part],
                losses[part],
                _plain(samples.times_s[part]),
                slots,
                self._decision_options,
                probabilities[part],
                raised[part],
                from_loss[part],
                strengths[part],
            )
        return _Decided(
            probabilities, raised, np.concatenate([by_column + together, from_loss[:, None]], axis=1), strengths
        )

    def correct(self, verdict: Verdict) -> bool:
        """Follow what a person says; return False if the alarm or the key is not known (any more).

        The threshold of the head, or of both, is raised or lowered for this key. If an alarm that lasts was none, the
        present level is accepted as normal.
        """
        if verdict.alarm is not None:
            known = self._recent.get(verdict.alarm)
            if known is None:
                return False
            key, heads = known[0], {known[1]}
        else:
            key, heads = str(verdict.key), {"state", "onset"}
        watched, judged = self._watched.find(key), self._judged.find(key)
        if watched is None or judged is None:
            return False
        level = self._level.arrays
        if "onset" in heads:
            correct(self._decision.arrays.threshold, judged, anomaly=verdict.anomaly)
        if "state" in heads:
            correct(level.threshold, watched, anomaly=verdict.anomaly)
            for column in range(watched * len(self._columns), (watched + 1) * len(self._columns)):
                if not verdict.anomaly and level.left[column] > 0:
                    accept_level(level, column)
        return True

    def _remember(self, events: list[tuple[int, Alarm]]) -> None:
        """Keep the newest alarms, which people may talk of."""
        for _, event in events:
            self._recent[event.id] = (event.key, event.head)
        while len(self._recent) > RECENT_ALARMS:
            del self._recent[next(iter(self._recent))]

    def active(self) -> int:
        """Return the number of keys in alarm."""
        return len(self._episodes)

    def state(self) -> State:
        return {
            "watched": self._watched.state(),
            "judged": self._judged.state(),
            "onset": self._onset.state(len(self._watched)),
            "distance": self._distance.state(len(self._watched)),
            "health": self._health.state(len(self._watched)),
            "level": self._level.state(len(self._watched)),
            "decision": self._decision.state(len(self._judged)),
            "episodes": self._episodes.state(),
            "faults": self._faults.state(),
            "recent": [[number, *known] for number, known in self._recent.items()],
        }

    def restore(self, state: State) -> None:
        """Take over *state*; if it was made with other columns, periods or kinds of thresholds, start anew."""
        watched, judged = len(state["watched"]["keys"]), len(state["judged"]["keys"])
        parts = (
            (self._health, "health", watched),
            (self._onset, "onset", watched),
            (self._distance, "distance", watched),
            (self._level, "level", watched),
            (self._decision, "decision", judged),
        )
        if not all(arrays.fits(state[name], slots) for arrays, name, slots in parts):
            log.warning(
                "alarms_start_again", note="options of the alarms have changed, so what they had remembered is dropped"
            )
            return
        self._watched.restore(state["watched"])
        self._judged.restore(state["judged"])
        for arrays, name, slots in parts:
            arrays.restore(state[name], slots)
        self._episodes.restore(state["episodes"])
        self._faults.restore(state["faults"])
        self._recent = {number: (key, head) for number, key, head in state["recent"]}
