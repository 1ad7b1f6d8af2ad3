"""Compilation of loops over readings to machine code."""

from collections.abc import Callable
from typing import TypeVar

import numba

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Return *function* compiled by Numba, without fast-math, so that its results are those of plain Python.

    The machine code is cached next to the module, or in the user's cache directory. Where neither can be written, it
    is compiled again at every start, which takes seconds.
    """
    try:
        made: _Function = numba.njit(function, cache=True)
    except RuntimeError:  # no place for the cache: a read-only installation
        made = numba.njit(function)
    return made
