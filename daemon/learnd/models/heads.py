"""New ends for models that exist."""

from typing import Any

import keras

from learnd.core.errors import ConfigError, Problem
from learnd.models.settings import HeadSettings
from learnd.models.stored.features import features_of
from learnd.models.stored.graph_layer import GraphLayer


def with_head(model: Any, settings: HeadSettings, row_shape: tuple[int, ...], outputs: int) -> Any:
    """*model* with its end taken off and a dense one of *outputs* numbers in its place; the rest is the same objects.

    Raises
    ------
    ConfigError
        where the model cannot be cut as asked, or the head does not give what the task asks for.
    """
    if settings.units is not None and settings.units != outputs:
        raise ConfigError(
            Problem("model.head.units", f"is {settings.units}; the task asks for {outputs} (leave it out to follow it)")
        )
    body = _body(model, settings, row_shape)
    taken = {layer.name for layer in model._flatten_layers()}
    features = _flat(body.output)
    for index, width in enumerate(settings.hidden):
        name = _free(f"head_{index}", taken)
        features = keras.layers.Dense(width, activation=settings.activation, name=name)(features)
    last = keras.layers.Dense(outputs, kernel_initializer="zeros", name=_free("head", taken))
    return keras.Model(body.inputs, last(features), name="core")


def widened(model: Any, outputs: int) -> Any:
    """*model* with a last dense layer of *outputs* numbers, the first of which are the ones that it had.

    Raises
    ------
    ConfigError
        if it does not end with a dense layer.
    """
    last = next((layer for layer in reversed(getattr(model, "layers", [])) if layer.weights), None)
    if not isinstance(last, keras.layers.Dense) or not is_functional(model):
        raise ConfigError(
            Problem(
                "task.classes",
                "dynamic needs a model that ends with a dense layer; add model.head, or list the classes",
            )
        )
    wide = keras.layers.Dense(outputs, kernel_initializer="zeros", use_bias=last.use_bias, name=last.name)
    grown = keras.Model(model.inputs, wide(last.input), name="core")
    for variable, old in zip(wide.weights, last.weights, strict=True):
        value = variable.numpy()
        value[..., : last.units] = old.numpy()
        variable.assign(value)
    return grown


def is_functional(model: Any) -> bool:
    """Whether Keras knows the graph of *model*: functional, or sequential and built."""
    if isinstance(model, keras.Sequential):
        return bool(model.built)
    # Keras' own test; a subclass of Model that was made from inputs and outputs counts too.
    return hasattr(model, "_nodes_by_depth") or hasattr(model, "_operations")


def _body(model: Any, settings: HeadSettings, row_shape: tuple[int, ...]) -> Any:
    """The part of *model* that stays, up to its features."""
    graph = [layer for layer in model.layers if isinstance(layer, GraphLayer)]
    if graph:
        if settings.replace > 1 and settings.at is None:
            message = f"is {settings.replace}; the layers of a SavedModel are not known: name a tensor in model.head.at"
            raise ConfigError(Problem("model.head.replace", message))
        return features_of(model, settings.at)
    if not is_functional(model):
        return _tapped(model, settings, row_shape)
    if settings.at is not None:
        return keras.Model(model.inputs, _named(model, settings.at).output)
    weighted = [layer for layer in model.layers if layer.weights]
    if len(weighted) == 1 and isinstance(weighted[0], keras.Model):
        return _body(weighted[0], settings, row_shape)  # a wrapper around what was meant
    if settings.replace > len(weighted):
        raise _too_many(settings, len(weighted))
    return keras.Model(model.inputs, weighted[-settings.replace].input)


def _too_many(settings: HeadSettings, count: int) -> ConfigError:
    return ConfigError(
        Problem("model.head.replace", f"is {settings.replace}; the model has {count} layers with weights")
    )


def _named(model: Any, name: str) -> Any:
    found = [layer for layer in model.layers if layer.name == name]
    if not found:
        there = ", ".join(layer.name for layer in model.layers)
        raise ConfigError(Problem("model.head.at", f"no layer is called {name!r}; there are {there}"))
    return found[0]


def _flat(features: Any) -> Any:
    if len(features.shape) == 2:
        return features
    if any(size is None for size in features.shape[1:]):
        raise ConfigError(
            Problem(
                "model.head.at", f"its features have shape {features.shape}; name a layer whose sizes are all known"
            )
        )
    return keras.layers.Flatten(name="head_flat")(features)


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_new"
    taken.add(name)
    return name


def _tapped(model: Any, settings: HeadSettings, row_shape: tuple[int, ...]) -> Any:
    """A subclassed model up to the input of the layer that goes: its code runs, its last result is left."""
    if settings.at is not None:
        tap = Tap(model, _named(model, settings.at), before=False)
    else:
        weighted = [layer for layer in model.layers if layer.weights]
        if settings.replace > len(weighted):
            raise _too_many(settings, len(weighted))
        for layer in weighted[-settings.replace :]:
            layer.trainable = False  # they are still run by the user's code, for nobody
        tap = Tap(model, weighted[-settings.replace], before=True)
    inputs = keras.Input(row_shape)
    return keras.Model(inputs, tap(inputs))


class Tap(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
    """What one layer inside a subclassed model is given, or gives."""

    def __init__(self, model: Any, layer: Any, *, before: bool) -> None:
        super().__init__(name="body")
        self.model = model
        self._tapped = [layer.name]
        self._before = before

    def call(self, x: Any, training: bool = False) -> Any:
        """The tapped value for inputs of the model."""
        layer = next(layer for layer in self.model.layers if layer.name == self._tapped[0])
        seen: list[Any] = []
        original = layer.call

        def listening(inputs: Any, *arguments: Any, **options: Any) -> Any:
            outputs = original(inputs, *arguments, **options)
            seen.append(inputs if self._before else outputs)
            return outputs

        object.__setattr__(layer, "call", listening)
        try:
            self.model(x, training=training)
        finally:
            object.__setattr__(layer, "call", original)
        return seen[-1]
