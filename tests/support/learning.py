"""A learner without a stream: rows in, predictions out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learnd.config.loader import from_values
from learnd.core.types import Float64Array, StepResult
from learnd.transforms.key_slots import KeySlots
from learnd.wiring.learner import Learning, make_learning
from tests.support.helpers import make_samples


class LearnerOfRows:
    """The learner that *sections* configure, for rows of *features* numbers, or of named features with options.

    `reset` brings back its first state, so that a test may use one compiled update for several streams.
    """

    def __init__(self, *, features: int | Mapping[str, Any], **sections: Any) -> None:
        values = {
            "source": {"kind": "simulator"},
            "features": [f"x{i}" for i in range(features)] if isinstance(features, int) else features,
            "target": "y",
            "model": {"kind": "mlp"},
            **sections,
        }
        self.settings = from_values({key: value for key, value in values.items() if value is not None})
        self.learning: Learning = make_learning(self.settings, self.settings)
        self._first = self.state()
        self._slots = KeySlots(size=4096)
        self._rows = 0

    def state(self) -> Mapping[str, Any]:
        """Return copies of all variables that a checkpoint holds."""
        return {name: np.array(variable.numpy()) for name, variable in self.learning.variables.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, variable in self.learning.variables.items():
            variable.assign(state[name])

    def reset(self) -> None:
        self.restore(self._first)
        self._slots = KeySlots(size=4096)
        self._rows = 0

    def learn(self, x: Any, y: Any, *, keys: Sequence[str] | None = None, **columns: Any) -> StepResult:
        """Learn the rows *x* with the targets *y*, one column or several."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        y = y[:, None] if y.ndim == 1 else y
        if keys is not None:
            columns["slots"] = self._slots._of(np.array(keys, object))
        samples = make_samples(x, y, first=self._rows, keys=keys, **columns)
        self._rows += len(x)
        return self.learning.model.learner.learn(samples)

    def predictions(self, x: Any, y: Any, *, keys: Sequence[str] | None = None) -> Float64Array:
        """Return what was predicted for each row before it was learned, the first output."""
        return self.learn(x, y, keys=keys).predictions[:, 0]
