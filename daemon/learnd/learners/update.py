"""One update: test, then train, on the rows of one micro-batch. All of it is traced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from learnd.learners.averaged import AveragedModel
from learnd.learners.guard import Guard
from learnd.learners.replay import ReplayBuffer

CustomUpdate = Callable[[Any, Any, Any, Any], Any]
"""``update(model, optimizer, x, y) -> loss``: the core, its optimizer, what the core is given and should give."""


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How one update goes.

    Attributes
    ----------
    weighted : rows count by their weights; else all the same
    passes : optimizer steps on the same rows
    elastic : the share of the way to their average that the weights go after each step
    rates : Keras variables with the factor on their steps
    custom : the user's own update in place of ours
    """

    weighted: bool = False
    passes: int = 1
    elastic: float = 0.0
    rates: Sequence[tuple[Any, float]] = ()
    custom: CustomUpdate | None = None


class Update:
    """Predicts rows, then takes one optimizer step (or several passes) on them."""

    def __init__(
        self,
        network: Any,
        optimizer: Any,
        averaged: AveragedModel,
        guard: Guard,
        options: UpdateOptions,
        replay: ReplayBuffer | None = None,
    ) -> None:
        self._network = network
        self.optimizer = optimizer
        self._averaged = averaged
        self._options = options
        self._replay = replay
        self.guard = guard

    def __call__(self, x: Any, y: Any, weights: Any, *, observe: bool = True) -> tuple[Any, Any, Any]:
        """Predictions (rows, outputs), losses (rows,) and the averaged network's losses (rows,), all from before.

        Without *observe* the online statistics stay as they are.
        """
        network, rows = self._network, x.shape[0]
        tested = None
        if network.has_training_mode or self._options.custom is not None:
            # Dropout and batch statistics are for learning; a prediction must be what would have been served.
            tested = network.predict_and_loss(x, y, training=False)
        mixed = self._mixed(x, y, weights)
        trained = self._train(*mixed)
        predictions, losses = tested if tested is not None else (trained[0][:rows], trained[1][:rows])
        averaged_losses = self._averaged.losses(x, y, losses)
        self._train_again(*mixed)
        self._averaged.observe(x)
        if observe:
            network.observe(x, y)
        if self._replay is not None:
            self._replay.store(x, y, weights)
        return predictions, losses, averaged_losses

    def _mixed(self, x: Any, y: Any, weights: Any) -> tuple[Any, Any, Any]:
        """The new rows and the replayed ones behind them."""
        if self._replay is None:
            return x, y, weights
        old_x, old_y, old_weights = self._replay.draw()
        return tf.concat([x, old_x], 0), tf.concat([y, old_y], 0), tf.concat([weights, old_weights], 0)

    def _train(self, x: Any, y: Any, weights: Any) -> Any:
        """One optimizer step; returns what `predict_and_loss` said on the way."""
        network, custom = self._network, self._options.custom
        statistics = self.guard.statistics()
        if custom is not None:
            inputs, targets = network.core_inputs(x), network.core_targets(x, y)
            self.guard.step((), lambda _: custom(network.core, self.optimizer, inputs, targets), statistics)
            return None
        variables = network.trainable_variables
        with tf.GradientTape() as tape:
            judged = network.predict_and_loss(x, y, training=True)
            total = self._total(judged[1], weights) + network.penalty()
        self.guard.step(tape.gradient(total, variables), lambda sound: self._take(sound, variables), statistics)
        return judged

    def _take(self, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        before = [(v, tf.convert_to_tensor(v.value), factor) for v, factor in self._options.rates]
        self.optimizer.apply(gradients, variables)
        for variable, value, factor in before:
            variable.assign(value + factor * (variable.value - value))
        self._pull()

    def _total(self, losses: Any, weights: Any) -> Any:
        if self._replay is None and not self._options.weighted:
            return tf.reduce_mean(losses)
        # As Keras has it: divided by the number of rows, not by the sum of weights. Rows that the buffer could not
        # give yet are none.
        rows = tf.cast(tf.size(losses), tf.float32)
        if self._replay is not None:
            rows -= tf.cast(self._replay.missing(), tf.float32)
        return tf.reduce_sum(losses * weights) / rows

    def _pull(self) -> None:
        """Towards the average (elastic averaging; Zhang, Choromanska, LeCun, 2015)."""
        if not self._options.elastic:
            return
        learning = {id(v) for v in self._network.trainable_variables}
        share = tf.where(self._averaged.ready(), self._options.elastic, 0.0)
        for variable, average in self._averaged.pairs():
            if id(variable) in learning:
                variable.assign(variable.value + share * (average - variable.value))

    def _train_again(self, x: Any, y: Any, weights: Any) -> None:
        further = self._options.passes - 1
        if further:

            def once(i: Any) -> Any:
                self._train(x, y, weights)
                return i + 1

            tf.while_loop(lambda i: i < further, once, (tf.constant(0),))
