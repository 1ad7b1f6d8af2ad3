"""How well the default configuration predicts, next to simple rules and River's learners.

Every side predicts each row before it learns it. learnd runs with three seeds, the others with their own defaults.
`python -m tests.bench.streams [STREAM ...]`, with ``--fast`` for learnd and the simple rule alone and one seed,
``--cost`` for the time of an update against a single learner. Needs the extra `bench`.
"""

import sys
import time
from statistics import median

from tests.bench.sides import interleave, show  # isort: skip - sets the log level

import numpy as np

from learnd.learners.settings import AutoSettings
from learnd.wiring.learner import configure_tensorflow
from tests.bench.rivals import MODELS, naive, river
from tests.bench.stream_data import STREAMS, Stream
from tests.support.learning import LearnerOfRows

SEEDS, CHUNK_ROWS, ROUNDS = (0, 1, 2), 2048, 5


def _learner(stream: Stream, seed: int, **sections: object) -> LearnerOfRows:
    task = {"kind": "classification"} if stream.classes else {"kind": "regression"}
    return LearnerOfRows(features=stream.x.shape[1], task=task, seed=seed, **sections)


def _learnd(stream: Stream, seed: int) -> float:
    learner = _learner(stream, seed)
    parts = [
        learner.learn(stream.x[start : start + CHUNK_ROWS], stream.y[start : start + CHUNK_ROWS]).predictions
        for start in range(0, len(stream.y), CHUNK_ROWS)
    ]
    predictions = np.concatenate(parts)
    return stream.figure(predictions.argmax(axis=1) if stream.classes else predictions[:, 0])


def compare(names: list[str], *, fast: bool) -> None:
    """Print one row per stream as soon as it is measured, then the whole table."""
    rows: list[list[object]] = []
    for name in names:
        stream = STREAMS[name]()
        own = [_learnd(stream, seed) for seed in (SEEDS[:1] if fast else SEEDS)]
        others = {"naive": stream.figure(naive(stream))}
        if not fast:
            others |= {side: stream.figure(river(side, stream)) for side in MODELS}
        best = min(others.values()) if stream.smaller_is_better else max(others.values())
        ours = float(np.mean(own))
        # Of errors where they are counted, of accuracies by the share that is wrong.
        ratio = ours / best if stream.smaller_is_better else (1.0 - ours) / max(1.0 - best, 1e-9)
        what = "sum of errors" if stream.as_sum else "accuracy" if stream.classes else "mean error"
        spread = f"{min(own):.4g} to {max(own):.4g}"
        rows.append(
            [name, what, *others.values(), ours, spread, ratio, "chosen on" if stream.chosen_on else "held out"]
        )
        print(*(f"{cell:.4g}" if isinstance(cell, float) else cell for cell in rows[-1]), sep="  ", flush=True)
    sides = ["naive"] if fast else ["naive", *(f"River: {side}" for side in MODELS)]
    show(
        "Streams", ["stream", "figure", *sides, "learnd", "seeds", "error over the best other", "the default was"], rows
    )


def cost(name: str) -> None:
    """Print the time per sample of the default and of a single learner, in turns."""
    stream = STREAMS[name]()
    learners = {mode: _learner(stream, 0, learning={"mode": mode}) for mode in ("per_sample", "auto")}
    x, y = stream.x[:CHUNK_ROWS], stream.y[:CHUNK_ROWS]

    def side(learner: LearnerOfRows) -> float:
        started_s = time.process_time()
        learner.learn(x, y)
        return (time.process_time() - started_s) / len(y) * 1e6

    for learner in learners.values():
        learner.learn(x, y)
    figures = interleave({m: lambda each=each: side(each) for m, each in learners.items()}, rounds=ROUNDS)  # type: ignore[misc]
    medians = {mode: median(values) for mode, values in figures.items()}
    rows = [[name, medians["per_sample"], medians["auto"], medians["auto"] / medians["per_sample"]]]
    show("Processor time, us per sample", ["stream", "per_sample", "auto", "ratio"], rows)


if __name__ == "__main__":
    configure_tensorflow(AutoSettings(mode="auto"))
    chosen = [argument for argument in sys.argv[1:] if not argument.startswith("--")] or list(STREAMS)
    if "--cost" in sys.argv:
        for stream_name in chosen if len(sys.argv) > 2 else ("abrupt drift", "bananas"):
            cost(stream_name)
    else:
        compare(chosen, fast="--fast" in sys.argv)
