"""Reader of SavedModel folders.

A SavedModel has lost its architecture, so the graph of its signature becomes a layer whose weights learn.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from learnd.core.tensors import Array, Tensor
from learnd.models.stored import graph as graphs
from learnd.models.stored.graph_layer import GraphLayer, RowShape, Weight, model_of, pack, weight_names
from learnd.models.stored.loops import bound_loops
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored_model

SIGNATURE = "model.signature"
OUTPUT = "model.output"
_NOTES = (
    "a SavedModel holds only its serving function: no dropout, and batch-normalisation statistics do not change while"
    " it learns",
    "a SavedModel's function does not use the optimizer's state, so the optimizer starts afresh",
)


class _Variable(Protocol):
    """A variable that a function captures."""

    @property
    def handle(self) -> Tensor: ...

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> Sequence[int]: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def trainable(self) -> bool: ...

    def numpy(self) -> Array: ...


_Variables: TypeAlias = Mapping[str, _Variable]
"""Variables by the node of the graph that stands for them."""


class _Graph(Protocol):
    """The graph of a function."""

    @property
    def captures(self) -> Iterator[tuple[Tensor, Tensor]]: ...

    @property
    def variables(self) -> Sequence[_Variable]: ...

    def as_graph_def(self) -> graphs.GraphDef: ...


class _Function(Protocol):
    """A concrete function of TensorFlow."""

    @property
    def graph(self) -> _Graph: ...

    @property
    def inputs(self) -> Sequence[Any]: ...

    @property
    def outputs(self) -> Sequence[Any]: ...

    @property
    def structured_input_signature(self) -> tuple[tuple[()], Mapping[str, Tensor]]: ...

    @property
    def structured_outputs(self) -> Mapping[str, Tensor]: ...


def open_saved_model(folder: Path, *, signature: str, output: str | None) -> StoredModel:
    """Return the *signature* of the SavedModel in *folder* as a Keras model. *output* is needed if it has several.

    Raises
    ------
    ConfigError
        for a signature or output that does not exist, several inputs, a fixed batch, or a graph that holds a state.
    """
    with refusing(f"{folder} is not a SavedModel that TensorFlow reads"):
        loaded = tf.saved_model.load(str(folder))
    function = _function(folder, getattr(loaded, "signatures", {}), signature)
    rows = _input(folder, function, signature)
    position, shape = _output(folder, function, signature, output)
    variables = _captured_variables(folder, function)
    with refusing(f"{folder}: the signature {signature} cannot be extracted from its SavedModel"):
        # Each loop stays one node: gradients and XLA support loops, but not the nodes that they are lowered to.
        frozen: _Function = convert_variables_to_constants_v2(function, lower_control_flow=False)
    if len(frozen.inputs) != 1:
        refuse(
            f"{folder}: the signature {signature} uses tables or other resources besides variables; export it without"
        )
    with refusing(f"{folder}: the signature {signature} cannot be converted to a layer"):
        layer, values, unbounded = _layer(
            frozen, frozen.outputs[position].name, tuple(rows.shape)[1:], shape, variables
        )
        model = model_of(layer, values)
    notes = [f"the length of the loop {name} is unknown, so XLA cannot differentiate it" for name in unbounded]
    file_format = "SavedModel of Keras 2" if (folder / "keras_metadata.pb").exists() else "SavedModel"
    return stored_model(model, file_format, Training(), *_NOTES, *notes)


def _function(folder: Path, signatures: Mapping[str, _Function], name: str) -> _Function:
    if name not in signatures:
        names = ", ".join(sorted(signatures)) or "none"
        refuse(f"{folder} has no signature {name!r}; it has: {names}", SIGNATURE)
    return signatures[name]


def _input(folder: Path, function: _Function, signature: str) -> Tensor:
    """Return the specification of the function's input: float32 rows."""
    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        names = ", ".join(sorted(specs))
        refuse(f"{folder}: the signature {signature} has {len(specs)} inputs ({names}); it must have one", SIGNATURE)
    ((name, spec),) = specs.items()
    if spec.dtype != tf.float32:
        refuse(f"{folder}: the input {name} of {signature} is {spec.dtype.name}; it must be float32", SIGNATURE)
    if spec.shape.rank is None or spec.shape.rank < 2 or spec.shape[0] is not None:
        refuse(
            f"{folder}: the input {name} of {signature} has the shape {spec.shape}; it must be (None, ...), any number"
            " of rows",
            SIGNATURE,
        )
    return spec


def _output(folder: Path, function: _Function, signature: str, output: str | None) -> tuple[int, RowShape]:
    """Return the position of the output among all outputs, and its shape without the batch."""
    outputs = function.structured_outputs
    names = sorted(outputs)
    if output is None and len(names) != 1:
        refuse(f"{folder}: the signature {signature} has the outputs {', '.join(names)}; name one of them", OUTPUT)
    name = names[0] if output is None else output
    if name not in outputs:
        refuse(f"{folder}: the signature {signature} has no output {name!r}; it has: {', '.join(names)}", OUTPUT)
    shape = outputs[name].shape
    if outputs[name].dtype != tf.float32 or shape.rank != 2 or shape[1] is None:
        refuse(
            f"{folder}: the output {name} of {signature} is {outputs[name].dtype.name} of the shape {shape}; it must be"
            " float32 (None, n)",
            OUTPUT,
        )
    # TensorFlow flattens a signature's outputs in the order of their names.
    return names.index(name), tuple(shape)[1:]


def _captured_variables(folder: Path, function: _Function) -> _Variables:
    variables = {}
    for outside, inside in function.graph.captures:
        variable = next((v for v in function.graph.variables if v.handle is outside), None)
        if variable is not None:
            variables[graphs.node_name(inside.name)] = variable
        elif outside.dtype in (tf.resource, tf.variant):
            refuse(f"{folder} holds a table or another resource that does not learn; export the model without it")
    return variables


def _layer(
    frozen: _Function, result: str, row_shape: RowShape, result_shape: RowShape, variables: _Variables
) -> tuple[GraphLayer, dict[str, Array], list[str]]:
    """Return the layer that computes the tensor *result*, its weights by node, and its loops of unknown length."""
    source = frozen.inputs[0].name
    graph = graphs.pruned(frozen.graph.as_graph_def(), result)
    graphs.forget_origin(graph)
    nodes = graphs.by_name(graph)
    if graphs.node_name(source) not in nodes:
        refuse(f"the output does not depend on the input {source}", OUTPUT)
    used = sorted((v.name, _natural_order(node), node, v) for node, v in variables.items() if node in nodes)
    names = weight_names([name for name, *_ in used])
    table: list[Weight] = []
    for name, (_, _, node, variable) in zip(names, used, strict=True):
        graphs.make_placeholder(nodes[node], variable.dtype.as_datatype_enum, tuple(variable.shape))
        table.append(
            {
                "name": name,
                "node": node,
                "shape": list(variable.shape),
                "dtype": variable.dtype.name,
                "trainable": bool(variable.trainable),
            }
        )
    unbounded = bound_loops(graph, source, row_shape)
    layer = GraphLayer(pack(graph), table, source, result, row_shape, result_shape, name="graph")
    return layer, {node: variable.numpy() for _, _, node, variable in used}, unbounded


def _natural_order(node: str) -> tuple[int, str]:
    """Return a key that sorts ``unknown_9`` before ``unknown_10``: variables of one name keep the file's order."""
    number = re.search(r"(\d+)$", node)
    return (int(number.group(1)) if number else -1, node)
