"""The arguments of Keras's optimizers and schedules, read from its source: importing Keras takes seconds."""

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def keras_arguments(kind: str) -> frozenset[str]:
    """Return the names that the optimizer or schedule *kind* takes; empty if they cannot be found out.

    >>> sorted(keras_arguments("ExponentialDecay"))
    ['decay_rate', 'decay_steps', 'initial_learning_rate', 'staircase']
    """
    spec = find_spec("keras")
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    folder = Path(spec.submodule_search_locations[0]) / "src" / "optimizers"
    for path in sorted(folder.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f"class {kind}(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef) and node.name == kind:
                return _of_constructor(node)
    return frozenset()


def _of_constructor(node: ast.ClassDef) -> frozenset[str]:
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and member.name == "__init__":
            names = [argument.arg for argument in (*member.args.args, *member.args.kwonlyargs)]
            return frozenset(names) - {"self", "name"}
    return frozenset()
