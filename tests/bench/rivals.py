"""What a default has to beat: simple rules, and the online learners of River with their own defaults."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from river import compose, forest, linear_model, multiclass, preprocessing, tree

from tests.bench.stream_data import Rows, Stream


def naive(stream: Stream) -> Rows:
    """The last value; for classes the better of the last class and the most frequent one so far."""
    last = np.concatenate([[0.0], stream.y[:-1]])
    if not stream.classes:
        return last
    counts: Counter[float] = Counter()
    frequent = np.zeros(len(stream.y))
    for i, label in enumerate(stream.y):
        frequent[i] = counts.most_common(1)[0][0] if counts else -1.0
        counts[label] += 1
    return max((last, frequent), key=lambda p: -stream.figure(p) if stream.smaller_is_better else stream.figure(p))


def _linear(stream: Stream) -> Any:
    if not stream.classes:
        return linear_model.LinearRegression()
    return multiclass.OneVsRestClassifier(linear_model.LogisticRegression())


def _tree(stream: Stream) -> Any:
    return (
        tree.HoeffdingAdaptiveTreeClassifier(seed=0) if stream.classes else tree.HoeffdingAdaptiveTreeRegressor(seed=0)
    )


def _forest(stream: Stream) -> Any:
    return forest.ARFClassifier(seed=0) if stream.classes else forest.ARFRegressor(seed=0)


MODELS: dict[str, Callable[[Stream], Any]] = {"linear": _linear, "tree": _tree, "forest": _forest}


def river(name: str, stream: Stream) -> Rows:
    """Return the predictions of one of River's models behind its standard scaler, each before its row was learned."""
    model = compose.Pipeline(preprocessing.StandardScaler(), MODELS[name](stream))
    predictions = np.zeros(len(stream.y))
    for i, (row, target) in enumerate(zip(stream.x.tolist(), stream.y.tolist(), strict=True)):
        features = dict(enumerate(row))
        predicted = model.predict_one(features)
        predictions[i] = -1.0 if predicted is None else predicted
        model.learn_one(features, target)
    return predictions
