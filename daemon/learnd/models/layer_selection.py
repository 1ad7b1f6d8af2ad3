"""The layers of a model by name: what freezing, thawing and learning rates per group speak of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from learnd.core.errors import ConfigError, Problem
from learnd.models.settings import FreezeSettings
from learnd.models.stored.graph_layer import GraphLayer


@dataclass(frozen=True, slots=True)
class Part:
    """A layer, or those weights of a SavedModel that share a name.

    Attributes
    ----------
    names : what a pattern may match: its own name, its path, and the names of what it is inside of
    owners : what ``trainable`` is set on
    variables : all of its weights
    """

    names: tuple[str, ...]
    owners: Sequence[Any]
    variables: Sequence[Any]

    @property
    def name(self) -> str:
        return self.names[0]


def last_parts(model: Any) -> list[Part]:
    """The layers with weights in the order of the model; where there is but one, what it is made of."""
    top = [part for layer in model.layers for part in _top_parts(layer)]
    if len(top) == 1 and len(top[0].owners) == 1 and getattr(top[0].owners[0], "layers", None):
        return last_parts(top[0].owners[0])
    return top


def _top_parts(layer: Any) -> list[Part]:
    if isinstance(layer, GraphLayer):
        return [part for part in _graph_parts(layer) if any(v.trainable for v in part.variables)]
    return [Part((layer.name,), [layer], layer.weights)] if layer.weights else []


def all_parts(model: Any) -> list[Part]:
    """Every layer at every depth that has weights, and every group of weights of a SavedModel."""
    return list(_walk(model, ()))


def _walk(layer: Any, inside: tuple[str, ...]) -> Iterator[Part]:
    for inner in layer._layers:
        path = (*inside, inner.name)
        if isinstance(inner, GraphLayer):
            yield from _graph_parts(inner)
        elif inner.weights:
            yield Part((inner.name, "/".join(path), *inside), [inner], inner.weights)
            yield from _walk(inner, path)


def _graph_parts(layer: GraphLayer) -> list[Part]:
    return [
        Part((name.rpartition(".")[2], name, layer.name), weights, weights) for name, weights in layer.groups().items()
    ]


def matching(model: Any, patterns: Sequence[str], key: str) -> list[Part]:
    """The parts that any of *patterns* names.

    Raises
    ------
    ConfigError
        for a pattern that names none, with the configuration's *key* and what there is.
    """
    parts = all_parts(model)
    found: list[Part] = []
    for pattern in patterns:
        named = [part for part in parts if any(fnmatchcase(name, pattern) for name in part.names)]
        if not named:
            there = ", ".join(dict.fromkeys(part.name for part in parts))
            raise ConfigError(Problem(key, f"no layer with weights is called {pattern!r}; there are {there}"))
        found += named
    return found


def chosen_to_freeze(model: Any, settings: FreezeSettings) -> list[Part]:
    """The parts that *settings* name.

    Raises
    ------
    ConfigError
        for a name that there is not, or if nothing would be left to learn.
    """
    parts = matching(model, settings.layers, "model.freeze.layers")
    if settings.all_but_last is not None:
        in_order = last_parts(model)
        if settings.all_but_last >= len(in_order):
            message = f"is {settings.all_but_last} of {len(in_order)} layers with weights, so none would be frozen"
            raise ConfigError(Problem("model.freeze.all_but_last", message))
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
        """From now on they stay as they are, the statistics of batch normalisation too."""
        for owner in self._owners:
            owner.trainable = False

    def apply(self) -> None:
        """Thaw: let them learn from now on, except for what did not learn before."""
        self.thaw()

    def reapply(self) -> None:
        """Thaw again after a restart."""
        self.thaw()

    def thaw(self) -> None:
        """Let them learn from now on, except for what did not learn before."""
        for owner in self._owners:
            owner.trainable = True
