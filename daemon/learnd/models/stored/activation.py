"""The activation of a model's outputs, as far as its last operation reveals it."""

from collections.abc import Mapping

import keras
import tensorflow as tf

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
_PRODUCTS = frozenset({"MatMul", "BatchMatMulV2", "Einsum"})
_RESHAPING_OPERATIONS = frozenset({"Reshape", "Squeeze", "ExpandDims", "Cast"})
_PASSING_LAYERS = (keras.layers.Dropout, keras.layers.Reshape, keras.layers.Flatten, keras.layers.Identity)


def output_activation(model: KerasModel, row_shape: tuple[int, ...]) -> str | None:
    """Return the activation of the outputs by Keras' name, such as ``softmax`` or ``linear``; None if it is unknown.

    A model that Keras knows layer by layer is asked. Otherwise, as for a subclassed model, a Lambda layer or
    `keras.ops`, the model is traced on rows of *row_shape*, and the last operation of its graph counts.
    """
    layer = _last_layer(model)
    if isinstance(layer, GraphLayer):
        return _activation_of_graph(layer)
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    function = getattr(layer, "activation", None)
    return _name_in_keras(function) or _traced_activation(model, row_shape)


def _name_in_keras(function: object) -> str | None:
    """Return Keras' name of the activation *function*; None if it is not one of Keras'.

    >>> _name_in_keras(keras.activations.softmax), _name_in_keras(lambda x: x)
    ('softmax', None)
    """
    name = getattr(function, "__name__", None)
    return name if isinstance(name, str) and getattr(keras.activations, name, None) is function else None


def _traced_activation(model: KerasModel, row_shape: tuple[int, ...]) -> str | None:
    """Return the activation by the last operation of the graph that calling *model* makes."""
    trace = tf.function(lambda rows: model(rows, training=False), autograph=False)
    graph = trace.get_concrete_function(tf.TensorSpec((None, *row_shape), tf.float32)).graph
    operation = graph.outputs[0].op
    while operation.type in graphs.PASSES_ON | _RESHAPING_OPERATIONS and operation.inputs:
        operation = operation.inputs[0].op
    if operation.type in ("AddV2", "Add"):
        makers = {tensor.op.type for tensor in operation.inputs}
        return "linear" if makers & _PRODUCTS else None
    return _OPERATIONS.get(operation.type)


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
    return "linear" if operations & _PRODUCTS else None
