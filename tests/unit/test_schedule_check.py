"""Learning rates that decay to zero on a stream without an end."""

from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from learnd.learners.schedule_check import decays_to_zero
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import settings

DECAY: dict[str, Any] = {"initial_learning_rate": 0.01, "decay_steps": 1000}


@pytest.mark.parametrize(
    ("schedule", "ends_at_zero"),
    [
        ({"kind": "ExponentialDecay", **DECAY, "decay_rate": 0.9}, True),
        ({"kind": "ExponentialDecay", **DECAY, "decay_rate": 1.0}, False),
        ({"kind": "InverseTimeDecay", **DECAY, "decay_rate": 0.5}, True),
        ({"kind": "CosineDecay", **DECAY}, True),
        ({"kind": "PolynomialDecay", **DECAY, "end_learning_rate": 0.001}, False),
        ({"kind": "PolynomialDecay", **DECAY, "end_learning_rate": 0.0}, True),
        ({"kind": "PiecewiseConstantDecay", "boundaries": [100], "values": [0.01, 0.001]}, False),
        ({"kind": "CosineDecayRestarts", "initial_learning_rate": 0.01, "first_decay_steps": 1000}, False),
    ],
    ids=str,
)
def test_a_schedule_is_followed_to_its_end(schedule: dict[str, Any], ends_at_zero: bool) -> None:
    """By the rate that Keras computes."""
    assert decays_to_zero(schedule) == ends_at_zero


@pytest.mark.parametrize(("rate", "warnings"), [({"kind": "CosineDecay", **DECAY}, 1), (0.01, 0)])
def test_a_start_warns_of_a_rate_that_decays_to_zero(rate: object, warnings: int, tmp_path: Path) -> None:
    """The warning names the option and the way out."""
    learning = {"mode": "per_sample", "compile": False, "optimizer": {"learning_rate": rate}}
    with structlog.testing.capture_logs() as logs:
        make_pipeline(settings(tmp_path, learning=learning))
    found = [entry for entry in logs if entry["event"] == "learning_rate_decays_to_zero"]
    assert len(found) == warnings
    for entry in found:
        assert entry["option"] == "learning.optimizer.learning_rate"
        assert "set a number" in entry["note"]
