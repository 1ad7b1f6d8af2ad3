"""A TensorFlow graph as an ordinary Keras layer with ordinary Keras weights."""

import base64
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from learnd.models.stored import graph as graphs

_TRACES = itertools.count()


@keras.saving.register_keras_serializable(package="learnd")
class GraphLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """Computes what a frozen graph computes, from weights that learn, are replaced and are saved as any layer's are.

    The graph is imported anew wherever the layer is called, with the layer's weights in the place of the constants, so
    that gradients, XLA, `keras.StatelessScope` and every exporter see plain operations and no outside variable.

    Parameters
    ----------
    graph : a GraphDef without control-flow lowering, packed by `packed`
    table : one ``{"name", "node", "shape", "dtype", "trainable"}`` for each weight, sorted
    source : tensor of the graph that takes the rows
    result : tensor of the graph that is returned
    row_shape, result_shape : their shapes without the batch
    """

    def __init__(
        self,
        graph: str,
        table: Sequence[Mapping[str, Any]],
        source: str,
        result: str,
        row_shape: Sequence[int | None],
        result_shape: Sequence[int | None],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._packed = graph
        self._definition = unpacked(graph)
        self._table = tuple(dict(row) for row in table)
        self._source = source
        self._result = result
        self._row_shape = tuple(row_shape)
        self._result_shape = tuple(result_shape)
        # A function, also inside another: GradientTape records a call of it, but no imported operation.
        self._run = tf.function(self._imported, autograph=False)

    @property
    def definition(self) -> Any:
        """The GraphDef; not to be changed."""
        return self._definition

    @property
    def table(self) -> tuple[Mapping[str, Any], ...]:
        """One row for each of `weights`, in their order."""
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
    def row_shape(self) -> tuple[int | None, ...]:
        """Of the rows that the layer takes, without the batch."""
        return self._row_shape

    def groups(self) -> dict[str, list[Any]]:
        """Weights by the name that they share, such as a layer's, in the order in which the graph uses them."""
        nodes = graphs.by_name(self._definition)
        place = {name: i for i, name in enumerate(graphs.in_order(nodes, graphs.node_name(self._result)))}
        rows = sorted(zip(self._table, self._values, strict=True), key=lambda pair: place[pair[0]["node"]])
        groups: dict[str, list[Any]] = {}
        for row, weight in rows:
            groups.setdefault(row["name"].rpartition(".")[0] or row["name"], []).append(weight)
        return groups

    def build(self, input_shape: Any) -> None:
        """Make the weights, all zero: the graph knows their shapes, their values come after."""
        self._values = [
            self.add_weight(
                name=row["name"],
                shape=tuple(row["shape"]),
                dtype=row["dtype"],
                trainable=row["trainable"],
                initializer="zeros",
            )
            for row in self._table
        ]

    def set_values(self, values: Mapping[str, np.ndarray]) -> None:
        """Give the built layer its weights, by node of the graph."""
        for row, weight in zip(self._table, self._values, strict=True):
            weight.assign(values[row["node"]])

    def values(self) -> dict[str, np.ndarray]:
        """The weights, by node of the graph."""
        return {row["node"]: weight.numpy() for row, weight in zip(self._table, self._values, strict=True)}

    def call(self, inputs: Any) -> Any:
        """The graph's result for *inputs*."""
        return self._run(inputs, *(tf.convert_to_tensor(weight) for weight in self._values))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """As the graph says; Keras need not run it to know."""
        return (input_shape[0], *self._result_shape)

    def compute_output_spec(self, inputs: Any, **_: Any) -> keras.KerasTensor:
        """As `compute_output_shape`, for functional models."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Everything that the constructor takes."""
        return {
            **super().get_config(),
            "graph": self._packed,
            "table": [dict(row) for row in self._table],
            "source": self._source,
            "result": self._result,
            "row_shape": list(self._row_shape),
            "result_shape": list(self._result_shape),
        }

    def _imported(self, inputs: Any, *values: Any) -> Any:
        places = {graphs.tensor_name(row["node"]): value for row, value in zip(self._table, values, strict=True)}
        places[self._source] = inputs
        # The gradient of a loop defines functions that are named after the loop's; two traces must not share names.
        definition = graphs.with_own_functions(self._definition, f"_{next(_TRACES)}")
        for function in definition.library.function:
            # Importing tells the graph of them, but not the runtime that is to call them.
            context.context().add_function_def(function)
        (result,) = tf.graph_util.import_graph_def(
            definition, input_map=places, return_elements=[self._result], name="stored"
        )
        # Control flow and dynamic shapes may have lost what is known.
        result.set_shape([inputs.shape[0], *self._result_shape])
        return result


def graph_layer_of(model: Any) -> GraphLayer | None:
    """The graph layer of *model*, at any depth; None where there is none."""
    for layer in [model, *getattr(model, "layers", [])]:
        if isinstance(layer, GraphLayer):
            return layer
        inner = graph_layer_of(layer) if layer is not model else None
        if inner is not None:
            return inner
    return None


def model_of(layer: GraphLayer, values: Mapping[str, np.ndarray]) -> Any:
    """A functional model of nothing but *layer*, with the weights *values* by node."""
    inputs = keras.Input(layer.row_shape, dtype="float32", name="rows")
    model = keras.Model(inputs, layer(inputs), name="stored")
    layer.set_values(values)
    return model


def packed(definition: Any) -> str:
    """A GraphDef as text; the inverse of `unpacked`."""
    # Deterministic, so that the same model is the same file.
    data = definition.SerializeToString(deterministic=True)
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def unpacked(text: str) -> Any:
    """The GraphDef that `packed` wrote."""
    return tf.compat.v1.GraphDef.FromString(zlib.decompress(base64.b64decode(text)))


def weight_names(names: Sequence[str]) -> list[str]:
    """Names that Keras takes, each only once.

    >>> weight_names(["dense/kernel:0", "dense/bias:0", "dense/kernel:0"])
    ['dense.kernel', 'dense.bias', 'dense.kernel_1']
    """
    taken: set[str] = set()
    result = []
    for name in names:
        plain = re.sub(r"[^\w.\-]", ".", name.partition(":")[0]) or "weight"
        unique, count = plain, 0
        while unique in taken:
            count += 1
            unique = f"{plain}_{count}"
        taken.add(unique)
        result.append(unique)
    return result
