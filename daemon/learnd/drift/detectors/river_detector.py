"""A detector of the library river, with a state of plain values: nothing is pickled.

The state is the object's attributes, by the types that are known here. The core of ADWIN is compiled; it gives and
takes its state as bytes. What the bytes and the private attributes mean may change with the version of river, so the
state names it (`VERSION`), and the state of another version is refused.
"""

import random
from collections import deque
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from river._river_rust.drift import AdaptiveWindowing
from river.base import DriftDetector
from river.stats import Mean

from learnd.core.errors import ConfigError, Problem
from learnd.core.types import State

VERSION = version("river")


class RiverDetector:
    """One of river's detectors.

    Parameters
    ----------
    make : returns a detector that has observed nothing
    """

    def __init__(self, make: Callable[[], DriftDetector]) -> None:
        self._make = make
        self._detector = make()

    def observe(self, value: float) -> bool:
        """Observe *value*; return whether there is drift."""
        self._detector.update(value)
        return bool(self._detector.drift_detected)

    def reset(self) -> None:
        """Forget everything."""
        self._detector = self._make()

    def state(self) -> State:
        return {"version": VERSION, "attributes": _saved(vars(self._detector))}

    def fits(self, state: State) -> bool:
        """Return whether this version of river wrote *state*."""
        return bool(state.get("version") == VERSION)

    def restore(self, state: State) -> None:
        self.reset()
        _restore(self._detector, state["attributes"])


def _saved(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of *attributes* as plain values; methods, which follow from the options, are left out."""
    return {name: _plain(value) for name, value in attributes.items() if not callable(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, deque):
        return [_plain(item) for item in value]
    if isinstance(value, random.Random):
        return list(value.getstate()[1])
    if isinstance(value, AdaptiveWindowing):
        return value.__getstate__()
    if isinstance(value, Mean):
        return _saved(vars(value))
    message = f"river {VERSION} has a detector with a {type(value).__name__}, whose state cannot be saved"
    raise ConfigError(Problem("drift.detectors", f"{message}; install river 0.26, or set drift: {{enabled: false}}"))


def _restore(detector: object, attributes: Mapping[str, Any]) -> None:
    """Set the attributes of *detector*, whose other attributes are those of a new one."""
    for name, saved in attributes.items():
        value = getattr(detector, name)
        if isinstance(value, deque):
            setattr(detector, name, deque(saved, maxlen=value.maxlen))
        elif isinstance(value, random.Random):
            value.setstate((3, tuple(saved), None))
        elif isinstance(value, AdaptiveWindowing):
            value.__setstate__(saved)
        elif isinstance(value, Mean):
            _restore(value, saved)
        else:
            setattr(detector, name, saved)
