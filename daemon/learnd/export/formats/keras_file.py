"""Files of Keras: ``.keras`` with the optimizer, and weights in HDF5 for those who still need them.

Both hold a model of Keras' own layers: raw values in, raw values out, nothing of our code to import. Only layers that
the user wrote have to be there when it is loaded, as Keras has it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from learnd.core.errors import ExportError, FormatUnavailableError
from learnd.core.types import Float32Array
from learnd.export.exportable_model import Candidate


class KerasFormat:
    """``model.keras``: `keras.models.load_model` gives a compiled model that `fit` goes on with, slots and all."""

    file_name = "model.keras"
    unroll = False
    tolerance: ClassVar[float | None] = None

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate* to the file *target*.

        Raises
        ------
        FormatUnavailableError
            if the core holds what Keras cannot build again.
        """
        compiled(candidate).save(target)

    def reader(self, target: Path) -> "KerasReader":
        """The written model, as Keras loads it.

        Raises
        ------
        FormatUnavailableError
            if it holds a class that Keras does not find.
        """
        return KerasReader(target)


class Hdf5Format:
    """``model.weights.h5``: the weights of the same model, by layer, for an architecture that somebody has already."""

    file_name = "model.weights.h5"
    unroll = False
    tolerance: ClassVar[float | None] = None
    _model: Any = None

    def write(self, candidate: Candidate, target: Path) -> None:
        """Write *candidate*'s weights to the file *target*; fails as `KerasFormat.write` does."""
        self._model = compiled(candidate)
        self._model.save_weights(target)

    def reader(self, target: Path) -> "KerasReader":
        """The written weights in a fresh model of the same architecture."""
        if self._model is None:
            raise ExportError(f"{target.name} holds weights alone, no model that could answer; model.keras is one")
        fresh = keras.models.clone_model(self._model)
        fresh.load_weights(target)
        return KerasReader(fresh)


class KerasReader:
    """Answers from a file of Keras', or from a model that was loaded already."""

    def __init__(self, model: Any) -> None:
        self.model = _load(model) if isinstance(model, Path) else model

    def __call__(self, x: Float32Array) -> Mapping[str, Float32Array]:
        return {name: np.asarray(value) for name, value in self.model(x, training=False).items()}

    def check(self, x: Float32Array) -> None:
        """Make sure that the optimizer came along, where there is one.

        Raises
        ------
        ExportError
            if it has no slots.
        """
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None and not optimizer.built:
            raise ExportError("keras: the file's optimizer has no state")


def _load(path: Path) -> Any:
    try:
        return keras.models.load_model(path)
    except Exception as error:  # Keras has several for this one, and says it at the end of many lines
        missing = re.search("Could not locate class '([^']+)'", str(error))
        if missing is None:
            raise
        raise FormatUnavailableError(
            f"Keras finds no class {missing[1]} when it loads the file: decorate it with "
            "@keras.saving.register_keras_serializable(), and import its module before loading"
        ) from error


def compiled(candidate: Candidate) -> Any:
    """The candidate as a functional model of Keras' own layers, compiled with its optimizer's state."""
    network = candidate.network
    core = _plain(network.core)
    inputs = keras.Input(network.row_shape, name="inputs")
    outputs, losses, weights = network.symbolic(inputs, core)
    model = keras.Model(inputs, outputs, name="learnd")
    optimizer = type(candidate.optimizer).from_config(candidate.optimizer.get_config())
    optimizer.build(model.trainable_variables)
    for new, old in optimizer_pairs(optimizer, candidate.optimizer, network.trainable_variables):
        new.assign(old)
    model.compile(optimizer, loss=losses, loss_weights=weights)
    return model


def optimizer_pairs(new: Any, old: Any, learning: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each variable of the *new* optimizer with the *old* one's, of which *learning* are those that learn now.

    Layers that are frozen for a while have slots in the old one already, but a file of Keras' holds those of what
    learns, and nothing else.

    Raises
    ------
    FormatUnavailableError
        if it cannot be told which of the old one's are meant.
    """
    if len(new.variables) == len(old.variables):
        return list(zip(new.variables, old.variables, strict=True))
    position = {id(variable): i for i, variable in enumerate(old._trainable_variables)}
    chosen = [position[id(variable)] for variable in learning]
    found: list[tuple[Any, Any]] = []
    for name, mine in vars(new).items():
        theirs = getattr(old, name)
        if isinstance(mine, list) and len(mine) == len(chosen) and len(theirs) == len(position):
            found += zip(mine, (theirs[i] for i in chosen), strict=True)
        elif isinstance(mine, keras.Variable):
            found.append((mine, theirs))
    slots = [(a, b) for a, b in found if id(a) in {id(v) for v in new.variables}]
    if len(slots) < len(new.variables):
        kind = type(new).__name__
        raise FormatUnavailableError(f"{kind} does not tell whose slots are whose while freeze.until_samples holds")
    return slots


def _plain(core: Any) -> Any:
    """*core* with Keras' layers in the place of our faster ones, and the same weights."""
    ours = [layer for layer in core._flatten_layers(include_self=True) if _is_ours(layer)]
    strange = [layer for layer in ours if not hasattr(layer, "plain")]
    if strange:
        kind = type(strange[0]).__name__
        raise FormatUnavailableError(f"{strange[0].name} ({kind}) is no layer that Keras can build again")
    if not ours:
        return core
    again = keras.models.clone_model(core, clone_function=_plain_layer)
    again.set_weights(core.get_weights())
    for new, old in zip(again._flatten_layers(), core._flatten_layers(), strict=False):
        new.trainable = old.trainable
    return again


def _plain_layer(layer: Any) -> Any:
    return layer.plain() if _is_ours(layer) else type(layer).from_config(layer.get_config())


def _is_ours(layer: Any) -> bool:
    return type(layer).__module__.startswith("learnd.")
