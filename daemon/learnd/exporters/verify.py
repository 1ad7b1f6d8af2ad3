"""Whether an export answers as the live model does."""

from collections.abc import Mapping

import numpy as np

from learnd.errors import LearndError
from learnd.types import Float32Array

_ROUNDING = 1e-6


class VerificationError(LearndError):
    """The export is not what it should be; it is not published."""


def largest_difference(
    what: str,
    got: Mapping[str, Float32Array],
    wanted: Mapping[str, Float32Array],
    *,
    tolerance: float,
) -> float:
    """The largest difference between two sets of answers, in units of what is allowed (1.0 would just pass).

    Allowed is *tolerance* times the spread of the wanted answers over the rows (their size, for fewer than 8 rows),
    plus the rounding of float32.

    Raises
    ------
    VerificationError
        if an output is missing, not finite, or differs by more than that.

    >>> same = {"y": np.ones((9, 1), np.float32)}
    >>> largest_difference("here", same, same, tolerance=1e-4)
    0.0
    """
    if sorted(got) != sorted(wanted):
        raise VerificationError(f"{what}: outputs are {sorted(got)}, expected {sorted(wanted)}")
    worst = 0.0
    for name, expected in wanted.items():
        answer = got[name]
        if answer.shape != expected.shape:
            raise VerificationError(f"{what}: {name} has shape {answer.shape}, expected {expected.shape}")
        if not np.isfinite(answer).all() or not np.isfinite(expected).all():
            raise VerificationError(f"{what}: {name} is not finite")
        size = float(np.abs(expected).max())
        spread = float(expected.std(axis=0).max()) if len(expected) >= 8 else size
        allowed = tolerance * spread + _ROUNDING * max(size, 1.0)
        difference = float(np.abs(answer.astype(np.float64) - expected).max())
        if difference > allowed:
            raise VerificationError(
                f"{what}: {name} differs from the live model by {difference:.3g}, allowed are {allowed:.3g} "
                "(export.tolerance)"
            )
        worst = max(worst, difference / allowed)
    return worst
