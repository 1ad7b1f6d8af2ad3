"""Traced updates, shared by the pipelines of one process: the same few updates are traced hundreds of times.

Tracing an update costs two seconds of processor time and compiling it with XLA four more, far more than the 40 to 300
records that such a test learns. A second pipeline with the same settings keeps its own variables, learner and
averages. Only the graph is that of the first one, called with the variables of the second in place of its own.

For test files whose subject is not the tracing: they ask for it with ``pytest.mark.usefixtures("shared_traces")``. A
pipeline keeps a trace of its own if its model is loaded or frozen, if the user's code takes part, or if its graph
captures anything but variables that were made with the pipeline.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

from learnd.config.settings import Settings
from learnd.learners.chunk import CompiledChunk
from learnd.wiring import pipeline as wiring

_NOT_TRACED = {
    "name",
    "data_dir",
    "source",
    "decode",
    "checkpoint",
    "export",
    "dead_letter",
    "predictions",
    "truth",
    "intervals",
    "drift",
    "alarms",
    "http",
}


@dataclass(frozen=True)
class _Maker:
    """The settings that a pipeline is made from, and the variables in the order in which they were made."""

    key: str
    variables: list[Any]


@dataclass(frozen=True)
class _Trace:
    """A graph, and for each of its captures which of the pipeline's variables it is."""

    function: Any
    places: Sequence[int]

    def bound_to(self, variables: Sequence[Any]) -> Callable[..., Any]:
        """Return the graph as a function that reads and writes *variables*."""
        captures = [variables[place].handle for place in self.places]
        return lambda *inputs: self.function._call_flat(list(inputs), captures)


_traces: dict[str, _Trace] = {}
_makers: weakref.WeakKeyDictionary[CompiledChunk, _Maker] = weakref.WeakKeyDictionary()


def _shareable(settings: Settings) -> bool:
    """Return whether the settings say everything that the graph depends on: no code, no file, no later thaw."""
    model, learning = settings.model, settings.learning
    own_code = model.kind == "factory" or learning.update is not None or ":" in str(learning.loss)
    return not own_code and model.load is None and model.freeze is None


def _place(capture: Any, variables: Sequence[Any]) -> int:
    """Return which variable's handle *capture* is; -1 if it is none of them."""
    return next((i for i, variable in enumerate(variables) if variable.handle is capture), -1)


@contextmanager
def sharing() -> Iterator[None]:
    """Let the pipelines that are made inside share their traces, with each other and with those of earlier blocks."""
    makers: list[_Maker] = []
    make_learning, init, trace = wiring.make_learning, CompiledChunk.__init__, CompiledChunk._trace
    make_variable = ResourceVariable.__init__

    def remember(settings: Settings, recipe: Any) -> Any:
        if not _shareable(settings):
            return make_learning(settings, recipe)
        parts = (settings.model_dump_json(exclude=_NOT_TRACED), str(settings.most_answers > 0), settings.serve)
        maker = _Maker(" ".join(parts), [])
        makers.append(maker)
        try:
            return make_learning(settings, recipe)
        finally:
            makers.pop()

    def record(variable: Any, *arguments: Any, **options: Any) -> None:
        make_variable(variable, *arguments, **options)
        if makers:
            makers[-1].variables.append(variable)

    def own(chunk: CompiledChunk, *arguments: Any, **options: Any) -> None:
        init(chunk, *arguments, **options)
        if makers:
            _makers[chunk] = makers[-1]

    def share(chunk: CompiledChunk) -> Any:
        maker = _makers.get(chunk)
        if maker is None:
            return trace(chunk)
        if (known := _traces.get(maker.key)) is not None:
            return known.bound_to(maker.variables)
        function = trace(chunk)
        places = [_place(capture, maker.variables) for capture in function.captured_inputs]
        if -1 not in places:
            _traces[maker.key] = _Trace(function, places)
        return function

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wiring, "make_learning", remember)
        # Not by tf.variable_creator_scope: making a model begins with a new default graph, which forgets the scope.
        patch.setattr(ResourceVariable, "__init__", record)
        patch.setattr(CompiledChunk, "__init__", own)
        patch.setattr(CompiledChunk, "_trace", share)
        yield
