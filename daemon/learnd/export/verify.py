"""Comparison of an export's answers with those of the live model."""

from collections.abc import Mapping

import numpy as np

from learnd.core.errors import VerificationError
from learnd.core.types import Float32Array, Float64Array

_ROUNDING = 1e-6
_UNIT = {"prediction": 0.0, "reconstruction": 0.0}
"""Smallest size, by output, that float32 rounding is relative to; 1 for outputs that are not listed.

Outputs in the units of the stream have no smallest size, because a target may be a millionth. Scores and probabilities
are rounded like the numbers that they were computed from, whose size is about 1."""


def spread_of(answers: Mapping[str, Float32Array]) -> dict[str, Float64Array]:
    """Return the standard deviation over the rows of every number of an answer; its size, for fewer than 8 rows.

    Computes in float64, because the square of a large float32 is infinite in float32.

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
    actual: Mapping[str, Float32Array],
    expected: Mapping[str, Float32Array],
    spreads: Mapping[str, Float64Array],
    *,
    tolerance: float,
    mean: bool = False,
) -> float:
    """Return the largest difference between two sets of answers, in units of the limit (1.0 just passes).

    The limit for each number of an answer is *tolerance* times its spread (`spread_of`), plus the rounding of float32.
    It applies to every single answer. With *mean* it applies to the root mean square over the rows, for formats that
    round on purpose.

    Raises
    ------
    VerificationError
        if an output is missing, not finite, or differs by more than the limit; the message begins with *what*.

    >>> same = {"y": np.ones((9, 1), np.float32)}
    >>> largest_difference("here", same, same, spread_of(same), tolerance=1e-4)
    0.0
    """
    if sorted(actual) != sorted(expected):
        raise VerificationError(f"{what}: outputs are {sorted(actual)}, expected {sorted(expected)}")
    largest = 0.0
    for name, values in expected.items():
        unit = _UNIT.get(name, 1.0)
        ratio = _largest_ratio(f"{what}: {name}", actual[name], values, spreads[name], tolerance, unit, mean)
        largest = max(largest, ratio)
    return largest


def _largest_ratio(
    what: str,
    actual: Float32Array,
    expected: Float32Array,
    spread: Float64Array,
    tolerance: float,
    unit: float,
    mean: bool,
) -> float:
    """Return the largest difference in one output, in units of the limit; see `largest_difference`."""
    if actual.shape != expected.shape:
        raise VerificationError(f"{what} has shape {actual.shape}, expected {expected.shape}")
    if not np.isfinite(actual).all() or not np.isfinite(expected).all():
        raise VerificationError(f"{what} is not finite")
    size = np.abs(expected).max(axis=0)
    limit = tolerance * spread + _ROUNDING * np.maximum(size, unit)
    errors = np.abs(actual.astype(np.float64) - expected)
    difference = np.sqrt(np.square(errors).mean(axis=0)) if mean else errors.max(axis=0)
    ratios = np.atleast_1d(np.divide(difference, limit, out=np.zeros_like(difference), where=difference > 0))
    ratio = float(ratios.max())
    if ratio > 1.0:
        place = np.unravel_index(int(ratios.argmax()), ratios.shape)
        index = f"[{', '.join(map(str, place))}]" if difference.ndim else ""
        raise VerificationError(
            f"{what}{index} differs from the live model by {np.atleast_1d(difference)[place]:.3g}; the limit is "
            f"{np.atleast_1d(limit)[place]:.3g} (export.tolerance, export.tolerances)"
        )
    return ratio
