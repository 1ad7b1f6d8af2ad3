"""Removal of the end of a stored graph, so that a new head can follow."""

import tensorflow as tf

from learnd.core.tensors import KerasModel, Tensor
from learnd.models.stored import graph as graphs
from learnd.models.stored.graph_layer import GraphLayer, RowShape, graph_layer_of, model_of, pack
from learnd.models.stored.model import StoredModel, refuse

AT = "model.head.at"
_MAX_CANDIDATES = 8
_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "_FusedMatMul"})


def features_of(stored: StoredModel | KerasModel, at: str | None) -> KerasModel:
    """Return a model with the same inputs that ends at the tensor *at*, with only the weights that this needs.

    Parameters
    ----------
    stored : a SavedModel that was opened, its model, or its `GraphLayer`
    at : a tensor or operation of the graph, or the end of its name; None: the input of the last matrix product

    Raises
    ------
    ConfigError
        for a tensor that does not exist, does not depend on the rows, or is not float32 of known width.
    """
    layer = _graph_layer(stored)
    result = _input_of_last_product(layer) if at is None else _tensor_called(layer, at)
    shape = _feature_shape(layer, result, at)
    graph = graphs.pruned(layer.definition, result)
    nodes = graphs.by_name(graph)
    table = [row for row in layer.table if row["node"] in nodes]
    features = GraphLayer(pack(graph), table, layer.source, result, layer.row_shape, shape, name=layer.name)
    return model_of(features, layer.values())


def _candidates(layer: GraphLayer) -> list[str]:
    """Return the last eight tensors that a head can follow, last one first."""
    nodes = graphs.by_name(layer.definition)
    tensors = _static_tensors(layer)
    names = [name for name in _path(layer) if _is_feature(tensors.get(f"{name}:0"))]
    return [name for name in names if nodes[name].op not in graphs.PASSES_ON][:_MAX_CANDIDATES]


def _graph_layer(stored: StoredModel | KerasModel) -> GraphLayer:
    model = stored.model if isinstance(stored, StoredModel) else stored
    layer = graph_layer_of(model)
    return layer if layer is not None else refuse("the model has layers; name one of them", AT)


def _path(layer: GraphLayer) -> list[str]:
    """Return the nodes between the rows and the result, nearest to the result first."""
    nodes = graphs.by_name(layer.definition)
    depends = {graphs.node_name(layer.source): True}

    def depends_on_rows(start: str) -> bool:
        # Not recursive: a graph may be deeper than Python's stack.
        stack = [start]
        while stack:
            name = stack[-1]
            inputs = [graphs.node_name(i) for i in nodes[name].input]
            undecided = [i for i in inputs if i not in depends]
            if name in depends or not undecided:
                depends.setdefault(name, any(depends[i] for i in inputs))
                stack.pop()
            else:
                stack.extend(undecided)
        return depends[start]

    ordered = graphs.backwards(nodes, graphs.node_name(layer.result))
    return [node.name for node in ordered if depends_on_rows(node.name)]


def _input_of_last_product(layer: GraphLayer) -> str:
    nodes = graphs.by_name(layer.definition)
    path = _path(layer)
    on_path = set(path)
    for name in path:
        if nodes[name].op in _PRODUCTS:
            inputs = [i for i in nodes[name].input if graphs.node_name(i) in on_path]
            return graphs.tensor_name(inputs[0])
    return refuse(f"the graph has no matrix product to put a new head before; name a tensor: {_choices(layer)}", AT)


def _tensor_called(layer: GraphLayer, at: str) -> str:
    node = graphs.node_name(at)
    path = _path(layer)
    exact = [name for name in path if name == node]
    matches = exact or [name for name in path if name.endswith(f"/{node}")]
    if len(matches) != 1:
        count = "several tensors" if matches else "no tensor"
        refuse(
            f"the graph has {count} called {at!r} between its input and its output; the last are: {_choices(layer)}", AT
        )
    return graphs.tensor_name(matches[0] + at[len(node) :])


def _feature_shape(layer: GraphLayer, result: str, at: str | None) -> RowShape:
    tensor = _static_tensors(layer).get(result)
    if tensor is None or not _is_feature(tensor):
        what = "no such output" if tensor is None else f"{tensor.dtype.name} of the shape {tensor.shape}"
        refuse(f"{at or result} is {what}; a head needs float32 (None, n), one of: {_choices(layer)}", AT)
    return tuple(tensor.shape)[1:]


def _is_feature(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.dtype == tf.float32 and tensor.shape.rank == 2 and tensor.shape[1] is not None


def _static_tensors(layer: GraphLayer) -> dict[str, Tensor]:
    """Return all tensors of the graph by name, with their static shapes for rows of known shape."""
    with tf.Graph().as_default() as graph:
        rows = tf.compat.v1.placeholder(tf.float32, (None, *layer.row_shape))
        tf.graph_util.import_graph_def(layer.definition, input_map={layer.source: rows}, name="")
        return {tensor.name: tensor for operation in graph.get_operations() for tensor in operation.outputs}


def _choices(layer: GraphLayer) -> str:
    return ", ".join(_candidates(layer)) or "none"
