"""Rare classes: how many of the positives each online learner finds, at one positive in a hundred rows.

Every side predicts each row before it learns it, with its own defaults. A row counts as positive where the positive
class is the most probable one. `python -m tests.bench.rare_classes` prints the table; with

    --streams NAMES   these streams only, between commas
    --sides NAMES     these sides only
    --seeds N         seeds per side (3)
    --from ROW        count from this row on (1)

Needs the extra `bench`.
"""

import argparse
from collections.abc import Callable
from typing import Any

from tests.bench.sides import markdown  # isort: skip - sets the log level

import numpy as np
from river import datasets, forest, linear_model, optim, tree

from learnd.config.loader import from_values
from learnd.wiring.learner import configure_tensorflow
from tests.bench.learnd_side import CHUNK_ROWS
from tests.bench.made_streams import Rows, Stream
from tests.bench.rivals import probabilities
from tests.support.learning import LearnerOfRows

_ROWS = 20_000
_RARE = 0.01


def _region() -> Stream:
    """One positive in a hundred: where two of eight inputs are far from the middle, the third decides, and noise."""
    random = np.random.default_rng(7)
    x = random.normal(size=(_ROWS, 8))
    score = np.hypot(x[:, 0], x[:, 1]) + 0.5 * x[:, 2] + 0.1 * random.normal(size=_ROWS)
    return Stream(x, (score > np.quantile(score, 1.0 - _RARE)).astype(float), classes=2)


def _linear() -> Stream:
    """One positive in a hundred: a linear score of eight inputs, and noise of a third of its spread."""
    random = np.random.default_rng(8)
    x = random.normal(size=(_ROWS, 8))
    score = x @ random.normal(size=8)
    score += 0.33 * score.std() * random.normal(size=_ROWS)
    return Stream(x, (score > np.quantile(score, 1.0 - _RARE)).astype(float), classes=2)


def _moving() -> Stream:
    """The same region, around another centre from the middle of the stream on."""
    random = np.random.default_rng(9)
    x = random.normal(size=(_ROWS, 8))
    moved = (np.arange(_ROWS) >= _ROWS // 2)[:, None] * np.array([[0.7, -0.7]])
    score = np.hypot(*(x[:, :2] + moved).T) + 0.5 * x[:, 2] + 0.1 * random.normal(size=_ROWS)
    return Stream(x, (score > np.quantile(score, 1.0 - _RARE)).astype(float), classes=2)


def _shuttle() -> Stream:
    """River's shuttle, with so few of its anomalies that they are one row in a hundred."""
    rows = [(list(row.values()), float(label)) for row, label in datasets.Shuttle()]
    random = np.random.default_rng(0)
    share = _RARE * sum(not label for _, label in rows) / sum(label for _, label in rows)
    chosen = [row for row in rows if not row[1] or random.random() < share][:_ROWS]
    return Stream(np.array([x for x, _ in chosen], float), np.array([y for _, y in chosen]), classes=2)


STREAMS: dict[str, Callable[[], Stream]] = {
    "region": _region,
    "linear": _linear,
    "moving region": _moving,
    "shuttle": _shuttle,
}


def _learnd(stream: Stream, seed: int, **sections: Any) -> Rows:
    """Return the probability of the positive class for each row."""
    task = {"kind": "classification", "classes": ["0", "1"]}
    learner = LearnerOfRows(features=stream.x.shape[1], task=task, seed=seed, **sections)
    starts = range(0, len(stream.y), CHUNK_ROWS)
    parts = [
        learner.learn(stream.x[i : i + CHUNK_ROWS], stream.y[i : i + CHUNK_ROWS]).predictions[:, 1] for i in starts
    ]
    return np.concatenate(parts)


def _weighted_logistic(stream: Stream) -> Any:
    return linear_model.LogisticRegression(loss=optim.losses.Log(weight_pos=1.0 / stream.y.mean()))


SIDES: dict[str, Callable[[Stream, int], Rows]] = {
    "River: logistic": lambda s, _: probabilities(linear_model.LogisticRegression(), s),
    "River: logistic, weighted": lambda s, _: probabilities(_weighted_logistic(s), s),
    "River: tree": lambda s, seed: probabilities(tree.HoeffdingAdaptiveTreeClassifier(seed=seed), s),
    "River: forest": lambda s, seed: probabilities(forest.ARFClassifier(seed=seed), s),
    "learnd": _learnd,
    "learnd, one learner": lambda s, seed: _learnd(s, seed, learning={"mode": "per_sample"}),
}


def area(positive: Rows, y: Rows) -> float:
    """Return the area under the ROC curve: the probability that a positive row has the larger number."""
    order = np.argsort(positive, kind="stable")
    ranks = np.empty(len(y))
    ranks[order] = np.arange(1, len(y) + 1)
    values, inverse = np.unique(positive, return_inverse=True)
    ranks = (np.bincount(inverse, ranks) / np.bincount(inverse))[inverse] if len(values) < len(y) else ranks
    positives = y.sum()
    return float((ranks[y > 0].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


def figures(positive: Rows, y: Rows) -> list[float]:
    """Return recall, precision, F1, the area under the ROC curve and the log loss."""
    answer = positive > 0.5
    hits = float((answer & (y > 0)).sum())
    recall, precision = hits / y.sum(), hits / max(float(answer.sum()), 1.0)
    of_truth = np.where(y > 0, positive, 1.0 - positive)
    loss = -np.log(np.clip(of_truth, 1e-7, 1.0)).mean()
    return [recall, precision, 2 * hits / max(float(y.sum() + answer.sum()), 1.0), area(positive, y), float(loss)]


def table(streams: list[str], sides: list[str], seeds: int, first: int) -> str:
    """Measure and return the table."""
    rows = []
    for name in streams:
        stream = STREAMS[name]()
        for side in sides:
            own = range(1 if "logistic" in side else seeds)
            runs = [figures(SIDES[side](stream, seed)[first:], stream.y[first:]) for seed in own]
            rows.append([name, side, *np.mean(runs, axis=0).tolist()])
            print(*rows[-1], flush=True)
    return markdown(["stream", "side", "recall", "precision", "F1", "ROC AUC", "log loss"], rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=lambda text: text.split(","), default=list(STREAMS))
    parser.add_argument("--sides", type=lambda text: text.split(","), default=list(SIDES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--from", type=int, default=1, dest="first")
    options = parser.parse_args()
    values = {"source": {"kind": "simulator"}, "features": ["x"], "target": "y", "model": {"kind": "mlp"}}
    configure_tensorflow(from_values(values).learning)
    print(f"\n{table(options.streams, options.sides, options.seeds, options.first)}")


if __name__ == "__main__":
    main()
