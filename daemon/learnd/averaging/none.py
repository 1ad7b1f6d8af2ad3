"""No averaging."""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from learnd.averaging.settings import NoneSettings
from learnd.core.tensors import Tensor, TfVariable, Variable


class NoAverager:
    """Averager without averages: the live weights stand in for them."""

    every_samples: int | None = None

    def __init__(self, settings: NoneSettings) -> None:
        """Accept the settings, which have no options."""

    def build(self, weights: Sequence[Variable]) -> None:
        """Create no variables."""

    def observe(self, due: Tensor) -> None:
        """Take no snapshot."""

    def restart(self) -> None:
        """Do nothing: there is no average."""

    def ready(self) -> Tensor:
        """Return False: there is never an average."""
        never: Tensor = tf.constant(False)
        return never

    def averages(self) -> Sequence[Tensor] | None:
        """Return None, which stands for the live weights."""
        return None

    def variables(self) -> Mapping[str, TfVariable]:
        """Return an empty mapping: there is no state."""
        return {}
