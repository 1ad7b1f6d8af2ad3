"""Cutting a stored graph off before its end, so that a new end can be put on."""

from typing import Any

import tensorflow as tf

from learnd.models.stored import graph as graphs
from learnd.models.stored.graph_layer import GraphLayer, graph_layer_of, model_of, packed
from learnd.models.stored.model import StoredModel, refuse

AT = "model.head.at"
CANDIDATES = 8
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "_FusedMatMul"})


def features_of(stored: Any, at: str | None) -> Any:
    """A model with the same inputs that ends at the tensor *at*, with the weights that it still needs.

    Parameters
    ----------
    stored : a `StoredModel` of a SavedModel, its model, or its `GraphLayer`
    at : a tensor or operation of the graph, or the end of its name; None: what the last matrix product takes

    Raises
    ------
    ConfigError
        for a tensor that is not there, that does not depend on the rows, or that is not float32 of known width.
    """
    layer = _layer(stored)
    result = _last_features(layer) if at is None else _named(layer, at)
    shape = _shape(layer, result, at)
    graph = graphs.pruned(layer.definition, result)
    kept = graphs.by_name(graph)
    table = [row for row in layer.table if row["node"] in kept]
    cut = GraphLayer(packed(graph), table, layer.source, result, layer.row_shape, shape, name=layer.name)
    return model_of(cut, layer.values())


def candidates(layer: GraphLayer) -> list[str]:
    """The last few tensors that a head can be put on, the last of all first."""
    nodes = graphs.by_name(layer.definition)
    tensors = _static_tensors(layer)
    found = [name for name in _path(layer) if _is_feature(tensors.get(f"{name}:0"))]
    found = [name for name in found if nodes[name].op not in graphs.PASSES_ON]
    return found[:CANDIDATES]


def _layer(stored: Any) -> GraphLayer:
    model = stored.model if isinstance(stored, StoredModel) else stored
    layer = graph_layer_of(model)
    return layer if layer is not None else refuse("the model has layers; cut it at one of those", AT)


def _path(layer: GraphLayer) -> list[str]:
    """Nodes between the rows and the result, the nearest to the result first."""
    nodes = graphs.by_name(layer.definition)
    depends = {graphs.node_name(layer.source): True}

    def reaches(start: str) -> bool:
        # Without recursion: a graph is deeper than Python's stack.
        stack = [start]
        while stack:
            name = stack[-1]
            inputs = [graphs.node_name(i) for i in nodes[name].input]
            open_ = [i for i in inputs if i not in depends]
            if name in depends or not open_:
                depends.setdefault(name, any(depends[i] for i in inputs))
                stack.pop()
            else:
                stack.extend(open_)
        return depends[start]

    ordered = graphs.backwards(nodes, graphs.node_name(layer.result))
    return [node.name for node in ordered if reaches(node.name)]


def _last_features(layer: GraphLayer) -> str:
    nodes = graphs.by_name(layer.definition)
    path = _path(layer)
    on_path = set(path)
    for name in path:
        if nodes[name].op in _PRODUCTS:
            taken = [i for i in nodes[name].input if graphs.node_name(i) in on_path]
            return graphs.tensor_name(taken[0])
    return refuse(f"the graph has no matrix product to put a new head before; name a tensor: {_listed(layer)}", AT)


def _named(layer: GraphLayer, at: str) -> str:
    wanted = graphs.node_name(at)
    path = _path(layer)
    exact = [name for name in path if name == wanted]
    found = exact or [name for name in path if name.endswith(f"/{wanted}")]
    if len(found) != 1:
        what = "several tensors" if found else "no tensor"
        refuse(
            f"the graph has {what} called {at!r} between its input and its output; the last are: {_listed(layer)}", AT
        )
    return graphs.tensor_name(found[0] + at[len(wanted) :])


def _shape(layer: GraphLayer, result: str, at: str | None) -> tuple[int | None, ...]:
    tensor = _static_tensors(layer).get(result)
    if not _is_feature(tensor):
        shape = "no such output" if tensor is None else f"{tensor.dtype.name} of the shape {tensor.shape}"
        refuse(f"{at or result} is {shape}; a head needs float32 (None, n), one of: {_listed(layer)}", AT)
    assert tensor is not None
    return tuple(tensor.shape)[1:]


def _is_feature(tensor: Any) -> bool:
    return tensor is not None and tensor.dtype == tf.float32 and tensor.shape.rank == 2 and tensor.shape[1] is not None


def _static_tensors(layer: GraphLayer) -> dict[str, Any]:
    with tf.Graph().as_default() as graph:
        rows = tf.compat.v1.placeholder(tf.float32, (None, *layer.row_shape))
        tf.graph_util.import_graph_def(layer.definition, input_map={layer.source: rows}, name="")
        return {tensor.name: tensor for operation in graph.get_operations() for tensor in operation.outputs}


def _listed(layer: GraphLayer) -> str:
    return ", ".join(candidates(layer)) or "none"
