"""The meaning of a model's outputs, as far as its last operation reveals it."""

from collections.abc import Mapping

import keras

from learnd.core.tensors import KerasModel, Layer, Tensor
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
_RESHAPING_OPERATIONS = frozenset({"Reshape", "Squeeze", "ExpandDims"})
_PASSING_LAYERS = (keras.layers.Dropout, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Identity)


def output_activation(model: KerasModel) -> str | None:
    """Return the activation of the outputs by Keras' name, such as ``softmax`` or ``linear``; None if it is unknown."""
    layer = _last_layer(model)
    if isinstance(layer, GraphLayer):
        return _activation_of_graph(layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    function = getattr(layer, "activation", None)
    if callable(function):
        name = keras.activations.serialize(function)
        return name if isinstance(name, str) else None
    return None


def _last_layer(model: KerasModel) -> Layer | None:
    """Return the layer that computes the outputs of *model*, at any depth; None if Keras does not know its layers."""
    layer: Layer | None = model
    while isinstance(layer, keras.Model):
        layer = _maker(layer.outputs[0]) if getattr(layer, "outputs", None) else None
    return layer


def _maker(tensor: Tensor) -> Layer:
    """Return the operation that computed a symbolic tensor. Operations that do not change the values are skipped."""
    operation = _operation(tensor)
    while isinstance(operation, _PASSING_LAYERS) or _is_linear_activation(operation):
        operation = _operation(operation.input)
    return operation


def _operation(tensor: Tensor) -> Layer:
    operation: Layer = tensor._keras_history[0]  # type: ignore[attr-defined]  # Keras keeps it on symbolic tensors alone
    return operation


def _is_linear_activation(operation: Layer) -> bool:
    return isinstance(operation, keras.layers.Activation) and operation.activation is keras.activations.linear


def _activation_of_graph(layer: GraphLayer) -> str | None:
    nodes = graphs.by_name(layer.definition)
    node = nodes[graphs.node_name(layer.result)]
    while node.op in graphs.PASSES_ON | _RESHAPING_OPERATIONS and node.input:
        node = nodes[graphs.node_name(node.input[0])]
    if node.op in ("AddV2", "Add"):
        return _activation_of_sum(nodes, node)
    return _OPERATIONS.get(node.op)


def _activation_of_sum(nodes: Mapping[str, graphs.Node], node: graphs.Node) -> str | None:
    """Return ``linear`` for a matrix product plus a bias, as in a dense layer. Any other sum may mean anything."""
    operations = {nodes[graphs.node_name(name)].op for name in node.input}
    return "linear" if operations & {"MatMul", "BatchMatMulV2"} else None
