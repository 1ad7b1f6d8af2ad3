"""Gives the loops of a stored graph the bound that XLA wants before it differentiates them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from learnd.models.stored import graph as graphs

_LOOPS = frozenset({"While", "StatelessWhile"})
# TensorFlow's while_loop passes its counter and its maximal number of iterations before the user's variables.
_MAXIMUM = 1
_UNBOUNDED = -1


def bound_loops(graph: Any, source: str, row_shape: tuple[int | None, ...]) -> list[str]:
    """Set the maximal number of iterations of every loop that was built without; return the loops where it is unknown.

    Keras states it only where it builds a recurrent layer for XLA, and so it is missing in what was saved. XLA keeps
    what the gradient needs of each iteration in a list, and asks how long that can become. A loop's own result does not
    change.
    """
    loops = [node for node in graph.node if node.op in _LOOPS]
    if not loops:
        return []
    functions = {function.signature.name: function for function in graph.library.function}
    values = _Values(graph, source, row_shape)
    unknown = []
    for loop in loops:
        if values.of(loop.input[_MAXIMUM]) != _UNBOUNDED:
            continue
        limits = [values.of(name) for name in _limits(loop, functions[loop.attr["cond"].func.name])]
        known = [limit for limit in limits if limit is not None and limit > 0]
        if known:
            loop.input[_MAXIMUM] = _constant(graph, f"{loop.name}/bound", min(known))
        else:
            unknown.append(loop.name)
    return unknown


def _limits(loop: Any, condition: Any) -> Iterator[str]:
    """Inputs of *loop* that one of its variables must be less than."""
    position = {argument.name: index for index, argument in enumerate(condition.signature.input_arg)}
    for node in condition.node_def:
        if node.op == "Less" and node.attr["T"].type in (tf.int32.as_datatype_enum, tf.int64.as_datatype_enum):
            counter, limit = node.input[0], node.input[1]
            if counter in position and limit in position:
                yield loop.input[position[limit]]


def _constant(graph: Any, name: str, value: int) -> str:
    node = graph.node.add(name=name, op="Const")
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return name


class _Values:
    """Whole numbers in a graph that follow from the shape of the rows."""

    def __init__(self, graph: Any, source: str, row_shape: tuple[int | None, ...]) -> None:
        self._known_shape = [n for n in row_shape if n is not None]
        self._is_known = None not in row_shape
        self._graph = tf.Graph()
        with self._graph.as_default():
            self._rows = tf.compat.v1.placeholder(tf.float32, (None, *row_shape))
            tf.graph_util.import_graph_def(graph, input_map={source: self._rows}, name="")
        self._weights = {
            graphs.tensor_name(node.name): np.zeros(_shape(node), tf.as_dtype(node.attr["dtype"].type).as_numpy_dtype)
            for node in graph.node
            if node.op == "Placeholder" and node.name != graphs.node_name(source)
        }

    def of(self, name: str) -> int | None:
        """The number *name*; None where it depends on how many rows there are, or is no whole number."""
        if not self._is_known:
            return None
        found = {self._run(name, rows) for rows in (1, 2)}
        return found.pop() if len(found) == 1 else None

    def _run(self, name: str, rows: int) -> int | None:
        feed = {self._rows: np.full((rows, *self._known_shape), rows, np.float32), **self._weights}
        with tf.compat.v1.Session(graph=self._graph) as session:
            try:
                return int(session.run(graphs.tensor_name(name), feed))
            except (tf.errors.OpError, TypeError, ValueError):
                return None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(dimension.size for dimension in node.attr["shape"].shape.dim)
