"""Whether an export answers as the live model does."""

from collections.abc import Mapping

import numpy as np

from learnd.core.errors import LearndError
from learnd.core.types import Float32Array, Float64Array

_ROUNDING = 1e-6
_UNIT = {"prediction": 0.0, "reconstruction": 0.0}
"""Of what size answers are small, however small they are. Those in the units of the stream have none: a target may be a
millionth. Scores and probabilities are rounded as what they were made of, whose size is about 1."""


class VerificationError(LearndError):
    """The export is not what it should be; it is not published."""


def spread_of(answers: Mapping[str, Float32Array]) -> dict[str, Float64Array]:
    """The standard deviation of every number of an answer over the rows; its size, for fewer than 8 rows.

    float64, in which the squares of no float32 are infinite.

    >>> f"{spread_of({'y': np.array([1e30, 3e30] * 4, np.float32)})['y']:.3g}"
    '1e+30'
    """
    wide = {name: value.astype(np.float64) for name, value in answers.items()}
    return {
        name: value.std(axis=0) if len(value) >= 8 else np.abs(value).max(axis=0, initial=0.0)
        for name, value in wide.items()
    }


def largest_difference(
    what: str,
    got: Mapping[str, Float32Array],
    wanted: Mapping[str, Float32Array],
    spreads: Mapping[str, Float64Array],
    *,
    tolerance: float,
    mean: bool = False,
) -> float:
    """The largest difference between two sets of answers, in units of what is allowed (1.0 would just pass).

    Allowed is *tolerance* times the spread of that number of the answer (`spread_of`), plus the rounding of float32:
    to every single answer, or with *mean* to the root mean square over the rows, where rounding is coarse on purpose.

    Raises
    ------
    VerificationError
        if an output is missing, not finite, or differs by more than that.

    >>> same = {"y": np.ones((9, 1), np.float32)}
    >>> largest_difference("here", same, same, spread_of(same), tolerance=1e-4)
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
        size = np.abs(expected).max(axis=0)
        allowed = tolerance * spreads[name] + _ROUNDING * np.maximum(size, _UNIT.get(name, 1.0))
        errors = np.abs(answer.astype(np.float64) - expected)
        difference = np.sqrt(np.square(errors).mean(axis=0)) if mean else errors.max(axis=0)
        ratios = np.atleast_1d(np.divide(difference, allowed, out=np.zeros_like(difference), where=difference > 0))
        ratio = float(ratios.max())
        if ratio > 1.0:
            place = np.unravel_index(int(ratios.argmax()), ratios.shape)
            there = f"[{', '.join(map(str, place))}]" if difference.ndim else ""
            raise VerificationError(
                f"{what}: {name}{there} differs from the live model by {np.atleast_1d(difference)[place]:.3g}, allowed "
                f"are {np.atleast_1d(allowed)[place]:.3g} (export.tolerance, export.tolerances)"
            )
        worst = max(worst, ratio)
    return worst
