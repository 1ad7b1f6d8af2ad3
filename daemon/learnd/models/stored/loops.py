"""Iteration bounds for the loops of a stored graph, which XLA needs to differentiate them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from learnd.models.stored import graph as graphs
from learnd.models.stored.graph import Function, GraphDef, Node

_LOOPS = frozenset({"While", "StatelessWhile"})
# Index of the maximum number of iterations: TensorFlow's while_loop passes its counter and that before the variables.
_MAXIMUM = 1
_UNBOUNDED = -1


def bound_loops(graph: GraphDef, source: str, row_shape: tuple[int | None, ...]) -> list[str]:
    """Set the maximum number of iterations of every unbounded loop; return the names of loops where it is unknown.

    Keras sets the maximum only if it builds a recurrent layer for XLA, so saved graphs lack it. XLA keeps what the
    gradient needs of each iteration in a list, and must know the longest length of that list. The result of the loop
    does not change.
    """
    loops = [node for node in graph.node if node.op in _LOOPS]
    if not loops:
        return []
    functions = {function.signature.name: function for function in graph.library.function}
    constants = _Constants(graph, source, row_shape)
    unknown = []
    for loop in loops:
        if constants.evaluate(loop.input[_MAXIMUM]) != _UNBOUNDED:
            continue
        limits = [constants.evaluate(name) for name in _limits(loop, functions[loop.attr["cond"].func.name])]
        bounds = [limit for limit in limits if limit is not None and limit > 0]
        if bounds:
            loop.input[_MAXIMUM] = _add_constant(graph, f"{loop.name}/bound", min(bounds))
        else:
            unknown.append(loop.name)
    return unknown


def _limits(loop: Node, condition: Function) -> Iterator[str]:
    """Yield the inputs of *loop* that the loop's *condition* requires one of its variables to be less than."""
    position = {argument.name: index for index, argument in enumerate(condition.signature.input_arg)}
    for node in condition.node_def:
        if node.op == "Less" and node.attr["T"].type in (tf.int32.as_datatype_enum, tf.int64.as_datatype_enum):
            counter, limit = node.input[0], node.input[1]
            if counter in position and limit in position:
                yield loop.input[position[limit]]


def _add_constant(graph: GraphDef, name: str, value: int) -> str:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return name


class _Constants:
    """The whole numbers in a graph that depend only on the shape of one row."""

    def __init__(self, graph: GraphDef, source: str, row_shape: tuple[int | None, ...]) -> None:
        self._row_shape = [n for n in row_shape if n is not None]
        self._is_shape_known = None not in row_shape
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._rows = tf.compat.v1.placeholder(tf.float32, (None, *row_shape))
            tf.graph_util.import_graph_def(graph, input_map={source: self._rows}, name="")
        self._weights: dict[str, Any] = {
            graphs.tensor_name(node.name): np.zeros(_shape(node), tf.as_dtype(node.attr["dtype"].type).as_numpy_dtype)
            for node in graph.node
            if node.op == "Placeholder" and node.name != graphs.node_name(source)
        }

    def evaluate(self, name: str) -> int | None:
        """Return the number *name*; None if it depends on the number of rows, or is not a whole number."""
        if not self._is_shape_known:
            return None
        values = {self._run(name, rows) for rows in (1, 2)}
        return values.pop() if len(values) == 1 else None

    def _run(self, name: str, rows: int) -> int | None:
        feed = {self._rows: np.full((rows, *self._row_shape), rows, np.float32), **self._weights}
        with tf.compat.v1.Session(graph=self._graph) as session:
            try:
                return int(session.run(graphs.tensor_name(name), feed))
            except (tf.errors.OpError, TypeError, ValueError):
                return None


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(dimension.size for dimension in node.attr["shape"].shape.dim)
