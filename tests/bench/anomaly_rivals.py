"""Other detectors of anomalies, each a score per row, before the row is learned.

All take the same threshold: the one that learnd estimates for a chosen rate of false alarms, on each one's own scores.
"""

import random as python_random
from collections.abc import Callable
from math import erfc, log, sqrt
from typing import Any

import numpy as np
import rrcf
from river import anomaly

from learnd.alarms.threshold import make_threshold, observe_score

Rows = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
PER_READINGS = 2000
"""The rate of false alarms, fixed beforehand: one in so many readings."""
WARM_UP = 300
LOG_WINDOW, LOG_SHORT, LOG_EVERY = 8640, 10, 100
GAUSSIAN_WINDOW, GAUSSIAN_STEP = 6400, 100


def _tail(deviations: float) -> float:
    """Return minus the logarithm of the probability of a normal number beyond *deviations*."""
    return -log(max(0.5 * erfc(deviations / sqrt(2.0)), 1e-300))


def hotelling(x: Rows, losses: Rows, seed: int) -> Rows:
    """Return T2: the distance from the running mean, by the running covariance of all rows so far."""
    columns = x.shape[1]
    mean, spread = x[0].copy(), np.zeros((columns, columns))
    scores = np.zeros(len(x))
    for i, row in enumerate(x):
        away = row - mean
        if i > WARM_UP:
            scores[i] = away @ np.linalg.solve(spread / i + 1e-9 * np.eye(columns), away)
        mean += away / (i + 1)
        spread += np.outer(away, row - mean)
    return scores


def windowed_gaussian(x: Rows, losses: Rows, seed: int) -> Rows:
    """Return NAB's windowed Gaussian: the tail of a normal distribution of the last 6400 readings."""
    scores = np.zeros(len(x))
    for i in range(WARM_UP, len(x)):
        if (i - WARM_UP) % GAUSSIAN_STEP == 0:
            part = x[max(0, i - GAUSSIAN_WINDOW) : i]
            mean, spread = part.mean(axis=0), part.std(axis=0) + 1e-6
        scores[i] = _tail(float(np.abs((x[i] - mean) / spread).max()))
    return scores


def likelihood_of_loss(x: Rows, losses: Rows, seed: int) -> Rows:
    """Return NAB's anomaly likelihood of learnd's loss: the tail of the mean of 10 among the last 8640 such means."""
    known = np.flatnonzero(~np.isnan(losses))
    values = losses[known]
    means = np.convolve(values, np.ones(LOG_SHORT) / LOG_SHORT)[: len(values)]
    scores = np.zeros(len(x))
    for i in range(WARM_UP, len(values)):
        if (i - WARM_UP) % LOG_EVERY == 0:
            part = means[max(LOG_SHORT, i - LOG_WINDOW) : i]
            mean, spread = part.mean(), part.std() + 1e-9
        scores[known[i]] = _tail((means[i] - mean) / spread)
    return scores


def half_space_trees(x: Rows, losses: Rows, seed: int) -> Rows:
    """Return River's half-space trees with their defaults, behind a scaling to the range so far."""
    model = anomaly.HalfSpaceTrees(seed=seed)
    low, high = x[0].copy(), x[0].copy()
    scores = np.zeros(len(x))
    for i, row in enumerate(x):
        low, high = np.minimum(low, row), np.maximum(high, row)
        scaled = ((row - low) / np.maximum(high - low, 1e-12)).tolist()
        features = dict(enumerate(scaled))
        scores[i] = model.score_one(features)
        model.learn_one(features)
    return scores


TREES, TREE_ROWS, SHINGLE = 5, 128, 8


def random_cut_forest(x: Rows, losses: Rows, seed: int) -> Rows:
    """Return the mean collusive displacement in 5 trees of the last 128 rows; of one column, shingles of 8 readings."""
    np.random.seed(seed)
    python_random.seed(seed)
    shingle = SHINGLE if x.shape[1] == 1 else 1
    points = np.lib.stride_tricks.sliding_window_view(x, shingle, axis=0).reshape(len(x) - shingle + 1, -1)
    points = points + 1e-9 * np.random.default_rng(seed).normal(size=points.shape)  # equal points have no cut
    forest = [rrcf.RCTree() for _ in range(TREES)]
    scores = np.zeros(len(x))
    for i, point in enumerate(points):
        for tree in forest:
            if i >= TREE_ROWS:
                tree.forget_point(i - TREE_ROWS)
            tree.insert_point(point, index=i)
            scores[i + shingle - 1] += tree.codisp(i) / TREES
    return scores


RIVALS: dict[str, Callable[[Rows, Rows, int], Rows]] = {
    "Hotelling's T2": hotelling,
    "windowed Gaussian": windowed_gaussian,
    "likelihood of the loss": likelihood_of_loss,
    "half-space trees": half_space_trees,
    "random cut forest": random_cut_forest,
}


def flagged(scores: Rows) -> Flags:
    """Return the rows whose score exceeds the threshold for one alarm in `PER_READINGS`."""
    flags = np.zeros(len(scores), np.bool_)
    threshold = make_threshold(np.inf, floor=-np.inf, estimated=True)
    last = -REFRACTORY
    for i, score in enumerate(scores.tolist()):
        if i < WARM_UP:
            continue
        flags[i] = score > threshold.value[0]
        begins = bool(flags[i]) and i - last > REFRACTORY
        last = i if flags[i] else last
        observe_score(threshold, 0, score, begins, float(i), float(PER_READINGS), 0.0)
    return flags


REFRACTORY = 100
"""Flags within so many readings of the last one belong to the same alarm."""
