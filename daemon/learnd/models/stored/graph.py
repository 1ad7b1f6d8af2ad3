"""Pure functions on TensorFlow's GraphDef: dependencies of an output, their order, and the names of nodes."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, Protocol

import tensorflow as tf

PASSES_ON = frozenset({"Identity", "IdentityN", "StopGradient", "Snapshot", "EnsureShape", "PreventGradient"})
"""Operations whose first output equals their first input."""


class Node(Protocol):
    """A NodeDef: one operation of a graph."""

    name: str
    op: str
    device: str

    @property
    def input(self) -> MutableSequence[str]: ...

    @property
    def attr(self) -> MutableMapping[str, Any]: ...


class Nodes(Protocol):
    """The repeated field of nodes of a graph."""

    def __iter__(self) -> Iterator[Node]: ...

    def add(self, **fields: str) -> Node: ...

    def extend(self, nodes: Iterable[Node], /) -> None: ...


class Function(Protocol):
    """A FunctionDef: a graph that nodes of other graphs call."""

    @property
    def signature(self) -> Any: ...

    @property
    def node_def(self) -> Sequence[Node]: ...


class Functions(Protocol):
    """The library of a graph: the functions that its nodes call."""

    @property
    def function(self) -> MutableSequence[Function]: ...


class GraphDef(Protocol):
    """TensorFlow's protocol buffer of a graph."""

    @property
    def node(self) -> Nodes: ...

    @property
    def library(self) -> Functions: ...

    @property
    def versions(self) -> object: ...

    def CopyFrom(self, other: "GraphDef", /) -> None: ...  # noqa: N802  # the name that protobuf gives it

    def SerializeToString(self, *, deterministic: bool) -> bytes: ...  # noqa: N802


def node_name(tensor: str) -> str:
    """Return the name of the node that computes *tensor*, or that a control input waits for.

    >>> node_name("dense/Relu:0"), node_name("^dense/Assert")
    ('dense/Relu', 'dense/Assert')
    """
    return tensor.lstrip("^").partition(":")[0]


def tensor_name(name: str) -> str:
    """Return a name for which `import_graph_def` returns a tensor.

    >>> tensor_name("dense/Relu")
    'dense/Relu:0'
    """
    return name if ":" in name else f"{name}:0"


def backwards(nodes: Mapping[str, Node], start: str) -> list[Node]:
    """Return the nodes that *start* depends on, itself included, nearest first."""
    queue, seen = deque([start]), {start}
    dependencies = []
    while queue:
        node = nodes[queue.popleft()]
        dependencies.append(node)
        inputs = [node_name(name) for name in node.input]
        queue.extend(name for name in dict.fromkeys(inputs) if name not in seen)
        seen.update(inputs)
    return dependencies


def in_order(nodes: Mapping[str, Node], start: str) -> list[str]:
    """Return the names of the nodes that *start* depends on, each after its inputs.

    Weights are therefore in the order of the layers.
    """
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


def pruned(graph: GraphDef, result: str) -> GraphDef:
    """Return a copy of *graph* with only what the tensor *result* needs, in the order of *graph*."""
    names = {node.name for node in backwards(by_name(graph), node_name(result))}
    copy: GraphDef = tf.compat.v1.GraphDef(versions=graph.versions)
    copy.node.extend(node for node in graph.node if node.name in names)
    _copy_functions(graph.library, copy)
    return copy


def by_name(graph: GraphDef) -> dict[str, Node]:
    """Return the nodes of *graph* by name."""
    return {node.name: node for node in graph.node}


def _all_nodes(graph: GraphDef) -> Iterator[Node]:
    """Yield all nodes of *graph*, those of its functions included."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def make_placeholder(node: Node, dtype: int, shape: Sequence[int]) -> None:
    """Turn *node* into a Placeholder. The value in it is removed."""
    node.op = "Placeholder"
    node.attr.clear()
    node.attr["dtype"].type = dtype
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(shape).as_proto())


def forget_origin(graph: GraphDef) -> None:
    """Remove what ties the nodes of *graph* to the process or machine that made them."""
    for node in _all_nodes(graph):
        node.device = ""
        # Gradients and shapes that another process registered or inferred. TensorFlow computes its own.
        for key in ("_gradient_op_type", "_class", "_output_shapes", "_XlaMustCompile"):
            node.attr.pop(key, None)


def with_function_suffix(graph: GraphDef, suffix: str) -> GraphDef:
    """Return a copy of *graph* with *suffix* appended to the names of its functions."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    names = {function.signature.name for function in copy.library.function}
    for function in copy.library.function:
        function.signature.name += suffix
    for node in _all_nodes(copy):
        if node.op in names:
            node.op += suffix
        for attribute in node.attr.values():
            for reference in [attribute.func, *attribute.list.func]:
                if reference.name in names:
                    reference.name += suffix
    return copy


def _copy_functions(library: Functions, copy: GraphDef) -> None:
    """Add to *copy* the functions of *library* that its nodes call, directly or through other functions."""
    functions = {function.signature.name: function for function in library.function}
    queue = deque(_called_functions(copy.node))
    called: set[str] = set()
    while queue:
        name = queue.popleft()
        if name in functions and name not in called:
            called.add(name)
            queue.extend(_called_functions(functions[name].node_def))
    copy.library.function.extend(functions[name] for name in sorted(called))


def _called_functions(nodes: Iterable[Node]) -> Iterator[str]:
    for node in nodes:
        yield node.op
        for attribute in node.attr.values():
            yield attribute.func.name
            yield from (function.name for function in attribute.list.func)
