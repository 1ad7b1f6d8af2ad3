"""Optimizers: the names are Keras' own, and each one learns inside the compiled step."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from learnd.learners.optimizer import make_optimizer
from learnd.learners.settings import OPTIMIZERS, SCHEDULES, OptimizerSettings
from learnd.wiring.pipeline import make_pipeline
from tests.support.helpers import make_samples, settings

WRAPPERS = {"LossScaleOptimizer", "MultiOptimizer"}  # they take another optimizer, which a configuration cannot name


def test_names_are_those_of_keras() -> None:
    """What `learnd validate` knows is what Keras has."""
    base = keras.optimizers.Optimizer
    found = {name for name in dir(keras.optimizers) if _is_subclass(getattr(keras.optimizers, name), base)}
    assert found - {"Optimizer"} - WRAPPERS == set(OPTIMIZERS)
    schedules = keras.optimizers.schedules
    found = {name for name in dir(schedules) if _is_subclass(getattr(schedules, name), object)}
    assert found - {"LearningRateSchedule"} == set(SCHEDULES)


def _is_subclass(value: Any, base: type) -> bool:
    return isinstance(value, type) and issubclass(value, base)


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [pytest.param(True, marks=pytest.mark.slow), False])
def test_every_optimizer_learns_in_the_compiled_step(compiled: bool, kind: str, tmp_path: Path) -> None:
    """It compiles, with XLA too, changes the weights, and keeps them finite."""
    learning = {"compile": compiled, "optimizer": {"kind": kind, "learning_rate": 0.01}}
    pipeline = make_pipeline(settings(tmp_path, model={"kind": "linear"}, learning=learning))
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3)).astype(np.float32)
    before = [np.array(weight) for weight in pipeline.model.averaged.weights()]
    result = pipeline.model.learner.learn(make_samples(x, x[:, :1]))
    assert np.isfinite(result.losses).all()
    assert not all(np.array_equal(a, b) for a, b in zip(before, pipeline.model.averaged.weights(), strict=True))


def test_schedules_and_clipping_reach_keras() -> None:
    """A schedule by name in any case; the user's own clipping replaces the default."""
    rate = {"kind": "exponentialdecay", "initial_learning_rate": 0.1, "decay_steps": 10, "decay_rate": 0.5}
    optimizer = make_optimizer(OptimizerSettings(kind="sgd", learning_rate=rate))
    optimizer.build([keras.Variable([1.0])])
    assert float(optimizer.learning_rate) == pytest.approx(0.1)
    assert optimizer.global_clipnorm == 5.0
    chosen = make_optimizer(OptimizerSettings.model_validate({"kind": "adam", "clipnorm": 1.0}))
    assert (chosen.clipnorm, chosen.global_clipnorm) == (1.0, None)
