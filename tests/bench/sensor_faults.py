"""What a broken sensor does to the model, with and without rules for it.

A simulated fleet of five machines; one sensor of one of them breaks every 1000 ticks, for 200. Each fault is met by the
one rule that is meant for it. Printed is the mean absolute error of wear (0 to 1), predicted before learning, on the
records whose features are sound: all of them after the first fault began, and those of the 100 ticks after each fault,
when the model has yet to recover. The side "no fault" is the same stream with nothing broken, on the same records.
`python -m tests.bench.sensor_faults [SEEDS]`
"""

import sys
import tempfile
from pathlib import Path

from tests.bench.sides import median, seconds, show, spread  # isort: skip - sets the log level

from learnd.core.types import Batch, Position, Records, TopicPartition
from learnd.wiring.learner import configure_tensorflow
from learnd.wiring.stream import make_decoder, make_transforms
from tests.support.helpers import settings
from tests.support.sensor_faults import FAULTS, MACHINES, RULES, Fault, broken_fleet, errors, mean_error

TICKS, EVERY, LASTS, AFTER = 4000, 1000, 200, 100
SIDES = ("no fault", "no rule", "reject", "mean")
ROWS = 50_000


def figures(kind: str, seed: int) -> dict[str, tuple[float, float]]:
    """The error of each side: on all sound records, and on those soon after a fault."""
    starts = range(EVERY, TICKS, EVERY)
    broken, faulty = broken_fleet(TICKS, [Fault(kind, first, LASTS) for first in starts], seed=seed)
    whole, _ = broken_fleet(TICKS, [], seed=seed)
    sound = sorted(set(range(EVERY * MACHINES, TICKS * MACHINES)) - set(faulty))
    ends = [(first + LASTS) * MACHINES for first in starts]
    after = [offset for offset in sound if any(0 <= offset - end < AFTER * MACHINES for end in ends)]
    found = {}
    for side in SIDES:
        rule = {**RULES[kind], "on_fault": side} if side in ("reject", "mean") else None
        with tempfile.TemporaryDirectory() as folder:
            error = errors(Path(folder), whole if side == "no fault" else broken, rule)
        found[side] = mean_error(error, sound), mean_error(error, after)
    return found


def cost_us() -> float:
    """Microseconds that one rule adds to a sound record."""
    text = settings(Path("unused"), features={"a": {"max_change": 1e9, "stuck_after": 99}, "b": None, "c": None})
    values = [b'{"a": 1, "b": 2, "c": 3, "y": 4}'] * ROWS
    records = Records(TopicPartition("t", 0), range(ROWS), values, [None] * ROWS, [0] * ROWS, Position(ROWS))
    samples, _ = make_decoder(text).decode(records)
    samples.x[:, 0] = range(ROWS)
    batch = Batch(samples, (), {records.origin: records.next}, ROWS, 0, records=[records])
    return min(seconds(lambda: make_transforms(text, None)(batch)) for _ in range(5)) / ROWS * 1e6


def main() -> None:
    """Print the tables."""
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    configure_tensorflow(settings(Path("unused")).learning)
    rows = []
    for kind in FAULTS:
        found = [figures(kind, seed) for seed in range(seeds)]
        for side in SIDES:
            overall, after = zip(*(figure[side] for figure in found), strict=True)
            rows.append([kind, side, median(overall), spread(overall), median(after), spread(after)])
    columns = ["fault", "rule", "error, all sound records", "of the seeds", "error, 100 ticks after", "of the seeds"]
    show(f"Mean absolute error of wear, median of {seeds} seeds", columns, rows)
    show("Cost of a rule", ["us a sound record"], [[cost_us()]])


if __name__ == "__main__":
    main()
