"""A TensorFlow graph as an ordinary Keras layer with ordinary Keras weights."""

import base64
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

import keras
import tensorflow as tf
from tensorflow.python.eager import context

from learnd.core.tensors import Array, KerasModel, Layer, Shape, Tensor, Variable
from learnd.models.stored import graph as graphs
from learnd.models.stored.graph import GraphDef

RowShape: TypeAlias = tuple[int | None, ...]
"""Shape of one row, without the batch; None for an unknown size."""
_TRACES = itertools.count()


class Weight(TypedDict):
    """Description of one weight of a graph: its name in Keras, and the node that stands for it."""

    name: str
    node: str
    shape: list[int]
    dtype: str
    trainable: bool


@keras.saving.register_keras_serializable(package="learnd")
class GraphLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Layer that computes a frozen graph from weights that can be trained, replaced and saved as those of any layer.

    The graph is imported again at every call of the layer, with the layer's weights in place of the constants.
    Gradients, XLA, `keras.StatelessScope` and every exporter therefore see plain operations and no outside variable.

    Parameters
    ----------
    graph : a GraphDef without control-flow lowering, packed by `pack`
    table : one description per weight, in the order of the weights
    source : tensor of the graph that takes the rows
    result : tensor of the graph that is returned
    row_shape, result_shape : their shapes without the batch
    """

    def __init__(
        self,
        graph: str,
        table: Sequence[Weight],
        source: str,
        result: str,
        row_shape: Sequence[int | None],
        result_shape: Sequence[int | None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._packed = graph
        self._definition = unpack(graph)
        self._table = tuple(row.copy() for row in table)
        self._source = source
        self._result = result
        self._row_shape = tuple(row_shape)
        self._result_shape = tuple(result_shape)
        # A function, even inside another one: GradientTape records the call of a function, but no imported operation.
        self._run = tf.function(self._import_graph, autograph=False)

    @property
    def definition(self) -> GraphDef:
        """The GraphDef. It must not be changed."""
        return self._definition

    @property
    def table(self) -> tuple[Weight, ...]:
        """One description per weight, in the order of `weights`."""
        return self._table

    @property
    def source(self) -> str:
        """The tensor that takes the rows."""
        return self._source

    @property
    def result(self) -> str:
        """The tensor that is returned."""
        return self._result

    @property
    def row_shape(self) -> RowShape:
        """Shape of the input rows without the batch."""
        return self._row_shape

    def groups(self) -> dict[str, list[Variable]]:
        """Return the weights by the name that they share, such as a layer's, in the order of their use in the graph."""
        nodes = graphs.by_name(self._definition)
        position = {name: i for i, name in enumerate(graphs.in_order(nodes, graphs.node_name(self._result)))}
        rows = sorted(zip(self._table, self._values, strict=True), key=lambda pair: position[pair[0]["node"]])
        groups: dict[str, list[Variable]] = {}
        for row, weight in rows:
            groups.setdefault(row["name"].rpartition(".")[0] or row["name"], []).append(weight)
        return groups

    def build(self, input_shape: RowShape) -> None:
        """Create the weights, all zero. `set_values` gives them their values."""
        self._values: list[Variable] = [
            self.add_weight(
                name=row["name"],
                shape=tuple(row["shape"]),
                dtype=row["dtype"],
                trainable=row["trainable"],
                initializer="zeros",
            )
            for row in self._table
        ]

    def set_values(self, values: Mapping[str, Array]) -> None:
        """Assign *values*, by node of the graph, to the weights of the built layer."""
        for row, weight in zip(self._table, self._values, strict=True):
            weight.assign(values[row["node"]])

    def values(self) -> dict[str, Array]:
        """Return the values of the weights by node of the graph."""
        return {row["node"]: weight.numpy() for row, weight in zip(self._table, self._values, strict=True)}

    def call(self, inputs: Tensor) -> Tensor:
        """Return the graph's result for *inputs*."""
        result: Tensor = self._run(inputs, *(tf.convert_to_tensor(weight) for weight in self._values))
        return result

    def compute_output_shape(self, input_shape: RowShape | Shape) -> RowShape:
        """Return the shape of the result, batch included. Keras need not run the graph to infer it."""
        return (input_shape[0], *self._result_shape)

    def compute_output_spec(self, inputs: Tensor, **_: Any) -> keras.KerasTensor:
        """Return the symbolic result that functional models need."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "graph": self._packed,
            "table": [row.copy() for row in self._table],
            "source": self._source,
            "result": self._result,
            "row_shape": list(self._row_shape),
            "result_shape": list(self._result_shape),
        }

    def _import_graph(self, inputs: Tensor, *values: Tensor) -> Tensor:
        replacements = {graphs.tensor_name(row["node"]): value for row, value in zip(self._table, values, strict=True)}
        replacements[self._source] = inputs
        # The gradient of a loop defines functions that are named after the loop's. Two traces must not share names.
        definition = graphs.with_function_suffix(self._definition, f"_{next(_TRACES)}")
        for function in definition.library.function:
            # The import adds the functions to the graph, but not to the runtime that calls them.
            context.context().add_function_def(function)
        (result,) = tf.graph_util.import_graph_def(
            definition, input_map=replacements, return_elements=[self._result], name="stored"
        )
        # Control flow and dynamic shapes may have lost the static shape.
        result.set_shape([inputs.shape[0], *self._result_shape])
        tensor: Tensor = result
        return tensor


def graph_layer_of(model: Layer) -> GraphLayer | None:
    """Return the graph layer of *model*, at any depth; None if there is none."""
    for layer in [model, *getattr(model, "layers", [])]:
        if isinstance(layer, GraphLayer):
            return layer
        inner = graph_layer_of(layer) if layer is not model else None
        if inner is not None:
            return inner
    return None


def model_of(layer: GraphLayer, values: Mapping[str, Array]) -> KerasModel:
    """Return a functional model of *layer* alone, with the weights *values* by node."""
    inputs = keras.Input(layer.row_shape, dtype="float32", name="rows")
    model: KerasModel = keras.Model(inputs, layer(inputs), name="stored")
    layer.set_values(values)
    return model


def pack(definition: GraphDef) -> str:
    """Return a GraphDef as text, for `unpack`."""
    # Deterministic, so that the same model gives the same file.
    data = definition.SerializeToString(deterministic=True)
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def unpack(text: str) -> GraphDef:
    """Return the GraphDef that `pack` wrote."""
    definition: GraphDef = tf.compat.v1.GraphDef.FromString(zlib.decompress(base64.b64decode(text)))
    return definition


def weight_names(names: Sequence[str]) -> list[str]:
    """Return valid Keras names for *names*, each of them unique.

    >>> weight_names(["dense/kernel:0", "dense/bias:0", "dense/kernel:0"])
    ['dense.kernel', 'dense.bias', 'dense.kernel_1']
    """
    used: set[str] = set()
    result = []
    for name in names:
        plain = re.sub(r"[^\w.\-]", ".", name.partition(":")[0]) or "weight"
        unique, count = plain, 0
        while unique in used:
            count += 1
            unique = f"{plain}_{count}"
        used.add(unique)
        result.append(unique)
    return result
