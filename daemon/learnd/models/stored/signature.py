"""SavedModel folders: the architecture is gone, so the signature's graph becomes a layer whose weights learn."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from learnd.models.stored import graph as graphs
from learnd.models.stored.graph_layer import GraphLayer, model_of, packed, weight_names
from learnd.models.stored.loops import bound_loops
from learnd.models.stored.model import StoredModel, Training, refuse, refusing, stored

SIGNATURE = "model.signature"
OUTPUT = "model.output"
NOTES = (
    "a SavedModel is its serving function: no dropout, and batch-normalisation statistics stay still while it learns",
    "a SavedModel's function does not use the optimizer's state; it starts afresh",
)


def open_saved_model(folder: Path, *, signature: str, output: str | None) -> StoredModel:
    """The signature of the SavedModel in *folder* as a Keras model.

    Raises
    ------
    ConfigError
        for a signature or output that is not there, several inputs, a fixed batch, or a graph that holds a state.
    """
    with refusing(f"{folder} is not a SavedModel that TensorFlow reads"):
        loaded = tf.saved_model.load(str(folder))
    function = _signature(folder, loaded, signature)
    source = _source(folder, function, signature)
    position, shape = _result(folder, function, signature, output)
    values = _captured(folder, function)
    with refusing(f"{folder}: the signature {signature} cannot be taken out of its SavedModel"):
        # Loops stay one node each: gradients and XLA know those, and not the pieces that they are lowered to.
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
    if len(frozen.inputs) != 1:
        refuse(f"{folder}: the signature {signature} holds tables or other resources beside its variables")
    with refusing(f"{folder}: the signature {signature} cannot be made a layer"):
        layer, kept, endless = _layer(frozen, frozen.outputs[position].name, tuple(source.shape)[1:], shape, values)
        model = model_of(layer, kept)
    notes = [f"the length of the loop {name} is not known, so XLA cannot learn through it" for name in endless]
    kind = "SavedModel of Keras 2" if (folder / "keras_metadata.pb").exists() else "SavedModel"
    return stored(model, kind, Training(), *NOTES, *notes)


def _signature(folder: Path, loaded: Any, name: str) -> Any:
    signatures = getattr(loaded, "signatures", {})
    if name not in signatures:
        names = ", ".join(sorted(signatures)) or "none"
        refuse(f"{folder} has no signature {name!r}; it has: {names}", SIGNATURE)
    return signatures[name]


def _source(folder: Path, function: Any, signature: str) -> Any:
    specs = function.structured_input_signature[1]
    if len(specs) != 1:
        refuse(f"{folder}: the signature {signature} has {len(specs)} inputs ({', '.join(sorted(specs))}); it must have"
               " one", SIGNATURE)  # fmt: skip
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


def _result(folder: Path, function: Any, signature: str, output: str | None) -> tuple[int, tuple[int | None, ...]]:
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
    # A signature's outputs are flattened in the order of their names.
    return names.index(name), tuple(shape)[1:]


def _captured(folder: Path, function: Any) -> dict[str, Any]:
    """The variables by the node that stands for them in the graph."""
    found = {}
    for outside, inside in function.graph.captures:
        variable = next((v for v in function.graph.variables if v.handle is outside), None)
        if variable is not None:
            found[graphs.node_name(inside.name)] = variable
        elif outside.dtype in (tf.resource, tf.variant):
            refuse(f"{folder} holds a table or another resource that does not learn; export the model without it")
    return found


def _layer(
    frozen: Any, result: str, row_shape: tuple[int | None, ...], result_shape: tuple[int | None, ...], variables: Any
) -> tuple[GraphLayer, dict[str, np.ndarray], list[str]]:
    source = frozen.inputs[0].name
    graph = graphs.pruned(frozen.graph.as_graph_def(), result)
    graphs.forget_origin(graph)
    nodes = graphs.by_name(graph)
    if graphs.node_name(source) not in nodes:
        refuse(f"the output does not depend on the input {source}", OUTPUT)
    used = sorted((v.name, _natural(node), node, v) for node, v in variables.items() if node in nodes)
    names = weight_names([name for name, *_ in used])
    table = []
    for name, (_, _, node, variable) in zip(names, used, strict=True):
        graphs.placeholder(nodes[node], variable.dtype.as_datatype_enum, tuple(variable.shape))
        table.append(
            {
                "name": name,
                "node": node,
                "shape": list(variable.shape),
                "dtype": variable.dtype.name,
                "trainable": bool(variable.trainable),
            }
        )
    endless = bound_loops(graph, source, row_shape)
    layer = GraphLayer(packed(graph), table, source, result, row_shape, result_shape, name="graph")
    return layer, {node: variable.numpy() for _, _, node, variable in used}, endless


def _natural(node: str) -> tuple[int, str]:
    """Puts ``unknown_9`` before ``unknown_10``: variables of the same name keep the file's order."""
    number = re.search(r"(\d+)$", node)
    return (int(number.group(1)) if number else -1, node)
