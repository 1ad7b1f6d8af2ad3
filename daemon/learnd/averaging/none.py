"""No averaging."""

from collections.abc import Mapping, Sequence
from typing import Any

from learnd.averaging.settings import NoneSettings


class NoAverager:
    """The averaged weights are the live ones."""

    every_samples: int | None = None

    def __init__(self, settings: NoneSettings) -> None:
        """There is nothing to set."""

    def build(self, weights: Sequence[Any]) -> None:
        """No variables of its own."""

    def observe(self, due: Any) -> None:
        """No snapshots."""

    def ready(self) -> Any:
        return False

    def averages(self) -> Sequence[Any] | None:
        return None

    def variables(self) -> Mapping[str, Any]:
        return {}
