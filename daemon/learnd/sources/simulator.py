"""The source that simulates a fleet of machines. Sensors are correlated, follow wear and time of day, drift and fail.

Every reading depends only on the seed and its offset, so the stream can be resumed anywhere. The true wear, drift and
fault are in each record next to the sensors, to measure the quality of a model.
"""

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from learnd.core.layout import TextLayout
from learnd.core.types import Float64Array, Offsets, Position, Positions, Records, TopicPartition
from learnd.sources.settings import SimulatorSettings, SourceContext

PARTITION = TopicPartition("simulator", 0)
EPOCH_S = 1_735_689_600  # 2025-01-01T00:00:00Z
BLOCK_TICKS = 512
DRIFT_TICKS = 8 * BLOCK_TICKS
FAULT_TICKS = 64

# Name, level, and the effects of load, wear, time of day and the sensor's own noise.
_SENSORS = (
    ("temperature", 70.0, 6.0, 12.0, 4.0, 1.0),
    ("pressure", 101_325.0, 900.0, -400.0, 150.0, 120.0),
    ("vibration", 2.0, 0.3, 1.6, 0.0, 0.12),
    ("current", 12.0, 3.0, 1.1, 0.0, 0.25),
    ("speed", 1500.0, 180.0, -60.0, 0.0, 9.0),
    ("torque", 40.0, 9.0, 2.5, 0.0, 0.8),
)


def sensor_names(count: int) -> list[str]:
    """Return the names of the first *count* sensors.

    >>> sensor_names(2), sensor_names(8)[6:]
    (['temperature', 'pressure'], ['temperature_2', 'pressure_2'])
    """
    rounds = [(_SENSORS[i % len(_SENSORS)][0], i // len(_SENSORS) + 1) for i in range(count)]
    return [name if turn == 1 else f"{name}_{turn}" for name, turn in rounds]


class SimulatorSource:
    """One partition of JSON records. Record n is machine ``n % machines`` at tick ``n // machines``."""

    def __init__(
        self,
        settings: SimulatorSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sleep = sleep
        self._offset = 0
        self._opened_at = 0
        self._opened_s = 0.0
        self._block = -1
        self._values: list[bytes] = []
        self._names = sensor_names(settings.sensors)
        table = np.array([row[1:] for row in _SENSORS], dtype=np.float64)
        self._table = table[np.arange(settings.sensors) % len(_SENSORS)]
        fleet = np.random.default_rng([settings.seed, 1])
        machines = settings.machines
        self._life_ticks = fleet.integers(3000, 9000, machines)
        self._age_ticks = fleet.integers(0, self._life_ticks)
        self._individual = fleet.normal(0.0, 0.5, (machines, settings.sensors))
        # Sensors share part of their noise. A random orthogonal matrix mixes it without changing the spread of each
        # sensor.
        mix, _ = np.linalg.qr(fleet.normal(size=(settings.sensors, settings.sensors)))
        self._mix = 0.6 * mix + 0.8 * np.eye(settings.sensors)

    @classmethod
    def from_settings(cls, settings: SimulatorSettings, context: SourceContext) -> "SimulatorSource":
        """Return the configured source."""
        return cls(settings)

    @staticmethod
    def layout(settings: SimulatorSettings) -> TextLayout:
        """Return an empty layout of text records: the simulator makes JSON."""
        return TextLayout()

    def open(self, positions: Positions) -> None:
        self._offset = self._opened_at = positions.get(PARTITION, Position(0)).offset
        self._opened_s = self._clock()

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Records]:
        count = self._available(max_records)
        if count == 0 and not self.exhausted():
            rate = self._settings.rate_per_s or 1.0
            self._sleep(min(timeout_s, 1.0 / rate))
            count = self._available(max_records)
        if count == 0:
            return []
        first = self._offset
        values: list[bytes] = []
        times: list[int] = []
        while len(values) < count:
            block, start = divmod(first + len(values), BLOCK_TICKS * self._settings.machines)
            if block != self._block:
                self._values, self._block = self._generate(block), block
            values += self._values[start : start + count - len(values)]
        for offset in range(first, first + count):
            tick = offset // self._settings.machines
            times.append(int((EPOCH_S + tick * self._settings.interval_s) * 1000))
        self._offset += count
        none = [None] * count
        return [Records(PARTITION, range(first, first + count), values, none, times, Position(self._offset))]

    def _available(self, max_records: int) -> int:
        count = max_records
        if self._settings.records is not None:
            count = min(count, self._settings.records - self._offset)
        if self._settings.rate_per_s is not None:
            elapsed_s = self._clock() - self._opened_s
            due = self._opened_at + int(elapsed_s * self._settings.rate_per_s)
            count = min(count, due - self._offset)
        return max(0, count)

    def _generate(self, block: int) -> list[bytes]:
        """Return the records of one block of `BLOCK_TICKS` ticks, in order of tick and machine."""
        settings = self._settings
        machines = settings.machines
        ticks = np.arange(block * BLOCK_TICKS, (block + 1) * BLOCK_TICKS)
        random = np.random.default_rng([settings.seed, 2, block])
        age = (ticks[:, None] + self._age_ticks) % self._life_ticks
        wear = (age / self._life_ticks) ** 1.5
        times_s = EPOCH_S + ticks.astype(np.float64) * settings.interval_s
        day = np.sin(2 * np.pi * times_s / 86_400.0)[:, None]
        load = 0.5 + 0.3 * day + 0.2 * random.normal(size=(BLOCK_TICKS, machines))
        level, by_load, by_wear, by_day, spread = self._table.T
        noise = random.normal(size=(BLOCK_TICKS, machines, settings.sensors)) @ self._mix
        drift = self._drift(block)
        readings = (
            level
            + load[..., None] * by_load
            + wear[..., None] * by_wear
            + day[..., None] * by_day
            + (self._individual + drift + settings.noise * noise) * spread
        )
        faulty = self._break_sensors(readings, spread, block)
        return self._encode(readings, wear, drift, faulty, times_s)

    def _drift(self, block: int) -> Float64Array:
        """Return the lasting shift per machine and sensor, in standard deviations, shape (machines, sensors)."""
        settings = self._settings
        era = block * BLOCK_TICKS // DRIFT_TICKS
        if era == 0 or settings.drift == 0:
            return np.zeros((settings.machines, settings.sensors))
        random = np.random.default_rng([settings.seed, 3, era])
        return settings.drift * random.normal(size=(settings.machines, settings.sensors))

    def _break_sensors(self, readings: Float64Array, spread: Float64Array, block: int) -> Float64Array:
        """Add faults to *readings*; return their places as 0 and 1, shape (ticks, machines)."""
        settings = self._settings
        random = np.random.default_rng([settings.seed, 4, block])
        faulty = np.zeros(readings.shape[:2])
        chance = min(1.0, settings.fault_rate * BLOCK_TICKS / FAULT_TICKS)
        for machine in np.nonzero(random.random(settings.machines) < chance)[0]:
            start = int(random.integers(0, BLOCK_TICKS - FAULT_TICKS))
            sensor = int(random.integers(0, settings.sensors))
            part = readings[start : start + FAULT_TICKS, machine, sensor]
            kind = int(random.integers(0, 3))
            if kind == 0:
                part += 8.0 * spread[sensor]
            elif kind == 1:
                part[:] = part[0] + 5.0 * spread[sensor]
            else:
                part += random.normal(0.0, 8.0 * spread[sensor], FAULT_TICKS)
            faulty[start : start + FAULT_TICKS, machine] = 1.0
        return faulty

    def _encode(
        self,
        readings: Float64Array,
        wear: Float64Array,
        drift: Float64Array,
        faulty: Float64Array,
        times_s: Float64Array,
    ) -> list[bytes]:
        encode = msgspec.json.Encoder().encode
        names = [f"machine-{m:02d}" for m in range(self._settings.machines)]
        drifts = np.abs(drift).max(axis=1).round(3).tolist()
        rounded = readings.round(4).tolist()
        records: list[bytes] = []
        for t, now_s in enumerate(times_s.tolist()):
            for m, name in enumerate(names):
                record: dict[str, object] = {"ts": now_s, "machine": name}
                record.update(zip(self._names, rounded[t][m], strict=True))
                record["wear"] = round(float(wear[t, m]), 6)
                record["truth"] = {"fault": bool(faulty[t, m]), "drift": drifts[m]}
                records.append(encode(record))
        return records

    def ends(self) -> Offsets:
        return {} if self._settings.records is None else {PARTITION: self._settings.records}

    def positions(self) -> Positions:
        return {PARTITION: Position(self._offset)}

    def lags(self) -> Mapping[TopicPartition, int]:
        if self._settings.records is None:
            return {}
        return {PARTITION: max(0, self._settings.records - self._offset)}

    def connected(self) -> bool:
        return True

    def exhausted(self) -> bool:
        return self._settings.records is not None and self._offset >= self._settings.records

    def acknowledge(self, offsets: Offsets) -> None:
        """Do nothing: the simulator keeps no offsets."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
