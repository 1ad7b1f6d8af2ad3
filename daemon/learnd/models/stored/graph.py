"""Pure functions on TensorFlow's GraphDef: what an output needs, in which order, and what the nodes are called."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf

PASSES_ON = frozenset({"Identity", "IdentityN", "StopGradient", "Snapshot", "EnsureShape", "PreventGradient"})
"""Operations whose first output is their first input."""


def node_name(tensor: str) -> str:
    """The node that makes *tensor*, or that is waited for.

    >>> node_name("dense/Relu:0"), node_name("^dense/Assert")
    ('dense/Relu', 'dense/Assert')
    """
    return tensor.lstrip("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """A name that `import_graph_def` returns a tensor for.

    >>> tensor_name("dense/Relu")
    'dense/Relu:0'
    """
    return name if ":" in name else f"{name}:0"


def backwards(nodes: Mapping[str, Any], start: str) -> list[Any]:
    """The nodes that *start* depends on, itself included, the nearest first."""
    queue, seen = deque([start]), {start}
    found = []
    while queue:
        node = nodes[queue.popleft()]
        found.append(node)
        inputs = [node_name(name) for name in node.input]
        queue.extend(name for name in dict.fromkeys(inputs) if name not in seen)
        seen.update(inputs)
    return found


def in_order(nodes: Mapping[str, Any], start: str) -> list[str]:
    """The names of the nodes that *start* depends on, each behind its inputs: weights come in the order of layers."""
    order: dict[str, None] = {}
    stack = [(start, False)]
    while stack:
        name, inputs_done = stack.pop()
        if inputs_done:
            order[name] = None
        elif name not in order:
            stack.append((name, True))
            stack.extend((node_name(entry), False) for entry in reversed(nodes[name].input))
    return list(order)


def pruned(graph: Any, result: str) -> Any:
    """A copy of *graph* with what the tensor *result* needs and nothing else, in the order of *graph*."""
    kept = {node.name for node in backwards(by_name(graph), node_name(result))}
    copy = tf.compat.v1.GraphDef(versions=graph.versions)
    copy.node.extend(node for node in graph.node if node.name in kept)
    _keep_functions(graph.library, copy)
    return copy


def by_name(graph: Any) -> dict[str, Any]:
    """The nodes of *graph*."""
    return {node.name: node for node in graph.node}


def anywhere(graph: Any) -> Iterable[Any]:
    """All nodes, those of the functions included."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def placeholder(node: Any, dtype: int, shape: Sequence[int]) -> None:
    """Turn *node* into a Placeholder: the value that it held goes."""
    node.op = "Placeholder"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def forget_origin(graph: Any) -> None:
    """Remove what ties the nodes to the process or machine that made them."""
    for node in anywhere(graph):
        node.device = ""
        # Gradients and shapes that were registered or inferred elsewhere; TensorFlow finds its own.
        for key in ("_gradient_op_type", "_class", "_output_shapes", "_XlaMustCompile"):
            node.attr.pop(key, None)


def with_own_functions(graph: Any, suffix: str) -> Any:
    """A copy of *graph* whose functions have *suffix* at the end of their names."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    names = {function.signature.name for function in copy.library.function}
    for function in copy.library.function:
        function.signature.name += suffix
    for node in anywhere(copy):
        if node.op in names:
            node.op += suffix
        for attribute in node.attr.values():
            for function in [attribute.func, *attribute.list.func]:
                if function.name in names:
                    function.name += suffix
    return copy


def _keep_functions(library: Any, copy: Any) -> None:
    functions = {function.signature.name: function for function in library.function}
    wanted = deque(_functions_of(copy.node))
    kept: set[str] = set()
    while wanted:
        name = wanted.popleft()
        if name in functions and name not in kept:
            kept.add(name)
            wanted.extend(_functions_of(functions[name].node_def))
    copy.library.function.extend(functions[name] for name in sorted(kept))


def _functions_of(nodes: Iterable[Any]) -> Iterable[str]:
    for node in nodes:
        yield node.op
        for attribute in node.attr.values():
            yield attribute.func.name
            yield from (function.name for function in attribute.list.func)
