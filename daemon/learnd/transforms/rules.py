"""Plausibility rules for readings, per feature and key. They distinguish a broken sensor from a changed machine."""

import copy
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import numpy as np

from learnd.core.protocols import FeatureOptions
from learnd.core.reasons import RejectReason, SkipReason
from learnd.core.types import Batch, Float64Array, Samples, State, Transformed
from learnd.transforms.rejects import RejectedRows

MEAN_READINGS = 1000
"""Time constant, in readings, of the running mean that replaces faulty readings. It is finite because machines age."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Plausibility limits for one feature, and the action on a reading outside them.

    Attributes
    ----------
    column : the column of the feature in `Samples.x`
    min, max : a reading outside is always a fault
    max_change : a reading that differs by more from the last good one is a fault, until `recover_after` readings
    confirm
        the new level
    stuck_after : the last of this many equal readings in a row, and each further equal one, is a fault
    recover_after : number of consecutive readings, each near the one before, that establish a new level
    whole : a reading that is no whole number is always a fault
    on_fault : reject the sample; or learn the last good reading (hold), or the mean of the good readings (mean) instead
    secret : no reading may be quoted in a message
    """

    name: str
    column: int
    min: float = -math.inf
    max: float = math.inf
    max_change: float = math.inf
    stuck_after: float = math.inf
    recover_after: int = 100
    on_fault: Literal["reject", "hold", "mean"] = "reject"
    whole: bool = False
    secret: bool = False


@dataclass(slots=True)
class _Sensor:
    """The history of one feature of one key.

    All fields are numbers, so that a checkpoint stores them as one array, in the order in which they stand here: never
    reorder them.
    """

    good_reading: float = math.nan
    """The last good reading; nan before the first."""
    level_count: float = 0.0
    """Good readings at the current level, at most `Rule.recover_after`."""
    mean: float = 0.0
    """Running mean of the good readings at the current level."""
    mean_count: float = 0.0
    """Good readings in `mean`, at most `MEAN_READINGS`."""
    last_reading: float = math.nan
    """The last reading, good or faulty."""
    equal_count: float = 0.0
    """Readings in a row that equal `last_reading`, itself included."""
    new_level: float = math.nan
    """The last reading that was too far from the last good one."""
    new_level_count: float = 0.0
    """Readings in a row near `new_level`."""

    def check(self, reading: float, rule: Rule) -> RejectReason | None:
        """Add *reading* to the history; return its fault, or None if it is good."""
        self.equal_count = self.equal_count + 1.0 if reading == self.last_reading else 1.0
        self.last_reading = reading
        if not rule.min <= reading <= rule.max or (rule.whole and not reading.is_integer()):
            self.new_level_count = 0.0
            return RejectReason.OUT_OF_RANGE
        if self.equal_count >= rule.stuck_after:
            # The level of a stuck sensor means little, so two readings at another level are enough to leave it.
            self.level_count, self.new_level_count = min(self.level_count, 1.0), 0.0
            return RejectReason.STUCK
        if abs(reading - self.good_reading) > rule.max_change and not self._confirm_level(reading, rule):
            return RejectReason.SUDDEN_CHANGE
        self._accept(reading, rule)
        return None

    def _confirm_level(self, reading: float, rule: Rule) -> bool:
        """Count *reading* towards a new level; return True once the new level is confirmed.

        It takes `recover_after` readings, or more readings than the old level had: a key whose very first reading was
        broken need not wait.
        """
        near = abs(reading - self.new_level) <= rule.max_change
        self.new_level_count = self.new_level_count + 1.0 if near else 1.0
        self.new_level = reading
        if self.new_level_count <= min(self.level_count, rule.recover_after - 1):
            return False
        self.level_count = self.mean_count = 0.0
        return True

    def _accept(self, reading: float, rule: Rule) -> None:
        self.good_reading, self.new_level_count = reading, 0.0
        self.level_count = min(self.level_count + 1.0, float(rule.recover_after))
        self.mean_count = min(self.mean_count + 1.0, float(MEAN_READINGS))
        self.mean += (reading - self.mean) / self.mean_count

    def replacement(self, rule: Rule) -> float:
        """Return the value to learn instead of a faulty reading; nan before the first good one."""
        return self.mean if rule.on_fault == "mean" and self.mean_count else self.good_reading

    def describe(self, reading: float, fault: RejectReason, rule: Rule) -> str:
        """Return the detail of the dead letter for a faulty *reading*."""
        shown, good = ("(secret)",) * 2 if rule.secret else (f"{reading:g}", f"{self.good_reading:g}")
        if fault == RejectReason.OUT_OF_RANGE and rule.whole:
            numbers = f"a whole number from {rule.min:.0f} to {rule.max:.0f}"
            return (
                f"{rule.name} is {'(secret)' if rule.secret else repr(reading)}; the model knows only {numbers} there"
            )
        if fault == RejectReason.OUT_OF_RANGE:
            return f"{rule.name} is {shown}, outside {rule.min:g} to {rule.max:g}, and has no good reading yet"
        if fault == RejectReason.STUCK:
            equal, limit = self.equal_count, rule.stuck_after
            return f"{rule.name} has been {shown} for {equal:g} readings, stuck_after is {limit:g}"
        return f"{rule.name} is {shown}, the last good one {good}, max_change is {rule.max_change:g}"


@dataclass(slots=True)
class _Machine:
    """The sensors of one key, one per rule, and the time of its newest reading."""

    sensors: list[_Sensor]
    newest_s: float = -math.inf


@dataclass(slots=True)
class _Result:
    """The result of checking one batch, filled row by row."""

    rejects: RejectedRows
    learnable: list[bool] = field(default_factory=list)
    """One entry per row: True if the row is learned."""
    replacements: list[tuple[int, int, float]] = field(default_factory=list)
    """Row and column of each faulty reading that is replaced, and its replacement."""
    replaced: Counter[RejectReason] = field(default_factory=Counter)


class Rules:
    """The check of readings for faults, which rejects the sample or replaces the reading, as the feature's rule says.

    Each reading is compared with the earlier ones of the same key and feature, independently of the other features.
    Samples of keys beyond the first *max_keys* are skipped. The result does not depend on how the stream was cut into
    batches. Dead letters contain whole records, from `Batch.records`.

    A record with several rows (`float32`) gives one dead letter, for its first faulty row; its good rows are learned.

    Parameters
    ----------
    drop_duplicates : a reading that is not newer than its key's newest one is checked, but leaves the history unchanged
    """

    def __init__(self, rules: Sequence[Rule], *, drop_duplicates: bool, max_keys: int) -> None:
        # A reading that was sent as float32 may exceed the limit that it equals: 0.1 is 0.10000000149 there.
        self._rules = [
            replace(r, min=min(r.min, float(np.float32(r.min))), max=max(r.max, float(np.float32(r.max))))
            for r in rules
        ]
        self._columns = [rule.column for rule in rules]
        self._drop_duplicates = drop_duplicates
        self._max_keys = max_keys
        self._machines: dict[str, _Machine] = {}

    def __call__(self, batch: Batch) -> Transformed:
        samples = batch.samples
        result = _Result(RejectedRows(batch.records))
        readings = samples.x[:, self._columns].tolist()
        skipped = 0
        for row, (key, time_s, values) in enumerate(
            zip(samples.keys.tolist(), samples.times_s.tolist(), readings, strict=True)
        ):
            machine = self._machine(key)
            if machine is None:
                skipped += 1
                result.learnable.append(False)
                continue
            result.learnable.append(self._check(machine, time_s, values, samples, row, result))
        checked = replace(samples, x=_with_replacements(samples.x, result.replacements))
        return Transformed(
            checked if all(result.learnable) else checked.take(np.array(result.learnable, bool)),
            rejects=result.rejects.all(),
            skipped={SkipReason.TOO_MANY_KEYS: skipped} if skipped else {},
            replaced=result.replaced,
        )

    def _machine(self, key: str) -> _Machine | None:
        """Return the sensors of *key*, new ones if needed; None if there are too many keys."""
        machine = self._machines.get(key)
        if machine is None and len(self._machines) < self._max_keys:
            machine = self._machines[key] = _Machine([_Sensor() for _ in self._rules])
        return machine

    def _check(
        self, machine: _Machine, time_s: float, values: Sequence[float], samples: Samples, row: int, result: _Result
    ) -> bool:
        """Check one sample and add the outcome to *result*; return True if the sample is learned."""
        late = self._drop_duplicates and time_s <= machine.newest_s
        machine.newest_s = max(machine.newest_s, time_s)
        good = True
        replacements: list[tuple[int, int, float]] = []
        faults: list[RejectReason] = []
        for sensor, rule, reading in zip(machine.sensors, self._rules, values, strict=True):
            if math.isnan(reading):
                continue  # missing, which is no fault of the sensor
            history = copy.copy(sensor) if late else sensor
            fault = history.check(reading, rule)
            if fault is None:
                continue
            value = history.replacement(rule)
            if rule.on_fault == "reject" or math.isnan(value):
                good = False
                result.rejects.add(samples, row, fault, history.describe(reading, fault, rule))
            else:
                replacements.append((row, rule.column, value))
                faults.append(fault)
        if good:
            result.replacements += replacements
            result.replaced.update(faults)
        return good

    def state(self) -> State:
        """Return the state; all sensors are one array, shape (keys, rules, numbers)."""
        machines = list(self._machines.values())
        numbers = [[[getattr(s, name) for name in _NUMBERS] for s in machine.sensors] for machine in machines]
        return {
            "features": [rule.name for rule in self._rules],
            "keys": list(self._machines),
            "newest_s": np.array([machine.newest_s for machine in machines], np.float64),
            "sensors": np.array(numbers, np.float64).reshape(len(machines), len(self._rules), len(_NUMBERS)),
        }

    def restore(self, state: State) -> None:
        """Restore sensors by the names of their features, because rules can be added and removed between two runs."""
        position = {name: i for i, name in enumerate(state.get("features", ()))}
        columns = zip(state.get("keys", ()), state.get("newest_s", ()), state.get("sensors", ()), strict=True)
        self._machines = {
            key: _Machine([_sensor(numbers, position.get(rule.name)) for rule in self._rules], float(newest_s))
            for key, newest_s, numbers in columns
        }


_NUMBERS = tuple(number.name for number in fields(_Sensor))


def _sensor(numbers: Float64Array, position: int | None) -> _Sensor:
    """Return the sensor at *position* of a key's *numbers*, shape (rules, numbers); a new one if None."""
    return _Sensor() if position is None else _Sensor(*numbers[position].tolist())


def _with_replacements(x: Float64Array, replacements: Sequence[tuple[int, int, float]]) -> Float64Array:
    """Return a copy of *x* with replaced values, because values that flow are never written to."""
    if not replacements:
        return x
    rows, columns, values = zip(*replacements, strict=True)
    changed = x.copy()
    changed[list(rows), list(columns)] = values
    return changed


def rules_from(features: Mapping[str, FeatureOptions]) -> list[Rule]:
    """Return the configured rules. A feature with only a range and ``reject`` has none: the decoder checks it."""
    return [
        _rule(name, column, options)
        for column, (name, options) in enumerate(features.items())
        if options.max_change is not None
        or options.stuck_after is not None
        or options.whole
        or (options.on_fault != "reject" and (options.min is not None or options.max is not None))
    ]


def _rule(name: str, column: int, options: FeatureOptions) -> Rule:
    return Rule(
        name,
        column,
        min=-math.inf if options.min is None else options.min,
        max=math.inf if options.max is None else options.max,
        max_change=math.inf if options.max_change is None else options.max_change,
        stuck_after=math.inf if options.stuck_after is None else options.stuck_after,
        recover_after=options.recover_after,
        on_fault=options.on_fault,
        whole=options.whole,
        secret=options.secret,
    )
