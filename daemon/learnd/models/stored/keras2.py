"""Conversion of a Keras 2 architecture to a Keras 3 model. Keras 3 itself reads only the simplest ones.

The configuration is converted layer by layer, for two reasons. Keras 3 removed or renamed a few options, and it counts
the calls of a nested model differently.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import keras

from learnd.core.tensors import KerasModel, Layer, Tensor
from learnd.models.stored.inference import infer_always
from learnd.models.stored.model import refuse

Config: TypeAlias = Mapping[str, Any]
"""The configuration of a layer or model, or an entry of ``class_name`` and ``config``."""
Make: TypeAlias = Callable[[dict[str, Any]], Any]
"""A function that deserialises one object that Keras 3 understands."""
Reference: TypeAlias = Sequence[Any]
"""An output of a layer: its name, the number of its call, the position in what it returned, and maybe options."""

_MODELS = frozenset({"Sequential", "Functional", "Model"})
# Options that Keras 3 lacks, and the values for which dropping them changes nothing. Empty: any value.
_REMOVED_OPTIONS: dict[str, tuple[object, ...]] = {
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
# Removed options that must stay in the other layers, where Keras 3 still has them.
_REMOVED_ONLY_IN = {"sparse": "InputLayer", "ragged": "InputLayer", "optional": "InputLayer"}


def model_from_keras2(entry: Config, make: Make) -> KerasModel:
    """Return the model that *entry* (``class_name``, ``config``) describes, with fresh weights.

    *make* deserialises one object that Keras 3 understands.

    Raises
    ------
    ConfigError
        for anything that Keras 3 cannot express.
    """
    kind, config = _kind(entry), entry["config"]
    if kind == "Sequential":
        return _sequential(config, make)
    if kind in _MODELS and "layers" in config:
        return _functional(config, make)
    model: KerasModel = make(dict(entry))
    return model


def is_keras2(entry: Config) -> bool:
    """Return whether Keras 2 wrote this configuration.

    Its input layers have another key for the shape than those of Keras 3, and its layers do not name their module.

    >>> is_keras2({"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}})
    True
    """
    config = entry.get("config", {})
    layers = config.get("layers", []) if isinstance(config, Mapping) else config
    if str(entry.get("module", "")).startswith("tf_keras"):
        return True
    return any("module" not in layer or "batch_input_shape" in layer.get("config", {}) for layer in layers)


def _sequential(config: Config | Sequence[Config], make: Make) -> KerasModel:
    # Before Keras 2.3 the configuration was only the list of layers.
    entries = config["layers"] if isinstance(config, Mapping) else config
    layers = [_layer(entry, make) for entry in entries]
    if not isinstance(layers[0], keras.layers.InputLayer):
        first = entries[0]["config"]
        shape = first.get("batch_input_shape") or (
            config.get("build_input_shape") if isinstance(config, Mapping) else None
        )
        if shape is None and not isinstance(layers[0], keras.Model):
            refuse("the file does not give the input shape of the sequential model; call it on data before saving it")
        if shape is not None:
            layers.insert(0, keras.layers.InputLayer(batch_shape=(None, *shape[1:])))
    name = config.get("name") if isinstance(config, Mapping) else None
    model: KerasModel = keras.Sequential(layers, name=name)
    return _with_trainable(model, config)


def _functional(config: Config, make: Make) -> KerasModel:
    graph = _Graph(config["layers"], make)
    inputs = [graph.tensor(reference) for reference in _references(config["input_layers"])]
    outputs = [graph.tensor(reference) for reference in _references(config["output_layers"])]
    # A model that is made with lists of one tensor requires lists of one tensor at every call.
    model: KerasModel = keras.Model(_unpack_single(inputs), _unpack_single(outputs), name=config.get("name"))
    return _with_trainable(model, config)


def _unpack_single(tensors: list[Tensor]) -> Tensor | list[Tensor]:
    return tensors[0] if len(tensors) == 1 else tensors


def _with_trainable(model: KerasModel, config: Config | Sequence[Config]) -> KerasModel:
    if isinstance(config, Mapping) and config.get("trainable") is False:
        model.trainable = False
    return model


class _Graph:
    """The layers of a functional model. Each is called as the saved model called it, as soon as its inputs exist."""

    def __init__(self, entries: Sequence[Config], make: Make) -> None:
        self._entries = {_name(entry): entry for entry in entries}
        self._layers = {name: _layer(entry, make) for name, entry in self._entries.items()}
        self._results: dict[tuple[str, int], Tensor | Sequence[Tensor]] = {}
        # In the order of the file, so that weights and optimizer slots keep their order.
        pending = [(name, call) for name, entry in self._entries.items() for call in range(len(_calls(entry)))]
        while pending:
            ready = [place for place in pending if self._is_ready(*place)]
            if not ready:
                refuse(f"the layers {', '.join(sorted({name for name, _ in pending}))} are not connected to the input")
            for place in ready:
                self._call(*place)
            pending = [place for place in pending if place not in ready]

    def tensor(self, reference: Reference) -> Tensor:
        """Return the tensor that one call of a layer returned.

        Raises
        ------
        ConfigError
            if the layer was not called.
        """
        name, call, position = reference[:3]
        result = self._result(name, call)
        if result is None:
            refuse(f"the layer {name} is not connected to the input")
        return result[position] if isinstance(result, Sequence) else result

    def _result(self, name: str, call: int) -> Tensor | Sequence[Tensor] | None:
        layer = self._layers.get(name)
        if isinstance(layer, keras.layers.InputLayer):
            inputs: Tensor = layer.output
            return inputs
        # A nested model that starts with an input layer was called once when it was made. The file counts that call.
        entry = self._entries.get(name)
        return self._results.get((name, call - (1 if entry is not None and _starts_with_input(entry) else 0)))

    def _is_ready(self, name: str, call: int) -> bool:
        return all(self._result(r[0], r[1]) is not None for r in _inputs_of(_calls(self._entries[name])[call]))

    def _call(self, name: str, call: int) -> None:
        node = _calls(self._entries[name])[call]
        positional = _references(node)
        tensors = [self.tensor(reference) for reference in positional]
        options: dict[str, object] = {}
        for reference in positional:
            options.update(reference[3] if len(reference) > 3 else {})
        options = {key: self._argument(value) for key, value in options.items() if value is not None}
        training = options.pop("training", None)
        inputs = tensors[0] if len(tensors) == 1 and not _takes_list(self._layers[name]) else tensors
        self._results[name, call] = self._layers[name](inputs, **options)
        if training is not None:
            self._keep_mode(name, bool(training))

    def _keep_mode(self, name: str, training: bool) -> None:
        """Keep the layer *name* in the mode that the file gives it.

        Raises
        ------
        ConfigError
            for training mode, whose answers are random or depend on the batch; or if other calls have another mode.
        """
        if training:
            refuse(f"the layer {name} is called with training=True, so its answers are not repeatable; call it without")
        modes = {_modes(node) for node in _calls(self._entries[name])}
        if len(modes) > 1:
            refuse(f"the layer {name} is called with training=False in one place and without it in another")
        infer_always(self._layers[name])

    def _argument(self, value: object) -> object:
        if isinstance(value, list) and len(value) >= 3 and isinstance(value[0], str) and value[0] in self._entries:
            return self.tensor(value)
        return value


def _modes(node: Sequence[Any]) -> object:
    """Return the mode in which *node* calls its layer; None: that of the whole model."""
    options = [reference[3].get("training") for reference in _references(node) if len(reference) > 3]
    return next((mode for mode in options if mode is not None), None)


def _takes_list(layer: Layer) -> bool:
    return isinstance(layer, (keras.layers.Concatenate, keras.layers.Add, keras.layers.Average, keras.layers.Multiply))


def _inputs_of(node: Sequence[Any]) -> list[Reference]:
    references = _references(node)
    for reference in _references(node):
        options = reference[3] if len(reference) > 3 else {}
        references += [v for v in options.values() if isinstance(v, list) and len(v) >= 3 and isinstance(v[0], str)]
    return references


def _references(node: Sequence[Any]) -> list[Reference]:
    """Return a list of references, also for *node* that is a single reference."""
    return [node] if node and isinstance(node[0], str) else list(node)


def _calls(entry: Config) -> Sequence[Sequence[Any]]:
    return list(entry.get("inbound_nodes", []))


def _name(entry: Config) -> str:
    return str(entry.get("name") or entry["config"]["name"])


def _kind(entry: Config) -> str:
    return str(entry["class_name"]).rpartition(">")[2]


def _starts_with_input(entry: Config) -> bool:
    config = entry["config"]
    layers = config.get("layers", []) if isinstance(config, Mapping) else config
    return _kind(entry) in _MODELS and bool(layers) and _kind(layers[0]) == "InputLayer"


def _layer(entry: Config, make: Make) -> Layer:
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
        inputs: Layer = keras.layers.InputLayer(
            batch_shape=tuple(shape), dtype=_dtype(config.get("dtype")), name=_name(entry)
        )
        return inputs
    layer: Layer = make(_keras3_entry(entry))
    return layer


def _keras3_entry(entry: Config) -> dict[str, Any]:
    """Return the serialised object as Keras 3 writes it."""
    kind = _kind(entry)
    registered = entry.get("registered_name") or (entry["class_name"] if ">" in str(entry["class_name"]) else None)
    config = _keras3_config(kind, entry["config"])
    if registered is None and hasattr(keras.layers, kind):
        return {"module": "keras.layers", "class_name": kind, "config": config, "registered_name": None}
    name = str(registered or kind)
    # Classes from `model.code` are known by their bare names, whatever package they were registered with.
    is_registered = keras.saving.get_registered_object(name) is not None
    return {
        "module": entry.get("module"),
        "class_name": kind,
        "config": config,
        "registered_name": name if is_registered else kind,
    }


def _keras3_config(kind: str, config: Config) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in config.items():
        if key in _REMOVED_OPTIONS and _REMOVED_ONLY_IN.get(key, kind) == kind:
            if _REMOVED_OPTIONS[key] and value not in _REMOVED_OPTIONS[key]:
                refuse(f"the layer {config.get('name', kind)} has {key}: {value}, which Keras 3 does not support")
        elif key == "dtype":
            result[key] = _dtype(value)
        elif isinstance(value, Mapping) and "class_name" in value and hasattr(keras.layers, _kind(value)):
            # The layer inside Bidirectional, TimeDistributed or RNN.
            result[key] = _keras3_entry(value)
        elif isinstance(value, Mapping) and "class_name" in value:
            result[key] = {k: v for k, v in value.items() if k != "shared_object_id"}
        else:
            result[key] = value
    if kind == "BatchNormalization" and isinstance(result.get("axis"), list):
        (result["axis"],) = result["axis"]
    if kind == "Lambda":
        result["function"] = _keras3_lambda(result.pop("function"), result.pop("function_type", None))
        for key in ("module", "output_shape_type", "output_shape_module"):
            result.pop(key, None)
    return result


def _keras3_lambda(function: object, kind: str | None) -> object:
    """Return a lambda as Keras 3 writes it. Older files hold its code, defaults and closure in a plain list."""
    if kind == "lambda" and isinstance(function, (list, tuple)):
        code, defaults, closure = function
        return {"class_name": "__lambda__", "config": {"code": code, "defaults": defaults, "closure": closure}}
    return function


def _dtype(value: Config | str | None) -> str:
    """Return the name of a dtype, which may be wrapped in a policy."""
    return value.get("config", {}).get("name", "float32") if isinstance(value, Mapping) else value or "float32"
