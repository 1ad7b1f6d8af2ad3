"""Keras files: ``.keras`` with the optimizer, and weights in HDF5 for programs that still need them.

Both hold a model of Keras' own layers, from raw values to raw values. Loading it imports no code of learnd. As always
with Keras, layers that the user wrote must be importable.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import keras
import numpy as np

from learnd.core.errors import ExportError, FormatUnavailableError
from learnd.core.tensors import KerasModel, Layer, NamedTensors, Optimizer, Variable
from learnd.core.types import Float32Array
from learnd.export.exportable_model import ExportableCore, ExportableLayer, ExportableModel


class _CompiledModel(KerasModel, Protocol):
    """The members of a compiled Keras model that are used here."""

    optimizer: Optimizer | None

    def __call__(self, x: Float32Array, /, *, training: bool) -> NamedTensors: ...

    def compile(
        self, optimizer: Optimizer, *, loss: Mapping[str, object], loss_weights: Mapping[str, float]
    ) -> None: ...

    def save(self, path: Path, /) -> None: ...

    def save_weights(self, path: Path, /) -> None: ...

    def load_weights(self, path: Path, /) -> None: ...


class KerasFormat:
    """``model.keras``: `keras.models.load_model` returns a compiled model, whose `fit` continues with all slots."""

    file_name = "model.keras"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write *model* to the file *target*.

        Raises
        ------
        FormatUnavailableError
            if the core contains a layer that Keras cannot rebuild.
        """
        compiled(model).save(target)

    def reader(self, target: Path) -> "KerasReader":
        """Return the written model, as Keras loads it.

        Raises
        ------
        FormatUnavailableError
            if it contains a class that Keras does not find.
        """
        return KerasReader(target)


class Hdf5Format:
    """``model.weights.h5``: the weights of the same model, by layer, for users who already have the architecture."""

    file_name = "model.weights.h5"
    unroll = False
    tolerance: ClassVar[float | None] = None
    _written: _CompiledModel | None = None

    def write(self, model: ExportableModel, target: Path) -> None:
        """Write the weights of *model* to the file *target*; raises what `KerasFormat.write` raises."""
        self._written = compiled(model)
        self._written.save_weights(target)

    def reader(self, target: Path) -> "KerasReader":
        """Return the written weights in a new model of the same architecture."""
        if self._written is None:
            raise ExportError(f"{target.name} holds only weights, and no model that could predict; use model.keras")
        clone: _CompiledModel = keras.models.clone_model(self._written)
        clone.load_weights(target)
        return KerasReader(clone)


class KerasReader:
    """Predicts with a Keras file, or with a model that is already loaded."""

    def __init__(self, model: "Path | _CompiledModel") -> None:
        self.model = _load(model) if isinstance(model, Path) else model

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        return {name: np.asarray(value) for name, value in self.model(x, training=False).items()}

    def check(self, x: Float32Array) -> None:
        """Raise ExportError if the model has an optimizer, but not its slots."""
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            raise ExportError("keras: the file's optimizer has no state")


def _load(path: Path) -> _CompiledModel:
    try:
        model: _CompiledModel = keras.models.load_model(path)
    except Exception as error:  # Keras raises several types for this, and says it at the end of many lines
        missing = re.search("Could not locate class '([^']+)'", str(error))
        if missing is None:
            raise
        raise FormatUnavailableError(
            f"Keras finds no class {missing[1]} when it loads the file: decorate it with "
            "@keras.saving.register_keras_serializable(), and import its module before loading"
        ) from error
    return model


def compiled(model: ExportableModel) -> _CompiledModel:
    """Return *model* as a functional model of Keras' own layers, compiled with its optimizer's state.

    Raises
    ------
    FormatUnavailableError
        if Keras cannot rebuild a layer, or the optimizer's slots cannot be assigned to the trainable layers.
    """
    network = model.network
    core = _with_keras_layers(network.core)
    inputs = keras.Input(network.row_shape, name="inputs")
    outputs, losses, weights = network.symbolic(inputs, core)
    functional: _CompiledModel = keras.Model(inputs, outputs, name="learnd")
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
    optimizer.build(functional.trainable_variables)
    for new, old in optimizer_pairs(optimizer, model.optimizer, network.trainable_variables):
        new.assign(old)
    functional.compile(optimizer, loss=losses, loss_weights=weights)
    return functional


def optimizer_pairs(new: Optimizer, old: Optimizer, trainable: Sequence[Variable]) -> list[tuple[Variable, Variable]]:
    """Return each variable of the optimizer *new* with its counterpart in *old*.

    *trainable* are the weights that learn now. While other layers are still frozen, *old* already has their slots, but
    a Keras file holds only the slots of the layers that learn.

    Raises
    ------
    FormatUnavailableError
        if the counterparts cannot be determined.
    """
    if len(new.variables) == len(old.variables):
        return list(zip(new.variables, old.variables, strict=True))
    position = {id(variable): i for i, variable in enumerate(old._trainable_variables)}
    chosen = [position[id(variable)] for variable in trainable]
    pairs: list[tuple[Variable, Variable]] = []
    for name, new_value in vars(new).items():
        old_value = getattr(old, name)
        if isinstance(new_value, list) and len(new_value) == len(chosen) and len(old_value) == len(position):
            pairs += zip(new_value, (old_value[i] for i in chosen), strict=True)
        elif isinstance(new_value, keras.Variable):
            pairs.append((new_value, old_value))
    slots = [(a, b) for a, b in pairs if id(a) in {id(v) for v in new.variables}]
    if len(slots) < len(new.variables):
        kind = type(new).__name__
        raise FormatUnavailableError(
            f"{kind} does not list its slots by weight, so those of the layers that learn cannot be found while "
            "freeze.until_samples keeps other layers frozen"
        )
    return slots


@runtime_checkable
class _Replaceable(Protocol):
    """A layer of learnd's that can be replaced by a slower one of Keras'."""

    def plain(self) -> Layer: ...


def _with_keras_layers(core: ExportableCore) -> ExportableCore:
    """Return *core* with Keras' own layers instead of learnd's faster ones, and with the same weights."""
    ours = [layer for layer in core._flatten_layers(include_self=True) if _is_ours(layer)]
    irreplaceable = [layer for layer in ours if not isinstance(layer, _Replaceable)]
    if irreplaceable:
        kind = type(irreplaceable[0]).__name__
        raise FormatUnavailableError(f"Keras cannot rebuild the layer {irreplaceable[0].name} ({kind})")
    if not ours:
        return core
    clone: ExportableCore = keras.models.clone_model(core, clone_function=_keras_layer)
    clone.set_weights(core.get_weights())
    for new, old in zip(clone._flatten_layers(), core._flatten_layers(), strict=False):
        new.trainable = old.trainable
    return clone


def _keras_layer(layer: ExportableLayer) -> Layer:
    if _is_ours(layer) and isinstance(layer, _Replaceable):
        return layer.plain()
    return type(layer).from_config(layer.get_config())


def _is_ours(layer: Layer) -> bool:
    return type(layer).__module__.startswith("learnd.")
