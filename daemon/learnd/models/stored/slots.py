"""An optimizer's state by name, so that it outlives the optimizer object and a replacement of the model's head."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from learnd.core.tensors import Array, Optimizer, Variable

ITERATION = "iteration"
"""Name of the count of steps."""


def slots_of(optimizer: Optimizer, variables: Sequence[Variable]) -> dict[str, Array]:
    """Return copies of all variables of the built *optimizer*, except its learning rate.

    Keys are ``iteration`` and ``<variable.path>/<slot>``, such as ``dense/kernel/momentum``. A slot whose name Keras
    does not derive from one of *variables* (Adafactor's factors, Nadam's product) is called ``optimizer/<position>``.
    """
    return {name: np.array(slot.numpy()) for name, slot in _by_name(optimizer, variables)}


def assign_slots(optimizer: Optimizer, variables: Sequence[Variable], slots: Mapping[str, Array]) -> list[str]:
    """Assign *slots* to the built *optimizer*: the inverse of `slots_of`.

    Returns the names that *slots* lacks or has in another shape. Those keep their present value. Names that the
    optimizer does not have are ignored.
    """
    missing = []
    for name, slot in _by_name(optimizer, variables):
        value = slots.get(name)
        if value is None or tuple(value.shape) != tuple(slot.shape):
            missing.append(name)
        else:
            slot.assign(value)
    return missing


def unique_paths(variables: Sequence[Variable]) -> list[str]:
    """Return the variables' paths. A repeated one gets ``#2`` and so on, because two layers may have the same name."""
    seen: dict[str, int] = {}
    paths = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        paths.append(variable.path if count == 1 else f"{variable.path}#{count}")
    return paths


def slot_key(name: str, shape: Sequence[int], variables: Mapping[str, Sequence[int]], used: set[str]) -> str | None:
    """Return the key of the slot that Keras 3 calls *name*; None if it belongs to none of *variables*.

    *variables* are shapes by path. Keys in *used* are not returned again.

    >>> slot_key("dense_kernel_momentum", (2, 3), {"dense/kernel": (2, 3)}, set())
    'dense/kernel/momentum'
    """
    # The longest path first: "a/b/c" explains "a_b_c_momentum" better than "a/b" does.
    for path in sorted(variables, key=len, reverse=True):
        start = path.partition("#")[0].replace("/", "_") + "_"
        key = f"{path}/{name.removeprefix(start)}"
        if name.startswith(start) and tuple(variables[path]) == tuple(shape) and key not in used:
            return key
    return None


def _by_name(optimizer: Optimizer, variables: Sequence[Variable]) -> Iterator[tuple[str, Variable]]:
    shapes = {path: tuple(v.shape) for path, v in zip(unique_paths(variables), variables, strict=True)}
    used: set[str] = set()
    for position, slot in enumerate(optimizer.variables):
        if slot.name == "learning_rate":
            continue
        if slot.name == ITERATION:
            key = ITERATION
        else:
            key = slot_key(slot.name, tuple(slot.shape), shapes, used) or f"optimizer/{position}"
        used.add(key)
        yield key, slot
