"""A broken sensor does not drag the model along, where a rule is meant for it."""

from collections import ChainMap
from pathlib import Path

from tests.support.sensor_faults import MACHINES, RULES, Fault, broken_fleet, errors, mean_error


def test_the_error_on_sound_records_is_lower_with_rules_than_without(tmp_path: Path) -> None:
    """During and after each of three faults: a constant value, one out of range, a scale times 1000."""
    faults = [Fault(kind, 400 * (i + 1), 200) for i, kind in enumerate(RULES)]
    values, faulty = broken_fleet(1600, faults, seed=0)
    without = errors(tmp_path / "without", values, None)
    ruled = errors(tmp_path / "ruled", values, dict(ChainMap(*map(dict, RULES.values()))))
    assert len(without) == len(values)
    # Four readings of the constant are let in; the first of them is still the sensor's own.
    assert len(values) - len(ruled) == len(faulty) - 4
    for fault in faults:
        first, last = fault.first * MACHINES, (fault.first + 400) * MACHINES
        sound = sorted(set(range(first, last)) - set(faulty))
        assert mean_error(ruled, sound) < mean_error(without, sound), fault
