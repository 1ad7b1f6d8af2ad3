"""An optimizer's state by name, so that it outlives the optimizer object and survives a change of the model's end."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

ITERATION = "iteration"


def slots_of(optimizer: Any, variables: Sequence[Any]) -> dict[str, np.ndarray]:
    """Every variable of the built *optimizer* but its learning rate, copied.

    Keys are ``iteration`` and ``<variable.path>/<slot>``, as ``dense/kernel/momentum``. A variable whose name Keras
    does not derive from one of *variables* (Adafactor's factors, Nadam's product) is called ``optimizer/<position>``.
    """
    return {name: np.array(slot.numpy()) for name, slot in _named(optimizer, variables)}


def assign_slots(optimizer: Any, variables: Sequence[Any], slots: Mapping[str, np.ndarray]) -> list[str]:
    """Give *slots* to the built *optimizer*; return the names that it has and *slots* lacks, or has in another shape.

    The inverse of `slots_of`. What is returned keeps the value that it had; *slots* may hold more.
    """
    missing = []
    for name, slot in _named(optimizer, variables):
        value = slots.get(name)
        if value is None or tuple(value.shape) != tuple(slot.shape):
            missing.append(name)
        else:
            slot.assign(value)
    return missing


def unique_paths(variables: Sequence[Any]) -> list[str]:
    """The variables' paths; a repeated one gets ``#2`` and so on, for users may name two layers alike."""
    seen: dict[str, int] = {}
    paths = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        paths.append(variable.path if count == 1 else f"{variable.path}#{count}")
    return paths


def attributed(name: str, shape: Sequence[int], variables: Mapping[str, Sequence[int]], taken: set[str]) -> str | None:
    """The key of the slot that Keras 3 calls *name*, or None; *variables* are shapes by path.

    >>> attributed("dense_kernel_momentum", (2, 3), {"dense/kernel": (2, 3)}, set())
    'dense/kernel/momentum'
    """
    # The longest path first: "a/b/c" explains "a_b_c_momentum" better than "a/b" does.
    for path in sorted(variables, key=len, reverse=True):
        start = path.partition("#")[0].replace("/", "_") + "_"
        key = f"{path}/{name.removeprefix(start)}"
        if name.startswith(start) and tuple(variables[path]) == tuple(shape) and key not in taken:
            return key
    return None


def _named(optimizer: Any, variables: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    shapes = {path: tuple(v.shape) for path, v in zip(unique_paths(variables), variables, strict=True)}
    taken: set[str] = set()
    for position, slot in enumerate(optimizer.variables):
        if slot.name == "learning_rate":
            continue
        if slot.name == ITERATION:
            key = ITERATION
        else:
            key = attributed(slot.name, tuple(slot.shape), shapes, taken) or f"optimizer/{position}"
        taken.add(key)
        yield key, slot
