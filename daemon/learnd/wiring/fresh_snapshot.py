"""The snapshot of a model that has learned nothing, from which exports are rehearsed."""

import math
from collections.abc import Mapping

import numpy as np

from learnd.config.settings import FeatureSettings
from learnd.core.snapshot import Snapshot
from learnd.core.types import NamedArrays, PrequentialScores
from learnd.export.rehearsal import made_up_rows
from learnd.wiring.learner import Learning

_CLASSES = 2
"""Classes of a rehearsed export if none has appeared yet: without any there would be nothing to export."""


def fresh_snapshot(core: Learning, features: Mapping[str, FeatureSettings]) -> tuple[Snapshot, NamedArrays]:
    """Return a snapshot of the present weights with made-up rows, and answers of the right shapes, all zero."""
    network, model = core.network, core.model
    limits = [
        (-math.inf if f.min is None else f.min, math.inf if f.max is None else f.max, f.whole)
        for f in features.values()
    ]
    rows = made_up_rows(tuple(network.row_shape), limits)
    weights, classes = list(model.averaged.weights()), list(model.classes())
    if network.class_count is not None and len(classes) < _CLASSES:
        classes += [f"class {i}" for i in range(len(classes), _CLASSES)]
        position = next(i for i, v in enumerate(network.served_state()) if v is network.class_count)
        weights[position] = np.asarray(_CLASSES, weights[position].dtype)
    shapes = {name: spec.shape for name, spec in network.output_specs.items()}
    answers = {
        name: np.zeros((len(rows), *((len(classes),) if network.class_count is not None else shape)), np.float32)
        for name, shape in shapes.items()
    }
    snapshot = Snapshot(
        tuple(weights), rows, 0, 0, {}, 0.0, 0.0, PrequentialScores(), tuple(classes), model.continuation()
    )
    return snapshot, answers
