"""The readings that are watched, cut from samples."""

from collections.abc import Callable, Sequence

import numpy as np

from learnd.core.kinds import Watched
from learnd.core.types import Float64Array, Samples


def watched_names(watched: Watched, features: Sequence[str], targets: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the readings.

    >>> watched_names("both", ["a", "b"], ["y"])
    ('a', 'b', 'y')
    """
    return (*features, *targets) if watched == "both" else tuple(features)


def readings_of(watched: Watched, features: int) -> Callable[[Samples], Float64Array]:
    """Return the function from samples to their newest readings, shape (n, readings); nan: unknown.

    The targets of a forecast are the readings after its window, so the newest reading is the last of them.
    """

    def inputs(samples: Samples) -> Float64Array:
        newest = samples.x if samples.x.ndim == 2 else samples.x[:, -1]
        return newest[:, :features]  # seasonal inputs follow them

    def targets(samples: Samples) -> Float64Array:
        return samples.y[:, -features:]

    def both(samples: Samples) -> Float64Array:
        y = samples.y
        if samples.has_target is not None:
            y = np.where(samples.has_target[:, None], y, np.nan)
        return np.concatenate([inputs(samples), y], axis=1)

    return {"inputs": inputs, "targets": targets, "both": both}[watched]
