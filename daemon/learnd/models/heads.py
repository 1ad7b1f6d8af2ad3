"""New output ends for existing models."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import KerasModel, Layer, Tensor
from learnd.models.settings import HeadSettings
from learnd.models.stored.features import features_of
from learnd.models.stored.graph_layer import GraphLayer


def with_head(model: KerasModel, settings: HeadSettings, row_shape: tuple[int, ...], outputs: int) -> KerasModel:
    """Return *model* with its last layers replaced by dense ones that end in *outputs* numbers.

    The remaining layers are the same objects as in *model*.

    Raises
    ------
    ConfigError
        if the model cannot be cut where *settings* say, or if the head does not have the outputs that the task needs.
    """
    if settings.units is not None and settings.units != outputs:
        message = f"is {settings.units}; the task needs {outputs} (omit it to follow the task)"
        raise ConfigError(Problem("model.head.units", message))
    body = _body(model, settings, row_shape)
    names = {layer.name for layer in model._flatten_layers()}
    features = _flat(body.output)
    for index, width in enumerate(settings.hidden):
        name = _unused(f"head_{index}", names)
        features = keras.layers.Dense(width, activation=settings.activation, name=name)(features)
    last = keras.layers.Dense(outputs, kernel_initializer="zeros", name=_unused("head", names))
    return _model(body.inputs, last(features), name="core")


def widened(model: KerasModel, outputs: int) -> KerasModel:
    """Return *model* with its last dense layer widened to *outputs* numbers.

    The first outputs keep their weights; the weights of the new ones are zero.

    Raises
    ------
    ConfigError
        if the model does not end with a dense layer.
    """
    last = next((layer for layer in reversed(getattr(model, "layers", [])) if layer.weights), None)
    if not isinstance(last, keras.layers.Dense) or not is_functional(model):
        message = "dynamic needs a model that ends with a dense layer; add model.head, or list the classes"
        raise ConfigError(Problem("task.classes", message))
    # The task computes the softmax itself. Regularisers and constraints stay those of the layer.
    config = {**last.get_config(), "units": outputs, "activation": None, "kernel_initializer": "zeros"}
    wide = keras.layers.Dense.from_config(config)
    wider_model = _model(model.inputs, wide(last.input), name="core")
    for variable, old in zip(wide.weights, last.weights, strict=True):
        value = variable.numpy()
        value[..., : last.units] = old.numpy()
        variable.assign(value)
    return wider_model


def is_functional(model: KerasModel) -> bool:
    """Return whether Keras knows the graph of *model*: it is functional, or sequential and built."""
    if isinstance(model, keras.Sequential):
        return bool(model.built)
    # Keras' own test. It includes subclasses of Model that were made from inputs and outputs.
    return hasattr(model, "_nodes_by_depth") or hasattr(model, "_operations")


def _body(model: KerasModel, settings: HeadSettings, row_shape: tuple[int, ...]) -> KerasModel:
    """Return the part of *model* that remains, up to the features that the new head takes."""
    if any(isinstance(layer, GraphLayer) for layer in model.layers):
        if settings.replace > 1 and settings.at is None:
            message = f"is {settings.replace}; the layers of a SavedModel are unknown: name a tensor in model.head.at"
            raise ConfigError(Problem("model.head.replace", message))
        return features_of(model, settings.at)
    if not is_functional(model):
        return _tapped(model, settings, row_shape)
    if settings.at is not None:
        return _model(model.inputs, _layer(model, settings.at).output)
    weighted = [layer for layer in model.layers if layer.weights]
    if len(weighted) == 1 and isinstance(weighted[0], keras.Model):
        return _body(weighted[0], settings, row_shape)  # a wrapper around the model to cut
    return _model(model.inputs, _first_replaced(weighted, settings).input)


def _model(inputs: Sequence[Tensor] | Tensor, outputs: Tensor, **options: str) -> KerasModel:
    model: KerasModel = keras.Model(inputs, outputs, **options)
    return model


def _first_replaced(weighted: Sequence[Layer], settings: HeadSettings) -> Layer:
    """Return the first of the layers that the head replaces; *weighted* are the layers with weights, in order."""
    if settings.replace > len(weighted):
        message = f"is {settings.replace}; the model has {len(weighted)} layers with weights"
        raise ConfigError(Problem("model.head.replace", message))
    return weighted[-settings.replace]


def _layer(model: KerasModel, name: str) -> Layer:
    layer = next((layer for layer in model.layers if layer.name == name), None)
    if layer is None:
        names = ", ".join(layer.name for layer in model.layers)
        raise ConfigError(Problem("model.head.at", f"no layer is called {name!r}; the model has {names}"))
    return layer


def _flat(features: Tensor) -> Tensor:
    if len(features.shape) == 2:
        return features
    if any(size is None for size in tuple(features.shape)[1:]):
        message = f"its features have shape {features.shape}; name a layer whose output sizes are all known"
        raise ConfigError(Problem("model.head.at", message))
    vectors: Tensor = keras.layers.Flatten(name="head_flat")(features)
    return vectors


def _unused(name: str, names: set[str]) -> str:
    """Return *name*, with as many ``_new`` at its end as make it differ from *names*, and add it to them."""
    while name in names:
        name += "_new"
    names.add(name)
    return name


def _tapped(model: KerasModel, settings: HeadSettings, row_shape: tuple[int, ...]) -> KerasModel:
    """Return a subclassed *model* up to the input of the first replaced layer.

    The model's code runs as a whole. What it computes after the tapped layer is ignored.
    """
    if settings.at is not None:
        tap = Tap(model, _layer(model, settings.at), before=False)
    else:
        weighted = [layer for layer in model.layers if layer.weights]
        first = _first_replaced(weighted, settings)
        for layer in weighted[-settings.replace :]:
            layer.trainable = False  # the user's code still runs them, but nothing uses their outputs
        tap = Tap(model, first, before=True)
    inputs = keras.Input(row_shape)
    return _model(inputs, tap(inputs))


class Tap(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A layer that returns the input or the output of one layer inside a subclassed model."""

    def __init__(self, model: KerasModel, layer: Layer, *, before: bool) -> None:
        super().__init__(name="body")
        self.model = model
        self._tapped = [layer.name]
        self._before = before

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Run the model on *x* and return the tapped tensor."""
        layer = next(layer for layer in self.model.layers if layer.name == self._tapped[0])
        tensors: list[Tensor] = []
        original: Callable[..., Tensor] = layer.call

        def recording(inputs: Tensor, *arguments: Any, **options: Any) -> Tensor:
            outputs = original(inputs, *arguments, **options)
            tensors.append(inputs if self._before else outputs)
            return outputs

        object.__setattr__(layer, "call", recording)
        try:
            self.model(x, training=training)
        finally:
            object.__setattr__(layer, "call", original)
        return tensors[-1]
