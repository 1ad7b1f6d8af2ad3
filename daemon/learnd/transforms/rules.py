"""Rules that tell a broken sensor from a machine that changed, feature by feature and key by key."""

import copy
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import numpy as np

from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import Batch, Float32Array, Records, Reject, Samples, State, TopicPartition, Transformed

MEAN_READINGS = 1000
"""The mean that stands in forgets what is older than about so many readings: machines age."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the readings of one feature owe, and what happens to one that does not keep to it.

    Attributes
    ----------
    min, max : outside is a fault, always
    max_change : a reading that is further from the last good one is a fault, until the new level has shown to be one
    stuck_after : of so many equal readings in a row the last, and all equal ones after it, are faults
    recover_after : consistent readings after which a level far from the last good reading is taken for real
    on_fault : reject the sample; or put the last good reading (hold), or the mean of the good ones (mean), in its place
    """

    name: str
    column: int
    min: float = -math.inf
    max: float = math.inf
    max_change: float = math.inf
    stuck_after: float = math.inf
    recover_after: int = 100
    on_fault: Literal["reject", "hold", "mean"] = "reject"


@dataclass(slots=True)
class _Sensor:
    """What is known of one feature of one key. All numbers, so that the checkpoint holds them as one array."""

    good: float = math.nan
    """The last good reading."""
    held: float = 0.0
    """Good readings in a row at this level, as far as they count."""
    mean: float = 0.0
    """Of the good readings at this level."""
    count: float = 0.0
    last: float = math.nan
    """The last reading, good or not."""
    equal: float = 0.0
    """Readings in a row that equal it."""
    elsewhere: float = math.nan
    """The last reading that was too far from the good ones."""
    steady: float = 0.0
    """Readings in a row that were, and were near each other."""

    def check(self, reading: float, rule: Rule) -> RejectReason | None:
        """The reason why *reading* is faulty, or None; takes note of it either way."""
        self.equal = self.equal + 1.0 if reading == self.last else 1.0
        self.last = reading
        if not rule.min <= reading <= rule.max:
            self.steady = 0.0
            return RejectReason.OUT_OF_RANGE
        if self.equal >= rule.stuck_after:
            # Where a sensor stood still is no measure of where it goes on: two readings elsewhere will do.
            self.held, self.steady = min(self.held, 1.0), 0.0
            return RejectReason.STUCK
        if abs(reading - self.good) > rule.max_change and not self._settled(reading, rule):
            return RejectReason.SUDDEN_CHANGE
        self._accept(reading, rule)
        return None

    def _settled(self, reading: float, rule: Rule) -> bool:
        """Whether readings have been near *reading* for long enough to make it the new level.

        That is for `recover_after` readings, or for more than the old level was held: a key whose very first reading
        was broken must not wait.
        """
        near = abs(reading - self.elsewhere) <= rule.max_change
        self.steady = self.steady + 1.0 if near else 1.0
        self.elsewhere = reading
        if self.steady <= min(self.held, rule.recover_after - 1):
            return False
        self.held = self.count = 0.0
        return True

    def _accept(self, reading: float, rule: Rule) -> None:
        self.good, self.steady = reading, 0.0
        self.held = min(self.held + 1.0, float(rule.recover_after))
        self.count = min(self.count + 1.0, float(MEAN_READINGS))
        self.mean += (reading - self.mean) / self.count

    def stand_in(self, rule: Rule) -> float:
        """What is learned in place of a faulty reading; nan before any good one."""
        return self.mean if rule.on_fault == "mean" and self.count else self.good

    def fault(self, reading: float, reason: RejectReason, rule: Rule) -> str:
        """The fault in words, for the dead letter."""
        if reason == RejectReason.OUT_OF_RANGE:
            return f"{rule.name} is {reading:g}, outside {rule.min:g} to {rule.max:g}, and has no good reading yet"
        if reason == RejectReason.STUCK:
            return f"{rule.name} has been {reading:g} for {self.equal:g} readings, stuck_after is {rule.stuck_after:g}"
        return f"{rule.name} is {reading:g}, the last good one {self.good:g}, max_change is {rule.max_change:g}"


@dataclass(slots=True)
class _Machine:
    """The sensors of one key, one for each rule."""

    sensors: list[_Sensor]
    newest_s: float = -math.inf


@dataclass(slots=True)
class _Verdicts:
    """The verdicts on the samples of one batch."""

    records: Mapping[TopicPartition, Sequence[Records]]
    """The undecoded records of the batch, for the dead letters."""
    learnable: list[bool] = field(default_factory=list)
    rejects: dict[tuple[TopicPartition, int], Reject] = field(default_factory=dict)
    stand_ins: list[tuple[int, int, float]] = field(default_factory=list)
    """Row, column and the value that is learned there."""
    replaced: Counter[RejectReason] = field(default_factory=Counter)


class Rules:
    """Rejects samples with a faulty reading, or puts another value in its place, as the rule of the feature says.

    Every reading is judged against the earlier ones of its key and feature, whatever the other features of its sample
    are. Readings of keys beyond the first *max_keys* are skipped. The result does not depend on how the stream was cut
    into batches. It takes whole records for the dead letters from `Batch.records`.

    A record with several rows (`float32`) gives one dead letter, for its first faulty row; its good rows are learned.

    Parameters
    ----------
    drop_duplicates : a reading that is not newer than its key's newest is judged, and changes no judgement on others
    """

    def __init__(self, rules: Sequence[Rule], *, drop_duplicates: bool, max_keys: int) -> None:
        # Readings come as float32: a bound of 0.1 must not be below a reading of 0.1.
        self._rules = [replace(r, min=float(np.float32(r.min)), max=float(np.float32(r.max))) for r in rules]
        self._columns = [rule.column for rule in rules]
        self._drop_duplicates = drop_duplicates
        self._max_keys = max_keys
        self._machines: dict[str, _Machine] = {}

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        verdicts = _Verdicts(_by_origin(batch.records))
        readings = samples.x[:, self._columns].tolist()
        skipped = 0
        for row, (key, time_s, values) in enumerate(
            zip(samples.keys.tolist(), samples.times_s.tolist(), readings, strict=True)
        ):
            machine = self._machine(key)
            if machine is None:
                skipped += 1
                verdicts.learnable.append(False)
                continue
            verdicts.learnable.append(self._check(machine, time_s, values, samples, row, verdicts))
        checked = replace(samples, x=_with(samples.x, verdicts.stand_ins))
        return Transformed(
            checked if all(verdicts.learnable) else checked.take(np.array(verdicts.learnable, bool)),
            rejects=tuple(verdicts.rejects.values()),
            skipped={SkipReason.TOO_MANY_KEYS: skipped} if skipped else {},
            replaced=verdicts.replaced,
        )

    def _machine(self, key: str) -> _Machine | None:
        machine = self._machines.get(key)
        if machine is None and len(self._machines) < self._max_keys:
            machine = self._machines[key] = _Machine([_Sensor() for _ in self._rules])
        return machine

    def _check(
        self, machine: _Machine, time_s: float, values: Sequence[float], samples: Samples, row: int, verdicts: _Verdicts
    ) -> bool:
        """Check one sample; return True if it is to be learned."""
        late = self._drop_duplicates and time_s <= machine.newest_s
        machine.newest_s = max(machine.newest_s, time_s)
        good = True
        stand_ins: list[tuple[int, int, float]] = []
        reasons: list[RejectReason] = []
        for sensor, rule, reading in zip(machine.sensors, self._rules, values, strict=True):
            asked = copy.copy(sensor) if late else sensor
            reason = asked.check(reading, rule)
            if reason is None:
                continue
            value = asked.stand_in(rule)
            if rule.on_fault == "reject" or math.isnan(value):
                good = False
                _reject(samples, row, reason, asked.fault(reading, reason, rule), verdicts)
            else:
                stand_ins.append((row, rule.column, value))
                reasons.append(reason)
        if good:
            verdicts.stand_ins += stand_ins
            verdicts.replaced.update(reasons)
        return good

    def state(self) -> State:
        """All sensors as one array, shape (keys, rules, numbers)."""
        machines = list(self._machines.values())
        numbers = [[[getattr(s, name) for name in _NUMBERS] for s in machine.sensors] for machine in machines]
        return {
            "features": [rule.name for rule in self._rules],
            "keys": list(self._machines),
            "newest_s": np.array([machine.newest_s for machine in machines], np.float64),
            "sensors": np.array(numbers, np.float64).reshape(len(machines), len(self._rules), len(_NUMBERS)),
        }

    def restore(self, state: State) -> None:
        """Sensors are found by the names of their features: rules may come and go between two runs."""
        position = {name: i for i, name in enumerate(state.get("features", ()))}
        columns = zip(state.get("keys", ()), state.get("newest_s", ()), state.get("sensors", ()), strict=True)
        self._machines = {
            key: _Machine([_sensor(numbers, position.get(rule.name)) for rule in self._rules], float(newest_s))
            for key, newest_s, numbers in columns
        }


_NUMBERS = tuple(number.name for number in fields(_Sensor))


def _sensor(numbers: Any, position: int | None) -> _Sensor:
    return _Sensor() if position is None else _Sensor(*numbers[position].tolist())


def _by_origin(records: Sequence[Records]) -> dict[TopicPartition, list[Records]]:
    """Return the runs of records of each partition."""
    runs: dict[TopicPartition, list[Records]] = {}
    for run in records:
        runs.setdefault(run.origin, []).append(run)
    return runs


def _reject(samples: Samples, row: int, reason: RejectReason, detail: str, verdicts: _Verdicts) -> None:
    origin, offset = samples.origins[row], int(samples.offsets[row])
    if (origin, offset) in verdicts.rejects:
        return
    for run in verdicts.records.get(origin, ()):
        i = bisect_left(run.offsets, offset)
        if i < len(run) and run.offsets[i] == offset:
            verdicts.rejects[origin, offset] = run.reject(i, reason, detail)
            return
    verdicts.rejects[origin, offset] = Reject(origin, offset, reason, detail, None)


def _with(x: Float32Array, stand_ins: Sequence[tuple[int, int, float]]) -> Float32Array:
    """*x* with other values in some places; what flows is not written to."""
    if not stand_ins:
        return x
    rows, columns, values = zip(*stand_ins, strict=True)
    changed = x.copy()
    changed[list(rows), list(columns)] = values
    return changed


def rules_from(features: Mapping[str, Any]) -> list[Rule]:
    """The rules that the configuration asks for; none where only ranges are, which the decoder checks."""
    return [
        _rule(name, column, options)
        for column, (name, options) in enumerate(features.items())
        if options.max_change is not None
        or options.stuck_after is not None
        or (options.on_fault != "reject" and (options.min is not None or options.max is not None))
    ]


def _rule(name: str, column: int, options: Any) -> Rule:
    wanted = {key: getattr(options, key) for key in ("min", "max", "max_change", "stuck_after")}
    set_ones: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    return Rule(name, column, recover_after=options.recover_after, on_fault=options.on_fault, **set_ones)
