"""What a reaction to drift can change in a learner; see `learnd.core.protocols.Controls`."""

from collections.abc import Sequence

from learnd.core.tensors import Optimizer


class LearnerControls:
    """The controls of one learner, or of all members of an ensemble."""

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = optimizers
        self._rates: list[float] | None = None

    def scale_rates(self, factor: float) -> None:
        if self._rates is None:
            if factor == 1.0:
                return
            self._rates = [float(optimizer.learning_rate.numpy()) for optimizer in self._optimizers]
        for optimizer, rate in zip(self._optimizers, self._rates, strict=True):
            optimizer.learning_rate.assign(rate * factor)
