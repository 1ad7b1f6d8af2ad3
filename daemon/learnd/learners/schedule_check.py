"""A check of learning-rate schedules for streams without an end."""

from typing import Any

import keras
import numpy as np

_LATER = np.unique(np.geomspace(1e8, 1e9, 200).round())
"""Updates at which a rate is looked at: 100 per second take 12 days to the first of them."""
_NOTHING = 1e-3
"""A rate below this share of its largest one teaches nothing."""


def decays_to_zero(schedule: dict[str, Any]) -> bool:
    """Return whether the rate of the configured *schedule* ends below a thousandth of its largest value, forever.

    >>> decays_to_zero({"kind": "CosineDecay", "initial_learning_rate": 0.01, "decay_steps": 1000})
    True
    >>> decays_to_zero({"kind": "CosineDecay", "initial_learning_rate": 0.01, "decay_steps": 1000, "alpha": 0.1})
    False
    """
    arguments = dict(schedule)
    rate_at = getattr(keras.optimizers.schedules, arguments.pop("kind"))(**arguments)
    first = max(float(rate_at(step)) for step in np.unique(np.geomspace(1, 1e6, 50).round()) - 1)
    return max(float(rate_at(step)) for step in _LATER) < _NOTHING * first
