"""The choice of what is published: the weights that predict best while they stand still."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from learnd.learners.replay import ReplayBuffer
from learnd.learners.standing import ROUND, ROUNDS_PER_COPY, Standing, newest_rows
from tests.support.learning import LearnerOfRows


class _Constants:
    """Two candidates that predict a constant each; the loss is the distance from the newest rows' targets."""

    def __init__(self) -> None:
        self.weight = tf.Variable([0.0])
        self.now = [tf.Variable([0.0]), tf.Variable([0.0])]
        self.newest = newest_rows((1,), 1, rows=1, dtype="float32")
        present = lambda: [[tf.convert_to_tensor(v)] for v in self.now]  # noqa: E731
        self.standing = Standing(["a", "b"], present, [self.weight], self._loss, self.newest, first=1)

    def _loss(self, weights: Any, newest: ReplayBuffer) -> Any:
        return tf.reduce_mean(tf.abs(newest.rows()[1] - weights[0][1]))

    def learn(self, rows: int, target: float) -> None:
        for _ in range(rows):
            row = tf.constant([[target]])
            self.newest.store(row, row, tf.ones(1))
            if bool(self.standing.due()):
                self.standing.evaluate()

    def become(self, a: float, b: float) -> None:
        self.now[0].assign([a])
        self.now[1].assign([b])


def test_the_first_round_copies_and_the_second_evaluates() -> None:
    side = _Constants()
    side.become(1.0, 3.0)
    side.learn(ROUND, 0.0)
    assert side.standing.state().losses == {} and side.standing.state().name == "b"
    side.become(9.0, 0.0)  # what they become afterwards does not count
    side.learn(ROUND, 0.0)
    assert side.standing.state().losses == {"a": 1.0, "b": 3.0} and side.standing.state().name == "a"


def test_copies_are_renewed_after_some_rounds() -> None:
    side = _Constants()
    side.become(1.0, 3.0)
    side.learn(ROUND, 0.0)
    side.become(3.0, 1.0)
    side.learn(ROUNDS_PER_COPY * ROUND, 0.0)
    assert side.standing.state().name == "a"
    side.learn(8 * ROUND, 0.0)
    assert side.standing.state().name == "b"


def test_a_hardly_better_candidate_changes_nothing() -> None:
    side = _Constants()
    side.become(0.995, 1.0)
    side.learn(3 * ROUND, 0.0)
    assert side.standing.state().name == "b"


def test_weights_that_are_no_numbers_are_never_chosen() -> None:
    side = _Constants()
    side.become(float("nan"), 5.0)
    side.learn(3 * ROUND, 0.0)
    assert side.standing.state().name == "b"


# A single learner


@pytest.fixture(scope="module")
def single() -> LearnerOfRows:
    return LearnerOfRows(
        features=1,
        model={"kind": "linear"},
        learning={"optimizer": {"kind": "sgd", "learning_rate": 0.3}},
        averaging={"kind": "window", "size": 20, "every_samples": 100},
        decode={"kind": "json"},
    )


def _published(learner: LearnerOfRows, x: Any) -> Any:
    averaged = learner.learning.model.averaged
    return averaged.predict(x.astype(np.float32), averaged.weights())["prediction"][:, 0]


def test_a_single_learner_publishes_its_average_where_that_stands_better(single: LearnerOfRows) -> None:
    """A large step follows each row's noise."""
    single.reset()
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 1))
    y = 2.0 * x[:, 0] + random.normal(size=6000)
    single.learn(x, y)
    chosen = single.learning.model.chosen()
    assert chosen is not None and chosen.name == "average"
    assert chosen.losses["average"] < 0.9 * chosen.losses["live"]


def test_and_its_live_weights_where_those_do(single: LearnerOfRows) -> None:
    """The relation turns over slowly; an average over 2000 rows is far behind, and live weights are not."""
    single.reset()
    random = np.random.default_rng(0)
    x = random.normal(size=(6000, 1))
    y = np.cos(np.arange(6000) / 1000.0) * 5.0 * x[:, 0] + 0.01 * random.normal(size=6000)
    result = single.learn(x, y)
    chosen = single.learning.model.chosen()
    assert chosen is not None and chosen.name == "live"
    np.testing.assert_array_equal(result.averaged_losses[-200:], result.losses[-200:])
    live = single.learning.network
    answer = live.call(tf.constant(x[:5].astype(np.float32)))["prediction"].numpy()[:, 0]
    np.testing.assert_array_equal(_published(single, x[:5]), answer)


def test_the_choice_does_not_depend_on_how_the_stream_is_cut(single: LearnerOfRows) -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2100, 1)), random.normal(size=2100)
    single.reset()
    single.learn(x, y)
    whole = single.state()
    single.reset()
    for cut in (slice(0, 199), slice(199, 201), slice(201, 1450), slice(1450, 2100)):
        single.learn(x[cut], y[cut])
    for name, value in single.state().items():
        np.testing.assert_array_equal(value, whole[name], err_msg=name)
