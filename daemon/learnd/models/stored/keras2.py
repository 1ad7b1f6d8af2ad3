"""Keras 2's description of an architecture, built as a Keras 3 model; Keras 3 itself reads only the simplest.

The configuration is walked here, layer by layer: a few options are gone or renamed, and the calls of a nested model are
counted differently.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from learnd.models.stored.model import refuse

Config = Mapping[str, Any]
Make = Callable[[dict[str, Any]], Any]

_MODELS = frozenset({"Sequential", "Functional", "Model"})
# Options that Keras 3 lacks, and the values with which leaving them out changes nothing.
_GONE: dict[str, tuple[Any, ...]] = {
    "batch_input_shape": (),
    "sparse": (False, None),
    "ragged": (False, None),
    "optional": (False, None),
    "time_major": (False,),
    "implementation": (),
    "renorm": (False,),
    "renorm_clipping": (),
    "renorm_momentum": (),
    "fused": (),
    "virtual_batch_size": (None,),
    "adjustment": (None,),
    "input_length": (),
    "autocast": (),
    "experimental_autocast": (),
    "shared_object_id": (),
}
# Of these, Keras 3 still has the option in some layers, where it must stay.
_ONLY_IN = {"sparse": "InputLayer", "ragged": "InputLayer", "optional": "InputLayer"}


def model_from_keras2(entry: Config, make: Make) -> Any:
    """The model that *entry* (``class_name``, ``config``) describes, with fresh weights.

    *make* deserialises one object that Keras 3 understands.

    Raises
    ------
    ConfigError
        for what Keras 3 cannot express.
    """
    kind, config = _kind(entry), entry["config"]
    if kind == "Sequential":
        return _sequential(config, make)
    if kind in _MODELS and "layers" in config:
        return _functional(config, make)
    return make(dict(entry))


def is_keras2(entry: Config) -> bool:
    """Whether Keras 2 wrote this configuration: its input layers have another key for the shape, its layers no module.

    >>> is_keras2({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}})
    True
    """
    config = entry.get("config", {})
    layers = config.get("layers", []) if isinstance(config, Mapping) else config
    if str(entry.get("module", "")).startswith("tf_keras"):
        return True
    return any("module" not in layer or "batch_input_shape" in layer.get("config", {}) for layer in layers)


def _sequential(config: Any, make: Make) -> Any:
    # Before 2.3 the configuration was the bare list of layers.
    entries = config["layers"] if isinstance(config, Mapping) else config
    layers = [_layer(entry, make) for entry in entries]
    if not isinstance(layers[0], keras.layers.InputLayer):
        first = entries[0]["config"]
        shape = first.get("batch_input_shape") or (
            config.get("build_input_shape") if isinstance(config, Mapping) else None
        )
        if shape is None and not isinstance(layers[0], keras.Model):
            refuse("the sequential model does not say the shape of its input; it was saved before it saw data")
        if shape is not None:
            layers.insert(0, keras.layers.InputLayer(batch_shape=(None, *shape[1:])))
    name = config.get("name") if isinstance(config, Mapping) else None
    model = keras.Sequential(layers, name=name)
    return _with_trainable(model, config)


def _functional(config: Config, make: Make) -> Any:
    graph = _Graph(config["layers"], make)
    inputs = [graph.tensor(reference) for reference in _references(config["input_layers"])]
    outputs = [graph.tensor(reference) for reference in _references(config["output_layers"])]
    # A list of one would ask for lists of one at every call.
    model = keras.Model(_alone(inputs), _alone(outputs), name=config.get("name"))
    return _with_trainable(model, config)


def _alone(tensors: list[Any]) -> Any:
    return tensors[0] if len(tensors) == 1 else tensors


def _with_trainable(model: Any, config: Any) -> Any:
    if isinstance(config, Mapping) and config.get("trainable") is False:
        model.trainable = False
    return model


class _Graph:
    """Calls the layers of a functional model as it once called them, each once its inputs are there."""

    def __init__(self, entries: Sequence[Config], make: Make) -> None:
        self._entries = {_name(entry): entry for entry in entries}
        self._layers = {name: _layer(entry, make) for name, entry in self._entries.items()}
        self._results: dict[tuple[str, int], Any] = {}
        # In the order of the file, so that weights and optimizer slots keep theirs.
        pending = [(name, call) for name, entry in self._entries.items() for call in range(len(_calls(entry)))]
        while pending:
            ready = [place for place in pending if self._is_ready(*place)]
            if not ready:
                refuse(f"the layers {', '.join(sorted({name for name, _ in pending}))} are not connected to the input")
            for place in ready:
                self._call(*place)
            pending = [place for place in pending if place not in ready]

    def tensor(self, reference: Sequence[Any]) -> Any:
        """What a layer returned, at one of its calls."""
        name, call, position = reference[:3]
        result = self._result(name, call)
        if result is None:
            refuse(f"the layer {name} is not connected to the input")
        return result[position] if isinstance(result, (list, tuple)) else result

    def _result(self, name: str, call: int) -> Any:
        layer = self._layers.get(name)
        if isinstance(layer, keras.layers.InputLayer):
            return layer.output
        # A nested model that begins with an input was called once when it was made, and the file counts that call.
        entry = self._entries.get(name)
        return self._results.get((name, call - (1 if entry is not None and _begins_with_input(entry) else 0)))

    def _is_ready(self, name: str, call: int) -> bool:
        return all(self._result(r[0], r[1]) is not None for r in _inputs_of(_calls(self._entries[name])[call]))

    def _call(self, name: str, call: int) -> None:
        node = _calls(self._entries[name])[call]
        positional = _references(node)
        tensors = [self.tensor(reference) for reference in positional]
        options: dict[str, Any] = {}
        for reference in positional:
            options.update(reference[3] if len(reference) > 3 else {})
        options = {key: self._argument(value) for key, value in options.items() if value is not None}
        options.pop("training", None)
        inputs = tensors[0] if len(tensors) == 1 and not _is_list_layer(self._layers[name]) else tensors
        self._results[name, call] = self._layers[name](inputs, **options)

    def _argument(self, value: Any) -> Any:
        return self.tensor(value) if self._is_reference(value) else value

    def _is_reference(self, value: Any) -> bool:
        return isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and value[0] in self._entries


def _is_list_layer(layer: Any) -> bool:
    return isinstance(layer, (keras.layers.Concatenate, keras.layers.Add, keras.layers.Average, keras.layers.Multiply))


def _inputs_of(node: Any) -> list[Any]:
    references = list(_references(node))
    for reference in _references(node):
        options = reference[3] if len(reference) > 3 else {}
        references += [v for v in options.values() if isinstance(v, list) and len(v) >= 3 and isinstance(v[0], str)]
    return references


def _references(node: Any) -> list[Any]:
    """A list of references, also where there is one that stands alone."""
    return [node] if node and isinstance(node[0], str) else list(node)


def _calls(entry: Config) -> Sequence[Any]:
    return list(entry.get("inbound_nodes", []))


def _name(entry: Config) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _kind(entry: Config) -> str:
    return str(entry["class_name"]).rpartition(">")[2]


def _begins_with_input(entry: Config) -> bool:
    config = entry["config"]
    layers = config.get("layers", []) if isinstance(config, Mapping) else config
    return _kind(entry) in _MODELS and bool(layers) and _kind(layers[0]) == "InputLayer"


def _layer(entry: Config, make: Make) -> Any:
    kind = _kind(entry)
    if kind in _MODELS:
        return model_from_keras2(entry, make)
    if kind in ("TFOpLambda", "SlicingOpLambda"):
        refuse(
            f"the layer {_name(entry)} is a bare TensorFlow operation, which Keras 3 does not load; save the model as a"
            " SavedModel with Keras 2 and name that folder"
        )
    if kind == "InputLayer":
        config = entry["config"]
        shape = config.get("batch_input_shape") or config.get("batch_shape")
        return keras.layers.InputLayer(batch_shape=tuple(shape), dtype=_dtype(config.get("dtype")), name=_name(entry))
    return make(_modern(entry))


def _modern(entry: Config) -> dict[str, Any]:
    """The serialised object as Keras 3 writes it."""
    kind = _kind(entry)
    registered = entry.get("registered_name") or (entry["class_name"] if ">" in str(entry["class_name"]) else None)
    config = _modern_config(kind, entry["config"])
    if registered is None and hasattr(keras.layers, kind):
        return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}
    name = str(registered or kind)
    # A class that `model.code` brings is known by its bare name, whatever package it was registered with.
    known = keras.saving.get_registered_object(name)
    return {
        "module": entry.get("module"),
        "class_name": kind,
        "config": config,
        "registered_name": name if known is not None else kind,
    }


def _modern_config(kind: str, config: Config) -> dict[str, Any]:
    result = {}
    for key, value in config.items():
        if key in _GONE and _ONLY_IN.get(key, kind) == kind:
            if _GONE[key] and value not in _GONE[key]:
                refuse(f"the layer {config.get('name', kind)} has {key}: {value}, which Keras 3 does not know")
        elif key == "dtype":
            result[key] = _dtype(value)
        elif isinstance(value, Mapping) and "class_name" in value and hasattr(keras.layers, _kind(value)):
            # The layer inside Bidirectional, TimeDistributed or RNN.
            result[key] = _modern(value)
        elif isinstance(value, Mapping) and "class_name" in value:
            result[key] = {k: v for k, v in value.items() if k != "shared_object_id"}
        else:
            result[key] = value
    if kind == "BatchNormalization" and isinstance(result.get("axis"), list):
        (result["axis"],) = result["axis"]
    if kind == "Lambda":
        result["function"] = _marshalled(result.pop("function"), result.pop("function_type", None))
        for key in ("module", "output_shape_type", "output_shape_module"):
            result.pop(key, None)
    return result


def _marshalled(function: Any, kind: str | None) -> Any:
    """A lambda as Keras 3 writes it: older files hold the code, its defaults and its closure as a bare list."""
    if kind == "lambda" and isinstance(function, (list, tuple)):
        code, defaults, closure = function
        return {"class_name": "__lambda__", "config": {"code": code, "defaults": defaults, "closure": closure}}
    return function


def _dtype(value: Any) -> Any:
    """The name of a type, also where it is wrapped in a policy."""
    return value.get("config", {}).get("name", "float32") if isinstance(value, Mapping) else value or "float32"
