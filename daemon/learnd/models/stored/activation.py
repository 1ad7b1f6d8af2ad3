"""What the numbers that a model returns mean, as far as its last operation tells."""

from typing import Any

import keras

from learnd.models.stored import graph as graphs
from learnd.models.stored.graph_layer import GraphLayer

_OPERATIONS = {
    "Softmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Relu6": "relu6",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Exp": "exponential",
    "BiasAdd": "linear",
    "MatMul": "linear",
    "BatchMatMulV2": "linear",
}
_SHAPES_ONLY = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_LAYERS_PASSING_ON = (keras.layers.Dropout, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Identity)


def output_activation(model: Any) -> str | None:
    """``softmax``, ``sigmoid``, ``linear`` and so on, as Keras calls them; None where it cannot be told."""
    layer = last_layer(model)
    if isinstance(layer, GraphLayer):
        return _of_graph(layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    function = getattr(layer, "activation", None)
    if callable(function):
        name = keras.activations.serialize(function)
        return name if isinstance(name, str) else None
    return None


def last_layer(model: Any) -> Any:
    """The layer whose numbers come out of *model*, at any depth; None where the model is not made of layers."""
    layer = model
    while isinstance(layer, keras.Model):
        layer = _before(layer.outputs[0]) if getattr(layer, "outputs", None) else None
    return layer


def _before(tensor: Any) -> Any:
    """The operation that made a symbolic tensor, past those that only hand it on."""
    operation, _, _ = tensor._keras_history
    while isinstance(operation, _LAYERS_PASSING_ON) or _is_linear_activation(operation):
        operation, _, _ = operation.input._keras_history
    return operation


def _is_linear_activation(operation: Any) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def _of_graph(layer: GraphLayer) -> str | None:
    nodes = graphs.by_name(layer.definition)
    node = nodes[graphs.node_name(layer.result)]
    while node.op in graphs.PASSES_ON | _SHAPES_ONLY and node.input:
        node = nodes[graphs.node_name(node.input[0])]
    if node.op in ("AddV2", "Add"):
        return _of_sum(nodes, node)
    return _OPERATIONS.get(node.op)


def _of_sum(nodes: Any, node: Any) -> str | None:
    """Adding a weight to a matrix product is a dense layer; any other sum may mean anything."""
    makers = {nodes[graphs.node_name(name)].op for name in node.input}
    return "linear" if makers & {"MatMul", "BatchMatMulV2"} else None
