"""Other online learners with their own defaults: River's, and deep-river's with the network that learnd has."""

from collections.abc import Callable
from typing import Any

import numpy as np
from river import compose, forest, linear_model, multiclass, preprocessing, tree

from tests.bench.made_streams import Rows, Stream


def _linear(stream: Stream, seed: int) -> Any:
    if not stream.classes:
        return linear_model.LinearRegression()
    return multiclass.OneVsRestClassifier(linear_model.LogisticRegression())


def _tree(stream: Stream, seed: int) -> Any:
    made = tree.HoeffdingAdaptiveTreeClassifier if stream.classes else tree.HoeffdingAdaptiveTreeRegressor
    return made(seed=seed)


def _forest(stream: Stream, seed: int) -> Any:
    return forest.ARFClassifier(seed=seed) if stream.classes else forest.ARFRegressor(seed=seed)


RIVER: dict[str, Callable[[Stream, int], Any]] = {"linear": _linear, "tree": _tree, "forest": _forest}


def _predictions(model: Any, stream: Stream) -> Rows:
    """Return the predictions of *model* behind River's standard scaler, each before its row was learned."""
    scaled = compose.Pipeline(preprocessing.StandardScaler(), model)
    predictions = np.zeros(len(stream.y))
    targets = stream.y.astype(int).tolist() if stream.classes else stream.y.tolist()
    for i, (row, target) in enumerate(zip(stream.x.tolist(), targets, strict=True)):
        features = {f"x{column}": value for column, value in enumerate(row)}
        predicted = scaled.predict_one(features)
        predictions[i] = -1.0 if predicted is None else predicted
        scaled.learn_one(features, target)
    return predictions


def probabilities(model: Any, stream: Stream) -> Rows:
    """Return the probability of class 1 by *model* behind River's standard scaler, each before its row was learned."""
    scaled = compose.Pipeline(preprocessing.StandardScaler(), model)
    predictions = np.zeros(len(stream.y))
    for i, (row, target) in enumerate(zip(stream.x.tolist(), stream.y.astype(int).tolist(), strict=True)):
        features = {f"x{column}": value for column, value in enumerate(row)}
        predictions[i] = scaled.predict_proba_one(features).get(1, 0.0)
        scaled.learn_one(features, target)
    return predictions


def river(name: str, stream: Stream, seed: int) -> Rows:
    """Return the predictions of one of River's models."""
    return _predictions(RIVER[name](stream, seed), stream)


def deep_river(stream: Stream, seed: int) -> Rows:
    """Return the predictions of the network 32-16 in deep-river, by Adam at 0.001, as most would write it.

    Targets are scaled as well, by River's scaler: with raw ones, this network is far worse.
    """
    import torch  # noqa: PLC0415 - optional, and its import takes seconds
    from deep_river.classification import Classifier  # noqa: PLC0415
    from deep_river.regression import Regressor  # noqa: PLC0415

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    layers = torch.nn
    network = layers.Sequential(
        layers.Linear(stream.x.shape[1], 32),
        layers.ReLU(),
        layers.Linear(32, 16),
        layers.ReLU(),
        layers.Linear(16, stream.classes or 1),
    )
    options = {"module": network, "optimizer_fn": "adam", "lr": 0.001, "seed": seed}
    if stream.classes:
        return _predictions(Classifier(loss_fn="cross_entropy", **options), stream)
    return _predictions(preprocessing.TargetStandardScaler(Regressor(loss_fn="mse", **options)), stream)
