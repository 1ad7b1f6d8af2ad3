"""learnd on a stream: what it predicts, what its export predicts while it stands still, and what an update costs."""

import time
from dataclasses import dataclass
from typing import Any

from tests.bench.sides import interleave, median, spread  # isort: skip - sets the log level

import numpy as np

from tests.bench.made_streams import Rows, Stream
from tests.support.learning import LearnerOfRows

CHUNK_ROWS = 1000
FROZEN_SHARE = 0.2
"""The share of a stream, at its end, that the standing export predicts."""
COST_ROWS, ROUNDS = 2000, 5


@dataclass(frozen=True)
class Predicted:
    """Predictions of all rows by the daemon, each before its row was learned, and of the last ones by an export."""

    predictions: Rows
    frozen: Rows


def frozen_rows(stream: Stream) -> slice:
    """Return the rows that an export predicts without learning them."""
    return slice(int(len(stream.y) * (1.0 - FROZEN_SHARE)), None)


def _learner(stream: Stream, seed: int, **sections: Any) -> LearnerOfRows:
    task = {"kind": "classification"} if stream.classes else {"kind": "regression"}
    return LearnerOfRows(features=stream.x.shape[1], task=task, seed=seed, **sections)


def _answers(outputs: Rows, stream: Stream) -> Rows:
    return outputs.argmax(axis=1) if stream.classes else outputs[:, 0]


def learnd(stream: Stream, seed: int, **sections: Any) -> Predicted:
    """Learn *stream* with the default configuration and *sections*."""
    learner = _learner(stream, seed, **sections)

    def learned(rows: slice) -> Rows:
        x, y = stream.x[rows], stream.y[rows]
        starts = range(0, len(y), CHUNK_ROWS)
        parts = [learner.learn(x[i : i + CHUNK_ROWS], y[i : i + CHUNK_ROWS]).predictions for i in starts]
        return _answers(np.concatenate(parts), stream)

    later = frozen_rows(stream)
    before = learned(slice(0, later.start))
    averaged = learner.learning.model.averaged
    # float32, as users of an export pass them.
    outputs = averaged.predict(stream.x[later].astype(np.float32), averaged.weights())
    frozen = _answers(next(iter(outputs.values())), stream)
    return Predicted(np.concatenate([before, learned(later)]), frozen)


def cost(stream: Stream) -> list[object]:
    """Return the processor time per sample, in us: of a single learner, of the default, and the default's multiple."""
    learners = {
        "single": _learner(stream, 0, learning={"mode": "per_sample"}),
        "default": _learner(stream, 0),
    }
    x, y = stream.x[:COST_ROWS], stream.y[:COST_ROWS]

    def side(learner: LearnerOfRows) -> float:
        started_s = time.process_time()
        learner.learn(x, y)
        return (time.process_time() - started_s) / len(y) * 1e6

    for learner in learners.values():
        learner.learn(x, y)
    figures = interleave({name: lambda each=each: side(each) for name, each in learners.items()}, rounds=ROUNDS)  # type: ignore[misc]
    ratios = [d / s for d, s in zip(figures["default"], figures["single"], strict=True)]
    return [median(figures["single"]), median(figures["default"]), f"{median(ratios):.2f} ({spread(ratios)})"]
