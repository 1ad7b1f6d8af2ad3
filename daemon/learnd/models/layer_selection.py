"""Selection of a model's layers by name, for freezing, thawing and learning rates per layer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from learnd.core.errors import ConfigError, Problem
from learnd.core.tensors import KerasModel, Layer, Variable
from learnd.models.settings import FreezeSettings
from learnd.models.stored.graph_layer import GraphLayer


@dataclass(frozen=True, slots=True)
class Part:
    """A layer, or those weights of a SavedModel that share a name.

    Attributes
    ----------
    names : what a pattern may match: its own name, its path, and the names of the layers that contain it
    owners : the objects whose ``trainable`` is set
    variables : all of its weights
    """

    names: tuple[str, ...]
    owners: Sequence[Layer | Variable]
    variables: Sequence[Variable]

    @property
    def name(self) -> str:
        """Its own name."""
        return self.names[0]


def _last_parts(layers: Sequence[Layer]) -> list[Part]:
    """Return those of the *layers* of a model that have weights, in order.

    Where only one has weights and that one contains layers, as a wrapper does, the inner layers are returned.
    """
    parts = [part for layer in layers for part in _top_parts(layer)]
    inner_layers = (
        getattr(parts[0].owners[0], "layers", None) if len(parts) == 1 and len(parts[0].owners) == 1 else None
    )
    return _last_parts(inner_layers) if inner_layers else parts


def _top_parts(layer: Layer) -> list[Part]:
    if isinstance(layer, GraphLayer):
        return [part for part in _graph_parts(layer) if any(v.trainable for v in part.variables)]
    return [Part((layer.name,), [layer], layer.weights)] if layer.weights else []


def _all_parts(layer: Layer, containers: tuple[str, ...] = ()) -> Iterator[Part]:
    """Yield every layer inside *layer* that has weights, at every depth, and every group of weights of a SavedModel.

    *containers* are the names of the layers that contain *layer*, outermost first, and its own.
    """
    for inner in layer._layers:
        path = (*containers, inner.name)
        if isinstance(inner, GraphLayer):
            yield from _graph_parts(inner)
        elif inner.weights:
            yield Part((inner.name, "/".join(path), *containers), [inner], inner.weights)
            yield from _all_parts(inner, path)


def _graph_parts(layer: GraphLayer) -> list[Part]:
    return [
        Part((name.rpartition(".")[2], name, layer.name), weights, weights) for name, weights in layer.groups().items()
    ]


def matching(model: KerasModel, patterns: Sequence[str], key: str) -> list[Part]:
    """Return the parts of *model* that match any of *patterns*.

    Raises
    ------
    ConfigError
        for a pattern that matches nothing, with the configuration's *key* and the names to choose from.
    """
    parts = list(_all_parts(model))
    matches: list[Part] = []
    for pattern in patterns:
        matches_of_pattern = [part for part in parts if any(fnmatchcase(name, pattern) for name in part.names)]
        if not matches_of_pattern:
            names = ", ".join(dict.fromkeys(part.name for part in parts))
            raise ConfigError(Problem(key, f"no layer with weights is called {pattern!r}; the model has {names}"))
        matches += matches_of_pattern
    return matches


def chosen_to_freeze(model: KerasModel, settings: FreezeSettings) -> list[Part]:
    """Return the parts of *model* that *settings* freeze.

    Raises
    ------
    ConfigError
        for a name that the model does not have, or if nothing would be left to learn.
    """
    parts = matching(model, settings.layers, "model.freeze.layers")
    if settings.all_but_last is not None:
        in_order = _last_parts(model.layers)
        if settings.all_but_last >= len(in_order):
            message = f"is {settings.all_but_last} of {len(in_order)} layers with weights, so none would be frozen"
            raise ConfigError(Problem("model.freeze.all_but_last", f"{message}; make it smaller, or omit it"))
        parts += in_order[: -settings.all_but_last]
    frozen = {id(v) for part in parts for v in part.variables}
    if all(id(v) in frozen for v in model.trainable_variables):
        raise ConfigError(Problem("model.freeze", "nothing is left to learn; freeze fewer layers, or add a head"))
    return parts


class Freeze:
    """Parts that do not learn until they are thawed."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self.variables = [v for part in parts for v in part.variables]
        self._owners = [owner for part in parts for owner in part.owners if owner.trainable]

    def hold(self) -> None:
        """Stop the parts from learning. Statistics of batch normalisation stop changing too."""
        for owner in self._owners:
            owner.trainable = False

    def apply(self) -> None:
        """Thaw: let them learn from now on, except for what did not learn before."""
        self.thaw()

    def reapply(self) -> None:
        """Thaw again after a restart."""
        self.thaw()

    def thaw(self) -> None:
        """Let the parts learn again, except those that were not trainable from the start."""
        for owner in self._owners:
            owner.trainable = True
